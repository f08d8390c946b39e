"""The macro `wheel`: all targets of one wheel."""

load("@rules_python//python:packaging.bzl", "py_wheel")
load("//:version.bzl", "VERSION")
load("//platforms:defs.bzl", "by_cpu")
load("//toolchains/python:defs.bzl", "PYTHON", "PYTHONS")
load(":finished_wheel.bzl", "finished_wheel", "pinned_versions")
load(":linked_licenses.bzl", "linked_licenses")
load(":made_of.bzl", "made_of")
load(":python_environment.bzl", "python_environment")

_LICENSE = "License :: OSI Approved :: Apache Software License"

_MINORS = [int(python["version"].removeprefix("3.")) for python in PYTHONS.values()]

# Every Python that apache-tvm-ffi has a module for.
PYTHON_REQUIRES = ">=3.{},<3.{}".format(min(_MINORS), max(_MINORS) + 1)

def _suffix(abi):
    """What the names of a CPython's targets and folders end with: nothing for that of images and tests."""
    return "" if abi in ["", PYTHON] else "_" + abi

def made_of_target(wheel):
    """The target `made_of` of a finished wheel: of "//wheels/x", "//wheels/x:cp312" and, for another platform, "//wheels:x_arm64"."""
    package, _, abi = wheel.partition(":")
    if package == "//wheels":
        return "{}:made_of_{}".format(package, abi)
    return package + ":made_of" + _suffix(abi)

def wheel(
        name,
        distribution,
        version,
        deps,
        linked,
        licenses,
        classifiers = [],
        installed_with = [],
        pins = [],
        pins_module = None,
        project = [],
        python_requires = PYTHON_REQUIRES,
        pythons = {},
        strip_path_prefixes = [],
        target_compatible_with = [],
        variant = "",
        **kwargs):
    """Defines a wheel and its helper targets. Call it once per package in //wheels.

    The wheel's version is `<upstream>+mlc<VERSION>[.<variant>].b<build id>` (wheels/README.md). Targets:

    * `<name>`: the finished wheel, alone in a folder, bazel-bin/wheels/<name>/dist;
    * `<ABI>`, for example cp312, if there are `pythons`: the same for other CPythons, in dist_<ABI>. All have one version;
    * `unversioned`: the uncompressed wheel without its build id;
    * `installed`: a folder with the installed wheel, for tests, images and compilers of models;
    * `linked_licenses`: the licences of everything linked into its libraries;
    * `made_of`, and `made_of_<ABI>`: its locked inputs as JSON, derived from the build graph.

    Example:

        wheel(
            name = "tvm",
            distribution = "apache-tvm",
            licenses = {"@tvm//:LICENSE": "LICENSE"},
            linked = {"packages": {"zlib1g": "zlib"}},
            pins = ["//wheels/tvm_ffi"],
            version = TVM_VERSION,
            deps = ["@tvm//:python"],
        )

    Args:
        name: the finished wheel, named like its package.
        distribution: its name on a package index.
        version: upstream's version.
        deps: files for the wheel.
        linked: attributes of `linked_licenses`.
        licenses: file → name in .dist-info/licenses. The repositories of these files have the project's own sources, which its licence and notice cover.
        classifiers: classifiers in addition to that of the licence.
        installed_with: wheels to install into the same folder, because its libraries look for theirs there.
        pins: wheels of this build to require in exactly their versions.
        pins_module: path of a Python module to add, with the versions of `pins`.
        project: further repositories of the project's own sources, for example "@tvm_device_runtime".
        python_requires: the Pythons that pip may install it on.
        pythons: keys of PYTHONS in //toolchains/python → what only the wheel for that CPython has: `deps`, and `parts` for its `linked`; {}: one wheel is
            for all.
        strip_path_prefixes: see py_wheel.
        target_compatible_with: constraints of all targets.
        variant: distinguishes builds of the same release, for example cu130.
        **kwargs: further attributes of py_wheel.
    """
    if native.package_name().rpartition("/")[2] != name:
        fail("wheel {}: expected one wheel per package, named like it, found package {}".format(name, native.package_name()))
    if pins_module:
        pinned_versions(
            name = "pinned_versions",
            module = pins_module,
            pins = pins,
            target_compatible_with = target_compatible_with,
        )
        deps = deps + [":pinned_versions"]
        strip_path_prefixes = strip_path_prefixes + [native.package_name() + "/"]
    own = [native.package_relative_label(file) for file in licenses] + [Label(repository + "//:BUILD.bazel") for repository in project]
    all = list(pythons) or [""]
    unversioned = {abi: "unversioned" + _suffix(abi) for abi in all}
    for abi in all:
        only = pythons.get(abi, {"deps": [], "parts": {}})
        tags = {
            "abi": abi,
            "classifiers": ["Programming Language :: Python :: " + PYTHONS[abi]["version"]],
            "python_requires": "=={}.*".format(PYTHONS[abi]["version"]),
            "python_tag": abi.removesuffix("t"),
        } if abi else {"classifiers": [], "python_requires": python_requires}
        linked_licenses(
            name = "linked_licenses" + _suffix(abi),
            target_compatible_with = target_compatible_with,
            **(linked | {"parts": linked.get("parts", {}) | only["parts"]})
        )
        py_wheel(
            name = unversioned[abi],
            classifiers = sorted(classifiers + tags.pop("classifiers") + [_LICENSE]),
            # Installations read it, and finishing compresses it.
            compress = False,
            description_content_type = "text/markdown",
            description_file = "description.md",
            distribution = distribution,
            extra_distinfo_files = {file: "licenses/" + place for file, place in licenses.items()} | {
                ":linked_licenses" + _suffix(abi): "licenses/THIRD_PARTY_LICENSES.txt",
            },
            license = "Apache-2.0",
            strip_path_prefixes = strip_path_prefixes,
            target_compatible_with = target_compatible_with,
            version = "{}+mlc{}{}".format(version, VERSION, "." + variant if variant else ""),
            deps = deps + only["deps"],
            **(kwargs | tags)
        )
        finished_wheel(
            name = abi if _suffix(abi) else name,
            distribution = distribution,
            folder = "dist" + _suffix(abi),
            others = [other for other in unversioned.values() if other != unversioned[abi]],
            pins = pins,
            target_compatible_with = target_compatible_with,
            unversioned = unversioned[abi],
        )
        made_of(
            name = "made_of" + _suffix(abi),
            abi = abi,
            architecture = by_cpu("amd64", "arm64"),
            distribution = distribution,
            pins = pins,
            project = {label.workspace_name: None for label in own}.keys(),
            target_compatible_with = target_compatible_with,
            unversioned = unversioned[abi],
        )
    if pythons:
        native.alias(
            name = PYTHON,
            actual = name,
            target_compatible_with = target_compatible_with,
        )
    python_environment(
        name = "installed",
        target_compatible_with = target_compatible_with,
        wheels = [":" + name] + installed_with,
    )
