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

load("//fetch/facts:facts.bzl", "locked", "repository_facts")
load(":source.bzl", "SOURCE_ATTRS", "pypi_source")

def _sources_impl(mctx):
    facts = {}
    for module in mctx.modules:
        for tag in module.tags.distribution:
            wheel = tag.wheel + (":arm64" if "arm64" in tag.wheel_lock.name else "")
            facts[tag.name] = locked(([("pypi", wheel)] if tag.wheel else []) + ([("source", tag.sdist)] if tag.sdist else []), needs = tag.needs)
            pypi_source(name = tag.name, **{name: getattr(tag, name) for name in SOURCE_ATTRS})
    repository_facts(name = "pypi_facts", facts = facts)

sources = module_extension(
    implementation = _sources_impl,
    tag_classes = {
        "distribution": tag_class(
            doc = "A wheel, files of an sdist, or the latter laid over the former, as one repository.",
            attrs = {
                "name": attr.string(mandatory = True),
                "needs": attr.string_list(doc = "What a build must have to take it, as `locked` of //fetch/facts:facts.bzl has it."),
            } | SOURCE_ATTRS,
        ),
    },
)
