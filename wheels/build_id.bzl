"""Module extension `build_id`: one short digest of everything that decides the native libraries' bytes.

It is part of every wheel's version, so wheels of two different builds never satisfy each other's pins.
"""

# Hashes names and contents below the given files and folders, in order of names.
_DIGEST = """
import hashlib, pathlib, sys
digest = hashlib.sha256()
root = pathlib.Path(sys.argv[1])
for name in sys.argv[2:]:
    place = root / name
    for file in sorted(place.rglob("*")) if place.is_dir() else [place]:
        if file.is_file() and file.suffix not in (".md", ".pyc"):
            digest.update(f"{file.relative_to(root).as_posix()}\\0{hashlib.sha256(file.read_bytes()).hexdigest()}\\n".encode())
print(digest.hexdigest()[:8])
"""

_INPUTS = [
    "locks/debian.lock.json",
    "locks/requirements.lock.txt",
    "locks/sources.lock.json",
    "third_party/tvm",
    "third_party/tvm_ffi",
    "toolchains/cc",
    "version.bzl",
]

def _build_id_repository_impl(rctx):
    root = rctx.path(Label("//:version.bzl")).dirname
    for name in _INPUTS:
        rctx.watch_tree(root.get_child(name)) if root.get_child(name).is_dir else rctx.watch(root.get_child(name))
    result = rctx.execute([rctx.which("python3"), "-c", _DIGEST, root] + _INPUTS)
    if result.return_code:
        fail(result.stderr)
    rctx.file("BUILD.bazel", "exports_files([\"build_id.bzl\"])\n")
    rctx.file("build_id.bzl", "\"\"\"Written by //wheels:build_id.bzl.\"\"\"\n\nBUILD_ID = \"{}\"\n".format(result.stdout.strip()))

_build_id_repository = repository_rule(
    implementation = _build_id_repository_impl,
    doc = "A repository with BUILD_ID, eight hex digits.",
    local = True,
)

def _build_id_impl(_mctx):
    _build_id_repository(name = "build_id")

build_id = module_extension(implementation = _build_id_impl)
