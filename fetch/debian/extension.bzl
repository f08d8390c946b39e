"""Module extension `debian`: sets of locks/debian.lock.json as repositories.

Example (MODULE.bazel):

    debian = use_extension("//fetch/debian:extension.bzl", "debian")

    # Unpacked into one folder, with programs that run on the folder's own libraries.
    debian.root(
        name = "debian_python",
        set = "python",
        build_file = "//toolchains/python:debian_python.BUILD.bazel",
        wrappers = {"usr/bin/python3": "usr/bin/python3.11"},
    )

    # The .deb files themselves: @debian_image_base//:packages.
    debian.packages(name = "debian_image_base", set = "image_base")
    use_repo(debian, "debian_image_base", "debian_python")
"""

load("//fetch:lock.bzl", "must_read_lock")
load("//fetch/debian/private:repositories.bzl", "debian_packages", "debian_root")
load("//fetch/facts:facts.bzl", "locked", "repository_facts")

_LOCK = Label("//locks:debian.lock.json")

_NEEDS = "What a build must have to take it, as `locked` of //fetch/facts:facts.bzl has it."

_root = tag_class(
    doc = "A set's packages unpacked into one folder.",
    attrs = {
        "build_file": attr.label(mandatory = True, doc = "The repository's BUILD file."),
        "dropped_options": attr.string_dict(doc = "Script of `wrappers` → an option that is not passed to its program, nor the argument after it."),
        "name": attr.string(mandatory = True),
        "needs": attr.string_list(doc = _NEEDS),
        "set": attr.string(mandatory = True, doc = "A set of locks/debian.lock.json."),
        "wheels": attr.string_list(doc = "Distributions of locks/requirements.lock.txt whose wheels are also unpacked into the folder: programs that Debian lacks."),
        "wrappers": attr.string_dict(
            doc = "Script to generate → program that it runs with this folder's loader and libraries, optionally after variables (NAME=VALUE) and followed by " +
                  "arguments in which {root} stands for the folder. A script with the name of its program takes that program's place.",
        ),
    },
)

_packages = tag_class(
    doc = "A set's .deb files, unopened: target `packages`, in lock order.",
    attrs = {
        "name": attr.string(mandatory = True),
        "needs": attr.string_list(doc = _NEEDS),
        "set": attr.string(mandatory = True, doc = "A set of locks/debian.lock.json."),
    },
)

_lock = tag_class(
    doc = "The .deb files of all packages of another lock than debian.lock.json, unopened: target `packages`, in lock order.",
    attrs = {
        "lock": attr.label(mandatory = True, doc = "It has `packages` as debian.lock.json has them."),
        "name": attr.string(mandatory = True),
    },
)

def _locked_set(lock, name):
    """The packages of one set as JSON, so that only their changes make a repository outdated."""
    if name not in lock["sets"]:
        fail("locks/debian.lock.json has no set '{}', only {}; add it to locks/debian.packages.json and run `tools/bazel run //locks:update_debian`".format(
            name,
            ", ".join(lock["sets"].keys()),
        ))
    return json.encode({key: lock["packages"][key] for key in lock["sets"][name]})

def _debian_impl(module_ctx):
    lock = must_read_lock(module_ctx, _LOCK)
    facts = {}
    for module in module_ctx.modules:
        for tag in module.tags.root:
            debian_root(
                name = tag.name,
                build_file = tag.build_file,
                dropped_options = tag.dropped_options,
                packages = _locked_set(lock, tag.set),
                wheels = tag.wheels,
                wrappers = tag.wrappers,
            )
            facts[tag.name] = locked([("pypi", wheel) for wheel in tag.wheels], [("debian", tag.set)], tag.needs)
        for tag in module.tags.packages:
            debian_packages(name = tag.name, packages = _locked_set(lock, tag.set))
            facts[tag.name] = locked(sets = [("debian", tag.set)], needs = tag.needs)
        for tag in module.tags.lock:
            debian_packages(name = tag.name, packages = json.encode(must_read_lock(module_ctx, tag.lock)["packages"]))
    repository_facts(name = "debian_facts", facts = facts)
    return module_ctx.extension_metadata(reproducible = True)

debian = module_extension(
    implementation = _debian_impl,
    tag_classes = {
        "lock": _lock,
        "packages": _packages,
        "root": _root,
    },
)
