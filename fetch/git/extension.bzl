"""Module extension `git_sources`: git sources of locks/sources.lock.json as repositories.

Example (a MODULE.bazel file):

    git_sources = use_extension("//fetch/git:extension.bzl", "git_sources")
    git_sources.source(
        name = "xgrammar",
        build_file = "//third_party/xgrammar:xgrammar.BUILD.bazel",
        source = "xgrammar",
    )
    use_repo(git_sources, "git_sources", "xgrammar")
"""

load("//fetch:lock.bzl", "must_read_lock")
load("//fetch/facts:facts.bzl", "locked", "repository_facts")
load(":source.bzl", "SOURCE_ATTRS", "git_source", "git_sources_facts")

_LOCK = Label("//locks:sources.lock.json")

def _git_sources_impl(mctx):
    lock = must_read_lock(mctx, _LOCK)["sources"]
    facts = {}
    for module in mctx.modules:
        for tag in module.tags.source:
            if tag.source not in lock:
                fail("locks/sources.lock.json has no source '{}'; add it to locks/sources.packages.json and run tools/bazel run //locks:update_sources".format(tag.source))

            facts[tag.name] = locked([("source", tag.source)], needs = ["sources"] + tag.needs)

            # Only a change of this entry makes the repository outdated.
            git_source(name = tag.name, locked = json.encode(lock[tag.source]), **{name: getattr(tag, name) for name in SOURCE_ATTRS})
    git_sources_facts(name = "git_sources")
    repository_facts(name = "git_facts", facts = facts)

git_sources = module_extension(
    implementation = _git_sources_impl,
    tag_classes = {
        "source": tag_class(
            doc = "The locked paths of one commit as a repository.",
            attrs = {
                "name": attr.string(mandatory = True),
                "needs": attr.string_list(doc = "What a build must have besides sources to take it, as `locked` of //fetch/facts:facts.bzl has it."),
            } | SOURCE_ATTRS,
        ),
    },
)
