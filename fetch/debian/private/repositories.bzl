"""Repository rules behind //fetch/debian:extension.bzl."""

load("//fetch/pypi:pypi.bzl", "locked_requirement", "pypi_download")
load(":download.bzl", "debian_mirrors", "download_packages")

def _download(rctx):
    downloaded = download_packages(rctx, json.decode(rctx.attr.packages), debian_mirrors(rctx))
    if downloaded.error:
        fail(downloaded.error)
    return downloaded.files

def _debian_packages_impl(rctx):
    files = _download(rctx)
    rctx.file("BUILD.bazel", """\
# The .deb files of one set of locks/debian.lock.json.
package(default_visibility = ["//visibility:public"])

filegroup(
    name = "packages",
    srcs = {},
)
""".format(json.encode_indent(files, prefix = "    ", indent = "    ")))

debian_packages = repository_rule(
    implementation = _debian_packages_impl,
    doc = "The .deb files of a set: target `packages`, in lock order.",
    attrs = {
        "packages": attr.string(mandatory = True, doc = "The set's part of the lock, as JSON."),
    },
)

def _debian_root_impl(rctx):
    # Labels first: each that is new restarts this function, which should not cost a download.
    build_file = rctx.path(rctx.attr.build_file)
    unpack = rctx.path(Label("//fetch/debian:unpack.py"))
    rctx.path(Label("//fetch/debian:archive.py"))
    rctx.path(Label("//fetch:archives.py"))
    rctx.path(Label("//fetch/pypi:extract.py"))
    requirements = rctx.path(Label("//locks:requirements.lock.txt")) if rctx.attr.wheels else None

    files = _download(rctx)
    for project in rctx.attr.wheels:
        rctx.report_progress("downloading {}".format(project))
        wheel = pypi_download(rctx, project, locked_requirement(rctx, requirements, project), "tools/bazel run //locks:update_requirements")
        files.append(wheel.basename)
    arguments = [rctx.which("python3"), "-IB", unpack, "--root", "."]
    for script, program in rctx.attr.wrappers.items():
        arguments += ["--wrapper", "{}={}".format(script, program)]
    for script, option in rctx.attr.dropped_options.items():
        arguments += ["--drop", "{}={}".format(script, option)]
    done = rctx.execute(arguments + files, timeout = 600)
    if done.return_code:
        fail(done.stderr)
    for file in files:
        rctx.delete(file)
    rctx.symlink(build_file, "BUILD.bazel")

debian_root = repository_rule(
    implementation = _debian_root_impl,
    doc = "The packages of a set, and wheels, unpacked into one folder.",
    attrs = {
        "build_file": attr.label(mandatory = True),
        "dropped_options": attr.string_dict(doc = "See the tag class in extension.bzl."),
        "packages": attr.string(mandatory = True, doc = "The set's part of the lock, as JSON."),
        "wheels": attr.string_list(doc = "See the tag class in extension.bzl."),
        "wrappers": attr.string_dict(doc = "See the tag class in extension.bzl."),
    },
    environ = ["PIP_INDEX_URL"],
)
