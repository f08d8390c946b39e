"""`made_of`: derives the locked inputs of a wheel from the build graph."""

load("@crates_facts//:facts.bzl", CRATES = "REPOSITORIES")
load("@debian_facts//:facts.bzl", DEBIAN = "REPOSITORIES")
load("@git_facts//:facts.bzl", GIT = "REPOSITORIES")
load("@maven_facts//:facts.bzl", MAVEN = "REPOSITORIES")
load("@models_facts//:facts.bzl", MODELS = "REPOSITORIES")
load("@pypi_facts//:facts.bzl", PYPI = "REPOSITORIES")
load("//fetch/git:defs.bzl", "WITH_SOURCES")
load("//toolchains/cuda:defs.bzl", "NEEDS_CUDA")
load(":finished_wheel.bzl", "WheelInfo")

REPOSITORIES = CRATES | DEBIAN | GIT | MAVEN | MODELS | PYPI

_RepositoriesInfo = provider(
    doc = "Repositories that reach a target, by canonical name.",
    fields = {
        "content": "depset: their files are in the output or compiled into it.",
        "interfaces": "depset: only their headers are compiled into it.",
        "tools": "depset: compilers, interfaces of called libraries, texts of licences.",
    },
)

# Attributes whose targets are not part of the output: other wheels, and libraries in other wheels.
_OTHERS = ["dynamic_deps", "pins"]

# Attributes whose targets are tools although they are built for the target's platform: Rust's standard library, as that of the build's own platform is
# in its compiler. Its licence is among those of the wheel.
_TOOLS = ["target_library"]

# Attributes that name a target's own files.
_FILES = ["crates", "lock", "manifest", "src", "srcs", "textual_hdrs"]

def _is_tool(target, ctx):
    """Whether a target runs during the build, or offers only an interface."""
    return "-exec" in ctx.bin_dir.path or target.label.package.partition("/")[0] == "toolchains" or ctx.rule.kind == "linked_licenses"

def _repositories_aspect_impl(target, ctx):
    own, below = {}, {"content": [], "interfaces": [], "tools": []}
    for name in dir(ctx.rule.attr):
        value = getattr(ctx.rule.attr, name)
        values = value if type(value) == "list" else value.keys() if type(value) == "dict" else [value]
        for each in values:
            if type(each) != "Target" or name in _OTHERS:
                continue
            if _RepositoriesInfo in each:
                for field in below:
                    below["tools" if name in _TOOLS else field].append(getattr(each[_RepositoriesInfo], field))
            elif name in _FILES:
                # A source file: aspects do not visit it.
                own[each.label.workspace_name] = True
    sources = getattr(ctx.rule.attr, "srcs", None) or getattr(ctx.rule.attr, "src", None)
    field = "content" if sources or ctx.rule.kind != "cc_library" else "interfaces"
    own[target.label.workspace_name] = True
    found = {name: depset(own.keys() if name == field else [], transitive = each) for name, each in below.items()}
    if _is_tool(target, ctx):
        found = {"content": depset(), "interfaces": depset(), "tools": depset(transitive = found.values())}
    return [_RepositoriesInfo(**found)]

_repositories_aspect = aspect(
    implementation = _repositories_aspect_impl,
    attr_aspects = ["*"],
)

def _locked(repositories):
    """Sorted entries and sets of the locks in these repositories."""
    facts = [REPOSITORIES[each] for each in repositories if each in REPOSITORIES]
    return {kind: sorted({pair: None for each in facts for pair in [tuple(pair) for pair in each[kind]]}) for kind in ["entries", "sets"]}

def _made_of_impl(ctx):
    found = ctx.attr.unversioned[_RepositoriesInfo]
    pinned = [pin[_RepositoriesInfo].content.to_list() for pin in ctx.attr.pins]
    in_pinned = {each: None for repositories in pinned for each in repositories}

    # Headers of a pinned wheel's project only declare its interface. All other headers contribute code.
    content = {each: None for each in found.content.to_list()}
    content |= {each: None for each in found.interfaces.to_list() if each not in in_pinned}
    content, tools = _locked(content), _locked(found.tools.to_list())
    output = ctx.actions.declare_file(ctx.label.name + ".json")
    project = [each for each in ctx.attr.project if each in REPOSITORIES]
    if not project:
        fail("{}: expected repositories that hold an entry of the locks, found {}".format(ctx.label, ctx.attr.project))
    ctx.actions.write(output, json.encode_indent({
        "abi": ctx.attr.abi,
        "architecture": ctx.attr.architecture,
        "distribution": ctx.attr.distribution,
        # It declares the wheel's licence.
        "licensed_as": REPOSITORIES[project[0]]["entries"][0],
        "of_the_project": _locked(project)["entries"],
        "content": content,
        "tools": {kind: [each for each in tools[kind] if each not in content[kind]] for kind in tools},
    }) + "\n")
    return [DefaultInfo(files = depset([output]))]

made_of = rule(
    implementation = _made_of_impl,
    doc = """A JSON file with the locked inputs of a wheel.

Keys: `distribution`, `abi` and `architecture`; `licensed_as`, the entry that declares its licence; `of_the_project`, the entries that its own licence and notice cover; `content` and
`tools`, each with `entries` and `sets`. `fetch/locks.py` reads it. The tools include those in attributes (nvcc, cargo) and everything
reached through //toolchains. Bazel 7 hides toolchains that it resolves itself (the C++ compiler, Python) from aspects.
""",
    attrs = {
        "abi": attr.string(doc = "Tag of the one CPython that the wheel is for; empty: it is for all."),
        "architecture": attr.string(mandatory = True, doc = "What the wheel is for, as Debian calls it."),
        "distribution": attr.string(mandatory = True),
        "pins": attr.label_list(aspects = [_repositories_aspect], providers = [WheelInfo]),
        "project": attr.string_list(mandatory = True, doc = "Repositories of the wheel's own project, by canonical name; the first supplies its licence."),
        "unversioned": attr.label(mandatory = True, aspects = [_repositories_aspect]),
    },
)

def _unavailable_inputs_impl(ctx):
    missing = ([] if WITH_SOURCES else ["sources"]) + (["cuda"] if NEEDS_CUDA else [])
    here = [name for name, facts in REPOSITORIES.items() if not [need for need in facts["needs"] if need in missing]]
    available, all = _locked(here), _locked(REPOSITORIES)
    output = ctx.actions.declare_file(ctx.label.name + ".json")
    ctx.actions.write(output, json.encode_indent({
        kind: [each for each in all[kind] if each not in available[kind]]
        for kind in all
    }) + "\n")
    return [DefaultInfo(files = depset([output]))]

unavailable_inputs = rule(
    implementation = _unavailable_inputs_impl,
    doc = """A JSON file with the entries and sets of the locks that a build with these options cannot use.

These are the inputs of mlc-llm without its sources, and of CUDA without --config=cuda, as declared by the extensions.
""",
)
