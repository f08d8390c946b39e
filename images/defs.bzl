"""Shared by the images: `image` makes one, `wheel_recipes` lets it repack its wheels, and constants name paths in an image."""

load("@rules_oci//oci:defs.bzl", "oci_image", "oci_image_index", "oci_load")
load("//:version.bzl", "VERSION")
load("//images/private:wheel_recipes.bzl", _wheel_recipes = "wheel_recipes")
load("//oci:defs.bzl", "common_attributes", "debian_layer", "image_labels")
load("//platforms:defs.bzl", "CPUS", "by_cpu", "on_platform", "platform_of")

# Where Debian's python3 looks for packages that Debian does not provide.
SITE_PACKAGES = "usr/local/lib/python3.11/dist-packages"

# Our commands, and those of Python distributions.
COMMANDS = "usr/local/bin"

wheel_recipes = _wheel_recipes

# The configuration of images without a base; others inherit it.
_CONFIGURATION = {
    "architecture": by_cpu("amd64", "arm64"),
    # PID 1 of a container gets no default action for signals and must collect orphans: no command here does, tini does both. -s: it
    # collects orphans even where it is not PID 1 (docker run --init, a shared namespace).
    "entrypoint": [
        "/usr/bin/tini",
        "-s",
        "--",
        "/usr/local/bin/entrypoint",
    ],
    "os": "linux",
    # By number, because Kubernetes' runAsNonRoot refuses a name.
    "user": "1000:1000",
    "workdir": "/workspace",
}

_ENVIRONMENT = {
    "LANG": "C.UTF-8",
    "PATH": "/usr/local/bin:/usr/bin:/usr/sbin",
}

def root_layer(name, directories = {}, symlinks = {}, **kwargs):
    """The lowest layer of an image without `base`: Debian packages, the user and its folders, certificates, the merged /usr.

    Example:

        root_layer(
            name = "debian",
            packages = debian_packages("debian_image_base"),
        )

    Args:
        name: the layer's target.
        directories: further folders, path → "mode uid gid".
        symlinks: further links, path → target.
        **kwargs: attributes of `debian_layer`: `packages`, with ca-certificates, libc-bin and tzdata among them, `exclude`, `bytecode`, …; and common
            attributes.
    """
    debian_layer(
        name = name,
        concatenations = {"etc/ssl/certs/ca-certificates.crt": "usr/share/ca-certificates/mozilla/*.crt"},
        copies = {"etc/nsswitch.conf": "usr/share/libc-bin/nsswitch.conf"},
        # OpenShift runs images as an arbitrary user of group 0.
        directories = {
            "home/mlc": "0775 1000 0",
            "home/mlc/.cache": "0775 1000 0",
            "workspace": "0775 1000 0",
        } | directories,
        files = {
            "//images/tvm_runtime:group": "etc/group",
            "//images/tvm_runtime:passwd": "etc/passwd",
        },
        symlinks = {
            "bin": "usr/bin",
            "etc/localtime": "/usr/share/zoneinfo/Etc/UTC",
            "lib": "usr/lib",
            "sbin": "usr/sbin",
            # OpenSSL's default place for trusted certificates.
            "usr/lib/ssl/cert.pem": "/etc/ssl/certs/ca-certificates.crt",
        } | symlinks | by_cpu(
            {"lib64": "usr/lib64"},
            {},
        ),
        **kwargs
    )

def image(name, description, licenses, source, **kwargs):
    """An image with its labels, the same for other processors, their index, and a target that loads it into Podman or Docker.

    Call it in images/<name>; //images:<name> becomes an alias. To publish the image, add a line to
    release/published.bzl.

    Example:

        image(
            name = "mlc_llm_dev",
            base = "//images/mlc_llm",
            description = "mlc_llm with system build tools: g++, CMake, Ninja, Make, Git and Python's headers",
            licenses = "Apache-2.0",
            source = "https://github.com/mlc-ai/mlc-llm",
            tars = ["//images/tvm_runtime_dev:build_tools"],
            target_compatible_with = NEEDS_SOURCES,
        )

    Targets:

    * `<name>`: the image, an OCI layout, for the platform of the build.
    * `arm64`: the image for that; `index`: the images for all processors in one OCI layout, an image index.
    * `labels`: the file with its labels; the title is `name`.
    * `load`: loads it as <name>:<version> without waiting for the tests, for development.

    Args:
        name: the image's name, which is also its folder's.
        description: one line, for the label.
        licenses: SPDX expression for what this project adds to the packages, for the label.
        source: URL of the packaged software's sources, for the label.
        **kwargs: attributes of `oci_image`: `base`, `env`, `entrypoint`, `user`, `tars` (layers, from the least to the most frequently changed), …; and
            common attributes, which all targets get. An image without `base` has the user, variables and entry point that all images here have. `target_compatible_with` says what the build must provide, such as NEEDS_CUDA.
    """
    if native.package_name().split("/")[-1] != name:
        fail("image {}: expected it in images/{}, found it in {}".format(name, name, native.package_name()))
    common = common_attributes(kwargs)
    if "base" not in kwargs:
        kwargs = _CONFIGURATION | kwargs | {"env": _ENVIRONMENT | kwargs.get("env", {})}
    oci_image(
        name = name,
        **({
            # The same for every image, so that a digest depends only on content.
            "created": "//images/tvm_runtime:created.txt",
            "labels": ":labels",
        } | kwargs)
    )
    public = common | {"visibility": ["//visibility:public"]}
    for cpu in CPUS[1:]:
        on_platform(
            name = cpu,
            actual = [":" + name],
            platform = platform_of(cpu),
            **public
        )
    oci_image_index(
        name = "index",
        images = [":" + name],
        platforms = [platform_of(cpu) for cpu in CPUS],
        **public
    )
    image_labels(
        name = "labels",
        description = description,
        licenses = licenses,
        source = source,
        title = name,
        **common
    )
    oci_load(
        name = "load",
        image = ":" + name,
        loader = "//oci:container_tool",
        repo_tags = ["{}:{}".format(name, VERSION)],
        # //release:run loads images that have not passed the gate.
        **public
    )
