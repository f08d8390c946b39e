"""Module extension `python_wheels`: the wheels that locks/pythons.lock.json pins for other CPythons, a repository each, and those of Bazel for arm64.

Example (a MODULE.bazel file):

    python_wheels = use_extension("//fetch/pypi:wheels.bzl", "python_wheels")
    use_repo(python_wheels, "wheels_cp312")

`@wheels_cp312//:wheels` is all of them, under the names that pip knows them by. `@wheels_bazel_arm64//:wheels` is what locks/bazel_arm64.lock.json pins.
"""

load("//fetch:lock.bzl", "must_read_lock")
load(":pypi.bzl", "from_repository_cache", "pypi_fetch", "pypi_files")

_LOCK = Label("//locks:pythons.lock.json")

_BAZEL_LOCK = Label("//locks:bazel_arm64.lock.json")

def _python_wheels_repository_impl(rctx):
    locked = json.decode(rctx.attr.wheels)
    for name, wheel in locked.items():
        rctx.report_progress("downloading {}".format(wheel["file"]))

        # Most are the same for every Python, and the cache has them from the first.
        if from_repository_cache(rctx, [wheel["sha256"]], wheel["file"]):
            continue
        files, error = pypi_files(rctx, name)
        found = [file for file in files or [] if file["hashes"].get("sha256") == wheel["sha256"]]
        if not found:
            fail("{} (sha256 {}) is not in the repository cache, and {}. If the lock is meant to change: tools/bazel run //locks:update_requirements".format(
                wheel["file"],
                wheel["sha256"],
                error or "the index has no file with this hash",
            ))
        pypi_fetch(rctx, wheel["file"], found[0], wheel["file"])
    rctx.file("BUILD.bazel", """\
# Locked wheels.
package(default_visibility = ["//visibility:public"])

filegroup(
    name = "wheels",
    srcs = {},
)
""".format(json.encode_indent(sorted([wheel["file"] for wheel in locked.values()]), prefix = "    ", indent = "    ")))

_python_wheels_repository = repository_rule(
    implementation = _python_wheels_repository_impl,
    doc = "Locked wheels: target `wheels`.",
    attrs = {"wheels": attr.string(mandatory = True, doc = "The Python's part of the lock, as JSON.")},
    environ = ["PIP_INDEX_URL"],
)

def _python_wheels_impl(mctx):
    for python, wheels in must_read_lock(mctx, _LOCK)["pythons"].items():
        _python_wheels_repository(name = "wheels_" + python, wheels = json.encode(wheels))
    bazel = must_read_lock(mctx, _BAZEL_LOCK)["wheels"]
    _python_wheels_repository(
        name = "wheels_bazel_arm64",
        wheels = json.encode({wheel["project"]: {"file": file, "sha256": wheel["sha256"]} for file, wheel in bazel.items()}),
    )
    return mctx.extension_metadata(reproducible = True)

python_wheels = module_extension(implementation = _python_wheels_impl)
