"""Module extension `crates`: sets of locks/crates.lock.json as repositories of the .crate files themselves.

Example (MODULE.bazel):

    crates = use_extension("//fetch/crates:extension.bzl", "crates")
    crates.set(name = "tokenizers_cpp")
    use_repo(crates, "crates_tokenizers_cpp")

`@crates_tokenizers_cpp//:crates` is what `cargo_static_library` in //toolchains/rust:defs.bzl takes. It lays the crates out as a cargo vendor
folder within its action: some dozens of files to track instead of thousands, and no crate's own BUILD files among them.
"""

load("//fetch:lock.bzl", "must_read_lock")
load("//fetch/facts:facts.bzl", "locked", "repository_facts")
load(":crates.bzl", "download_crates")

_LOCK = Label("//locks:crates.lock.json")

def _crates_repository_impl(rctx):
    files = download_crates(rctx, json.decode(rctx.attr.crates))
    rctx.file("BUILD.bazel", """\
# The crates of one set of locks/crates.lock.json.
package(default_visibility = ["//visibility:public"])

filegroup(
    name = "crates",
    srcs = {},
)
""".format(json.encode_indent(files, prefix = "    ", indent = "    ")))

_crates_repository = repository_rule(
    implementation = _crates_repository_impl,
    doc = "The .crate files of a set: target `crates`, in lock order.",
    attrs = {"crates": attr.string(mandatory = True, doc = "The set's part of the lock, as JSON.")},
    environ = [
        "CARGO_HOME",
        "MLC_CRATES_URL",
    ],
)

def _crates_impl(mctx):
    lock = must_read_lock(mctx, _LOCK)
    facts = {}
    for module in mctx.modules:
        for tag in module.tags.set:
            if tag.name not in lock["sets"]:
                fail("locks/crates.lock.json has no set '{}', only {}; add it to locks/crates.packages.json and run `tools/bazel run //locks:update_crates`".format(
                    tag.name,
                    ", ".join(lock["sets"].keys()),
                ))

            # Only a change of the set's own crates makes its repository outdated.
            _crates_repository(name = "crates_" + tag.name, crates = json.encode([lock["crates"][key] for key in lock["sets"][tag.name]]))
            facts["crates_" + tag.name] = locked(sets = [("crate", tag.name)], needs = tag.needs)
    repository_facts(name = "crates_facts", facts = facts)
    return mctx.extension_metadata(reproducible = True)

crates = module_extension(
    implementation = _crates_impl,
    tag_classes = {
        "set": tag_class(
            doc = "A set as the repository crates_<name>: target `crates`.",
            attrs = {
                "name": attr.string(mandatory = True, doc = "A set of locks/crates.lock.json."),
                "needs": attr.string_list(doc = "What a build must have to take it, as `locked` of //fetch/facts:facts.bzl has it."),
            },
        ),
    },
)
