"""`pypi_source`: a repository of sources made from locked PyPI wheels and sdists, under a BUILD file of ours."""

load("//fetch:lock.bzl", "must_read_lock")
load(":pypi.bzl", "locked_requirement", "pypi_download")

_UPDATE_SOURCES = "tools/bazel run //locks:update_sources"

# What says which files a repository has: attributes of the rule, and of the extension's tag.
SOURCE_ATTRS = {
    "build_file": attr.label(mandatory = True, allow_single_file = True, doc = "The repository's BUILD file."),
    "sdist": attr.string(doc = "Project in locks/sources.lock.json whose sdist adds files."),
    "sdist_files": attr.string_list(doc = "Shell patterns, below that folder, of the files to take; none: all."),
    "sdist_prefix": attr.string(doc = "Folder in the sdist whose content is taken."),
    "wheel": attr.string(doc = "Project in `wheel_lock` whose wheel is unpacked."),
    "wheel_files": attr.string_list(doc = "Shell patterns of the files to take from it; none: all."),
    "wheel_lock": attr.label(default = "//locks:requirements.lock.txt", allow_single_file = True, doc = "The lock of the wheel."),
}

def _pypi_source_impl(rctx):
    python = rctx.which("python3")
    extract = rctx.path(Label("//fetch/pypi:extract.py"))
    rctx.path(Label("//fetch:archives.py"))
    sources = must_read_lock(rctx, rctx.attr._sources_lock)["sources"]

    def unpack(project, hashes, update, prefix, patterns):
        rctx.report_progress("downloading {}".format(project))
        archive = pypi_download(rctx, project, hashes, update)
        rctx.report_progress("unpacking {}".format(project))
        result = rctx.execute([python, "-IB", extract, archive, "--prefix", prefix] + patterns)
        if result.return_code:
            fail(result.stderr.strip())
        rctx.delete(archive)

    if rctx.attr.wheel:
        unpack(
            rctx.attr.wheel,
            locked_requirement(rctx, rctx.attr.wheel_lock, rctx.attr.wheel),
            "tools/bazel run //locks:update_requirements",
            "",
            rctx.attr.wheel_files,
        )
    if rctx.attr.sdist:
        if rctx.attr.sdist not in sources:
            fail("{}: not in locks/sources.lock.json. Run {}".format(rctx.attr.sdist, _UPDATE_SOURCES))
        source = sources[rctx.attr.sdist]
        root = source["file"][:-len(".tar.gz")] + "/"
        unpack(rctx.attr.sdist, [source["sha256"]], _UPDATE_SOURCES, root + rctx.attr.sdist_prefix, rctx.attr.sdist_files)
    rctx.file("BUILD.bazel", rctx.read(rctx.attr.build_file))

pypi_source = repository_rule(
    implementation = _pypi_source_impl,
    doc = "Sources from PyPI: files of one locked wheel, or of one locked sdist, or the latter laid over the former.",
    attrs = SOURCE_ATTRS | {
        "_sources_lock": attr.label(default = "//locks:sources.lock.json", allow_single_file = True),
    },
    environ = ["PIP_INDEX_URL"],
)
