"""pip.parse of the rules_python stand-in: one repository per wheel of the lock, and a hub with their public names."""

# Of the root module, not of this one: which index the machine uses is decided in one place.
load("@@//fetch/pypi:lock.bzl", "parse_lock")
load("@@//fetch/pypi:pypi.bzl", "from_repository_cache", "pypi_fetch", "pypi_files", "pypi_index")
load(":lock.bzl", "choose", "filename_of", "is_same_wheel", "machine_of", "required")

def _index_impl(rctx):
    address, error = pypi_index(rctx)
    rctx.file("BUILD.bazel", "")

    # An error is told only if a wheel is not in the repository cache either.
    rctx.file("index.json", json.encode({"address": address, "error": error}))

_index = repository_rule(
    implementation = _index_impl,
    doc = "Finds out, once for all wheels, which Python package index this machine is configured with.",
    environ = ["PIP_CONFIG_FILE", "PIP_INDEX_URL"],
)

# What a wheel is called until its own metadata has confirmed its name. extract() goes by this ending, and a wheel is a zip archive.
_WHEEL = "wheel.zip"

def _download(rctx, package):
    """Downloads the locked wheel from the machine's index as _WHEEL; returns its name there, or None where only its hash is known."""
    index = json.decode(rctx.read(rctx.attr.index))
    error = index["error"]
    files = []
    if not error:
        files, error = pypi_files(rctx, package["name"], index["address"])
    if not error:
        file, mismatch = choose(package, files, rctx.attr.minor, rctx.attr.machine)
        if mismatch:
            fail(mismatch)
        pypi_fetch(rctx, "%s==%s" % (package["name"], package["version"]), file, _WHEEL)
        return file["filename"]

    if from_repository_cache(rctx, package["hashes"], _WHEEL):
        return None
    fail("%s==%s (sha256 %s) is not in the repository cache, and: %s" % (package["name"], package["version"], " or ".join(package["hashes"]), error))

def _child(folder, suffix):
    return [path for path in folder.readdir() if path.basename.endswith(suffix)]

def _wheel_impl(rctx):
    package = json.decode(rctx.attr.package)
    what = "%s==%s" % (package["name"], package["version"])
    listed = _download(rctx, package)
    rctx.extract(_WHEEL, "site-packages")
    site_packages = rctx.path("site-packages")
    for data in _child(site_packages, ".data"):
        for scheme in ["purelib", "platlib"]:
            if data.get_child(scheme).exists:
                fail("%s: %s/%s in a wheel is not supported by the rules_python stand-in; use --config=upstream" % (what, data.basename, scheme))
    dist_info = _child(site_packages, ".dist-info")
    if len(dist_info) != 1:
        fail("%s: expected one .dist-info folder, found %d" % (what, len(dist_info)))
    own = filename_of(dist_info[0].basename, rctx.read(dist_info[0].get_child("WHEEL")))
    filename = listed or own
    if not is_same_wheel(filename, own):
        fail("%s: expected %s, as its metadata say, found %s in the index: set PIP_INDEX_URL to another index" % (what, own, filename))
    rctx.execute(["mv", _WHEEL, filename])
    deps = required(rctx.read(dist_info[0].get_child("METADATA")), package["extras"], rctx.attr.locked)
    rctx.file("BUILD.bazel", """\
\"\"\"{filename}, unpacked; made by pip.parse of fetch/registry.\"\"\"

load("@rules_python//python:py_library.bzl", "py_library")

package(default_visibility = ["//visibility:public"])

py_library(
    name = "pkg",
    srcs = glob(["site-packages/**/*.py"], allow_empty = True),
    data = glob(["site-packages/**/*"], allow_empty = True, exclude = ["**/*.py", "**/*.pyc"]),
    imports = ["site-packages"],
    deps = {deps},
)

filegroup(
    name = "whl",
    srcs = ["{filename}"],
    data = {whls},
)

filegroup(
    name = "dist_info",
    srcs = glob(["site-packages/*.dist-info/**"]),
)

filegroup(
    name = "data",
    srcs = glob(["site-packages/*.data/**"], allow_empty = True),
)
""".format(
        filename = filename,
        deps = repr(["@%s__%s//:pkg" % (rctx.attr.hub, dep) for dep in deps]),
        whls = repr(["@%s__%s//:whl" % (rctx.attr.hub, dep) for dep in deps]),
    ))

