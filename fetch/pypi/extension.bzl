"""Module extension `sources`: repositories of sources made from PyPI distributions.

Example (a MODULE.bazel file):

    sources = use_extension("//fetch/pypi:extension.bzl", "sources")
    sources.distribution(
        name = "tvm_ffi",
        build_file = "//third_party/tvm_ffi:tvm_ffi.BUILD.bazel",
        wheel = "apache-tvm-ffi",
    )
    use_repo(sources, "tvm_ffi")
"""

load(":source.bzl", "SOURCE_ATTRS", "pypi_source")

def _sources_impl(mctx):
    for module in mctx.modules:
        for tag in module.tags.distribution:
            pypi_source(name = tag.name, **{name: getattr(tag, name) for name in SOURCE_ATTRS})

sources = module_extension(
    implementation = _sources_impl,
    tag_classes = {
        "distribution": tag_class(
            doc = "A wheel, files of an sdist, or the latter laid over the former, as one repository.",
            attrs = {"name": attr.string(mandatory = True)} | SOURCE_ATTRS,
        ),
    },
)
