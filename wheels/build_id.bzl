"""Module extension `build_id`: one short digest of everything that decides the native libraries' bytes.

It is part of every wheel's version, so wheels of two different builds never satisfy each other's pins.
"""

# Files and folders that count, beside entries of the locks; see private/build_id.py.
_INPUTS = [
    "locks/crates.lock.json",
    "locks/sources.lock.json",
    "third_party/crates",
    "third_party/debian/cxx_headers.BUILD.bazel",
    "third_party/git",
    "third_party/mlc_llm",
    "third_party/pypi",
    "third_party/sentencepiece",
    "third_party/tokenizers_cpp",
    "third_party/tvm",
    "third_party/tvm_ffi",
    "third_party/xgrammar",
    "toolchains/cc",
    "toolchains/rust",
    "version.bzl",
    "wheels/BUILD.bazel",
]

_LOCKS = [
    "locks/debian.lock.json",
    "locks/requirements.lock.txt",
]

def _build_id_repository_impl(rctx):
    root = rctx.path(Label("//:version.bzl")).dirname
    for name in _INPUTS + _LOCKS:
        path = root.get_child(name)
        rctx.watch_tree(path) if path.is_dir else rctx.watch(path)
    result = rctx.execute([rctx.which("python3"), "-B", rctx.path(Label("//wheels/private:build_id.py")), root] + _INPUTS)
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