_wheel = repository_rule(
    implementation = _wheel_impl,
    attrs = {
        "hub": attr.string(mandatory = True),
        "index": attr.label(mandatory = True),
        "locked": attr.string_list(doc = "Normalized names of all packages in the lock."),
        "machine": attr.string(doc = "The processor, as wheels name it."),
        "minor": attr.int(doc = "11 for Python 3.11."),
        "package": attr.string(mandatory = True, doc = "JSON: the package's entry of parse_lock."),
    },
    doc = "A wheel and its unpacked content.",
)

_HUB_TARGETS = ["data", "dist_info", "pkg", "whl"]

def _actual(hub, package, target):
    """Which target an alias stands for. Programs of the build import `pkg`, and run on the processor that builds."""
    actual = "\"@%s__%s//:%s\"" % (hub.hub, package, target)
    if target != "pkg" or package not in hub.on_arm64:
        return actual
    return "select({\"@@//platforms:built_on_arm64\": \"@%s_arm64__%s//:pkg\", \"//conditions:default\": %s})" % (hub.hub, package, actual)

def _hub_impl(rctx):
    rctx.file("BUILD.bazel", "exports_files([\"requirements.bzl\"])\n")
    for package in rctx.attr.packages:
        # @<hub>//<package> is short for @<hub>//<package>:pkg.
        aliases = {package: "pkg"} | {target: target for target in _HUB_TARGETS}
        rctx.file(package + "/BUILD.bazel", "package(default_visibility = [\"//visibility:public\"])\n" + "".join([
            "\nalias(\n    name = \"%s\",\n    actual = %s,\n)\n" % (name, _actual(rctx.attr, package, target))
            for name, target in aliases.items()
        ]))
    rctx.file("requirements.bzl", """\
\"\"\"Labels of the locked requirements; made by pip.parse of fetch/registry.\"\"\"

load("@@//fetch/pypi:lock.bzl", "normalized")

all_requirements = {all}
all_whl_requirements = {all_whl}

def requirement(name):
    return "{prefix}" + normalized(name) + ":pkg"

def whl_requirement(name):
    return "{prefix}" + normalized(name) + ":whl"
""".format(
        all = repr(["@@%s//%s:pkg" % (rctx.name, package) for package in rctx.attr.packages]),
        all_whl = repr(["@@%s//%s:whl" % (rctx.name, package) for package in rctx.attr.packages]),
        prefix = "@@%s//" % rctx.name,
    ))

_hub = repository_rule(
    implementation = _hub_impl,
    attrs = {
        "hub": attr.string(mandatory = True),
        "on_arm64": attr.string_list(doc = "Those that the hub <hub>_arm64 has too."),
        "packages": attr.string_list(),
    },
    doc = "The public names: @<hub>//<package>, with :pkg and :whl.",
)

def _pip_impl(mctx):
    hubs = {}
    for module in mctx.modules:
        for parse in module.tags.parse:
            hub = parse.hub_name
            if hub in hubs:
                fail("pip.parse(hub_name = \"%s\"): expected once, found twice" % hub)
            if not parse.python_version.startswith("3.") or not parse.python_version[2:].isdigit():
                fail("pip.parse(hub_name = \"%s\"): expected python_version like \"3.11\", found \"%s\"" % (hub, parse.python_version))
            locked, error = parse_lock(mctx.read(parse.requirements_lock), str(parse.requirements_lock))
            if error:
                fail(error)
            hubs[hub] = sorted(locked)
            _index(name = hub + "__index")
            for name, package in locked.items():
                _wheel(
                    name = "%s__%s" % (hub, name),
                    hub = hub,
                    index = "@%s__index//:index.json" % hub,
                    locked = sorted(locked),
                    machine = machine_of(parse.extra_pip_args),
                    minor = int(parse.python_version[2:]),
                    package = json.encode(package),
                )
    for hub, packages in hubs.items():
        _hub(name = hub, hub = hub, on_arm64 = hubs.get(hub + "_arm64", []), packages = packages)

pip = module_extension(
    implementation = _pip_impl,
    doc = "PyPI distributions from a lock with hashes.",
    tag_classes = {
        "parse": tag_class(attrs = {
            "download_only": attr.bool(doc = "Wheels for another platform; here nothing else is downloaded anyway."),
            "extra_pip_args": attr.string_list(doc = "Only its --platform=… is read: the processor of the wheels."),
            "hub_name": attr.string(mandatory = True, doc = "The repository with the public names."),
            "python_version": attr.string(mandatory = True, doc = "e.g. \"3.11\"."),
            "requirements_lock": attr.label(mandatory = True, doc = "As pip-compile --generate-hashes writes it."),
        }),
    },
)
