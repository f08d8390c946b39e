"""The macro `wheel`: all targets of one wheel."""

load("@rules_python//python:packaging.bzl", "py_wheel")
load("//:version.bzl", "VERSION")
load(":finished_wheel.bzl", "finished_wheel", "pinned_versions")
load(":linked_licenses.bzl", "linked_licenses")
load(":made_of.bzl", "made_of")
load(":python_environment.bzl", "python_environment")

_LICENSE = "License :: OSI Approved :: Apache Software License"

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
        strip_path_prefixes = [],
        target_compatible_with = [],
        variant = "",
        **kwargs):
    """Defines a wheel and its helper targets. Call it once per package in //wheels.

    The wheel's version is `<upstream>+mlc<VERSION>[.<variant>].b<build id>` (wheels/README.md). Targets:

    * `<name>`: the finished wheel, alone in a folder, bazel-bin/wheels/<name>/dist;
    * `unversioned`: the uncompressed wheel without its build id;
    * `installed`: a folder with the installed wheel, for tests, images and compilers of models;
    * `linked_licenses`: the licences of everything linked into its libraries;
    * `made_of`: its locked inputs as JSON, derived from the build graph.

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
        strip_path_prefixes: see py_wheel.
        target_compatible_with: constraints of all targets.
        variant: distinguishes builds of the same release, for example cu130.
        **kwargs: further attributes of py_wheel.
    """
    if native.package_name().rpartition("/")[2] != name:
        fail("wheel {}: expected one wheel per package, named like it, found package {}".format(name, native.package_name()))
    linked_licenses(
        name = "linked_licenses",
        target_compatible_with = target_compatible_with,
        **linked
    )
    if pins_module:
        pinned_versions(
            name = "pinned_versions",
            module = pins_module,
            pins = pins,
            target_compatible_with = target_compatible_with,
        )
        deps = deps + [":pinned_versions"]
        strip_path_prefixes = strip_path_prefixes + [native.package_name() + "/"]
    py_wheel(
        name = "unversioned",
        classifiers = sorted(classifiers + [_LICENSE]),
        # Installations read it, and finishing compresses it.
        compress = False,
        description_content_type = "text/markdown",
        description_file = "description.md",
        distribution = distribution,
        extra_distinfo_files = {file: "licenses/" + place for file, place in licenses.items()} | {
            ":linked_licenses": "licenses/THIRD_PARTY_LICENSES.txt",
        },
        license = "Apache-2.0",
        strip_path_prefixes = strip_path_prefixes,
        target_compatible_with = target_compatible_with,
        version = "{}+mlc{}{}".format(version, VERSION, "." + variant if variant else ""),
        deps = deps,
        **kwargs
    )
    finished_wheel(
        name = name,
        distribution = distribution,
        pins = pins,
        target_compatible_with = target_compatible_with,
        unversioned = ":unversioned",
    )
    own = [native.package_relative_label(file) for file in licenses] + [Label(repository + "//:BUILD.bazel") for repository in project]
    made_of(
        name = "made_of",
        distribution = distribution,
        pins = pins,
        project = {label.workspace_name: None for label in own}.keys(),
        target_compatible_with = target_compatible_with,
        unversioned = ":unversioned",
    )
    python_environment(
        name = "installed",
        target_compatible_with = target_compatible_with,
        wheels = [":" + name] + installed_with,
    )
