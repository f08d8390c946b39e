"""`git_source`: the files of one locked git commit as a repository, under a BUILD file of ours."""

HOW_TO_SUPPLY = "give a folder of checkouts with --repo_env=MLC_SOURCES=FOLDER, or --config=upstream (README.md, \"Sources of mlc-llm\")"

# Bazel prints this constraint's name if you name a target that needs sources without having them. It may contain neither ":" nor "\\".
NO_SOURCES = "no sources of mlc-llm here, give --repo_env=MLC_SOURCES=FOLDER or --config=upstream, see README.md"

ENVIRON = [
    "MLC_FETCH_SOURCES",
    "MLC_PACKED_SOURCES",
    "MLC_SOURCES",
]

_TAR = ".source.tar"

# More than checkout.py takes: it ends git itself, with all that git has started, and says why.
_SECONDS = 3600

# Attributes that the rule and the extension's tag share.
SOURCE_ATTRS = {
    "build_file": attr.label(mandatory = True, allow_single_file = True, doc = "The repository's BUILD file."),
    "files": attr.string_dict(doc = "Path → content of files to add."),
    "source": attr.string(mandatory = True, doc = "The source's name in locks/sources.lock.json."),
}

def sources_are_given(rctx):
    """Whether this build has git sources, for repository rules that have ENVIRON in their environ."""
    return _place(rctx) != None

def _place(rctx):
    """Where sources come from, as options of checkout.py; None without a setting."""
    if rctx.os.environ.get("MLC_PACKED_SOURCES") == "1":
        return ["--tar", _TAR]
    checkouts = rctx.os.environ.get("MLC_SOURCES")
    if checkouts:
        return ["--checkouts", checkouts]
    return ["--upstream"] if rctx.os.environ.get("MLC_FETCH_SOURCES") == "1" else None

def _take_tar(rctx, locked):
    """Takes the tar out of the repository cache, where a pack has put it (tools/launcher/airgap.py); it has no download address."""
    if not rctx.download("file:///dev/null", _TAR, sha256 = locked["sha256"], allow_fail = True).success:
        fail("{} {} (sha256 {}): {}".format(
            rctx.attr.source,
            locked["commit"],
            locked["sha256"],
            rctx.os.environ.get("MLC_NO_NETWORK", "it is not in the repository cache, where MLC_PACKED_SOURCES=1 says that it is"),
        ))

def _git_source_impl(rctx):
    # Labels first: each new one restarts this function.
    build_file = rctx.path(rctx.attr.build_file)
    checkout = rctx.path(Label("//fetch/git:checkout.py"))
    rctx.path(Label("//fetch:archives.py"))
    locked = json.decode(rctx.attr.locked)
    place = _place(rctx)
    if not place:
        # Only targets named by the user get here: without sources, others are incompatible (defs.bzl).
        rctx.file("BUILD.bazel", "fail({})\n".format(repr("{} is not here: {}".format(rctx.attr.source, HOW_TO_SUPPLY))))
        return
    python = rctx.which("python3")
    if not python:
        fail("python3 is not on PATH: it takes files out of git checkouts; install python3")
    if place[0] == "--tar":
        _take_tar(rctx, locked)
    rctx.report_progress("taking {} at {}".format(rctx.attr.source, locked["commit"]))
    done = rctx.execute([
        python,
        "-IB",
        checkout,
        rctx.attr.source,
        "--repository",
        locked["repository"],
        "--commit",
        locked["commit"],
        "--sha256",
        locked["sha256"],
        "--to",
        ".",
    ] + place + locked["paths"], timeout = _SECONDS)
    if done.return_code:
        fail(done.stderr.strip())
    if place[0] == "--checkouts":
        # The build takes the locked commit whatever happens to the checkout, but must refuse a change there instead of ignoring it. It watches
        # files, because rctx.watch_tree breaks Bazel's server once a folder is deleted. It sees a new file once the index has it.
        for file in [".git/HEAD", ".git/index", ".git/logs/HEAD"] + done.stdout.splitlines():
            rctx.watch("{}/{}/{}".format(place[1], rctx.attr.source, file))
    if place[0] == "--tar":
        rctx.delete(_TAR)
    for path, content in rctx.attr.files.items():
        rctx.file(path, content, executable = False)
    rctx.symlink(build_file, "BUILD.bazel")

git_source = repository_rule(
    implementation = _git_source_impl,
    doc = "The named paths of one commit, from a checkout on this machine or from upstream. Without either, nothing: see defs.bzl.",
    attrs = SOURCE_ATTRS | {
        "locked": attr.string(mandatory = True, doc = "The source's entry in locks/sources.lock.json, as JSON."),
    },
    environ = ENVIRON,
)

def _git_sources_facts_impl(rctx):
    rctx.file("BUILD.bazel", "# Whether this build has git sources: see //fetch/git:defs.bzl.\n")
    rctx.file("sources.bzl", """\
\"\"\"Whether this build has git sources, and what to do if not.\"\"\"

AVAILABLE = {}
HOW_TO_SUPPLY = {}

# For tests that start another Bazel on a copy of the workspace.
VARIABLES = {}
""".format(sources_are_given(rctx), repr(HOW_TO_SUPPLY), {name: rctx.os.environ[name] for name in ENVIRON if name in rctx.os.environ}))

git_sources_facts = repository_rule(
    implementation = _git_sources_facts_impl,
    doc = "`sources.bzl` with AVAILABLE, HOW_TO_SUPPLY and VARIABLES, for BUILD files: a module extension cannot tell them otherwise.",
    environ = ENVIRON,
)
