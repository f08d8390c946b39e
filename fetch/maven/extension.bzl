"""Module extension `maven`: files of locked Maven artifacts as repositories.

Example (a MODULE.bazel file):

    maven = use_extension("//fetch/maven:extension.bzl", "maven")
    maven.jars(
        build_file = "//toolchains/python:cpython.BUILD.bazel",
        prefix = "org/bytedeco/cpython/linux-x86_64/",
        sources = {
            "cpython_cp312": "cpython-3.12",
            "cpython_cp313": "cpython-3.13",
        },
    )
    use_repo(maven, "cpython_cp312", "cpython_cp313")
"""

load("//fetch:lock.bzl", "must_read_lock")
load("//fetch/facts:facts.bzl", "locked", "repository_facts")

_REPOSITORY = Label("//fetch/maven:repository.py")
_MAVEN = Label("@debian_maven//:usr/share/java/maven3-model-builder.jar")

_ATTRS = {
    "build_file": attr.label(mandatory = True, allow_single_file = True, doc = "The repository's BUILD file."),
    "exclude": attr.string_list(doc = "Shell patterns of files to leave out all the same."),
    "files": attr.string_list(doc = "Shell patterns, below that folder, of the files to take; none: all."),
    "prefix": attr.string(doc = "Folder in the jar whose content is taken."),
    "scripts": attr.label_keyed_string_dict(allow_files = True, doc = "Scripts to add → their places in the repository."),
}

def _download(rctx, name, entry):
    """Downloads the jar under its own name, by hash; Bazel looks in the repository cache first. When no repository answers, that alone will do."""
    problem = rctx.os.environ.get("MLC_NO_NETWORK")
    place = {"url": "file:///dev/null"}
    if not problem:
        asked = rctx.execute([rctx.which("python3"), "-IB", rctx.path(_REPOSITORY), "--maven", rctx.path(_MAVEN), entry["path"]])
        if asked.return_code:
            problem = asked.stderr.strip()
        else:
            place = json.decode(asked.stdout)
    rctx.report_progress("downloading {}".format(entry["file"]))
    done = rctx.download(
        place["url"],
        entry["file"],
        sha256 = entry["sha256"],
        allow_fail = True,
        auth = {place["url"]: place["auth"]} if "auth" in place else {},
    )
    if not done.success:
        fail("{}: {} (sha256 {}) is not in the repository cache, and {}".format(
            name,
            entry["file"],
            entry["sha256"],
            problem or "the Maven repository has another file or none at {}. If Maven has a mirror here, name it in settings.xml or MLC_MAVEN_URL".format(place["url"]),
        ))

def _maven_jar_impl(rctx):
    python = rctx.which("python3")
    if not python:
        fail("python3 is not on PATH: it reads which Maven repository this machine uses; install python3")
    entry = must_read_lock(rctx, rctx.attr._sources_lock)["sources"].get(rctx.attr.source)
    if not entry:
        fail("{}: not in locks/sources.lock.json. Run tools/bazel run //locks:update_sources".format(rctx.attr.source))
    _download(rctx, rctx.attr.source, entry)
    rctx.path(Label("//fetch:archives.py"))
    result = rctx.execute(
        [python, "-IB", rctx.path(Label("//fetch/pypi:extract.py")), entry["file"], "--prefix", rctx.attr.prefix] +
        ["--exclude=" + pattern for pattern in rctx.attr.exclude] + rctx.attr.files,
    )
    if result.return_code:
        fail(result.stderr.strip())
    rctx.delete(entry["file"])
    for script, place in rctx.attr.scripts.items():
        rctx.file(place, rctx.read(script), executable = True)
    rctx.file("BUILD.bazel", rctx.read(rctx.attr.build_file))

_maven_jar = repository_rule(
    implementation = _maven_jar_impl,
    doc = "Chosen files of one locked jar.",
    attrs = _ATTRS | {
        "source": attr.string(mandatory = True, doc = "An entry of locks/sources.lock.json whose registry is maven."),
        "_sources_lock": attr.label(default = "//locks:sources.lock.json", allow_single_file = True),
    },
    environ = ["MLC_MAVEN_URL"],
)

def _maven_impl(mctx):
    facts = {}
    for module in mctx.modules:
        for tag in module.tags.jars:
            for name, source in tag.sources.items():
                facts[name] = locked([("source", source)])
                _maven_jar(name = name, source = source, **{attribute: getattr(tag, attribute) for attribute in _ATTRS})
    repository_facts(name = "maven_facts", facts = facts)

maven = module_extension(
    implementation = _maven_impl,
    tag_classes = {
        "jars": tag_class(
            doc = "The same files of several jars, each jar as one repository.",
            attrs = _ATTRS | {
                "sources": attr.string_dict(
                    mandatory = True,
                    doc = "Names of repositories → entries of locks/sources.lock.json whose registry is maven.",
                ),
            },
        ),
    },
)
