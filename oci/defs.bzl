"""Layers from Debian packages and from built files, and labels.

A layer is one deterministic archive for `oci_image(tars = [...])`. Making it runs nothing inside the image.
"""

load("//:version.bzl", "VERSION")
load("//oci/private:labels.bzl", "image_labels_file")
load("//oci/private:layer.bzl", "layer")

_COMMON = [
    "compatible_with",
    "exec_compatible_with",
    "exec_properties",
    "features",
    "restricted_to",
    "tags",
    "target_compatible_with",
    "testonly",
    "visibility",
]

def common_attributes(attributes):
    """Those of a macro's attributes that all its targets share, such as `tags`, `testonly` and `visibility`.

        def two_layers(name, **kwargs):
            common = common_attributes(kwargs)
            tree_layer(name = name + ".first", **common)

    Args:
        attributes: the macro's keyword arguments.
    """
    return {key: attributes[key] for key in _COMMON if key in attributes}

def debian_layer(name, packages, exclude = [], **kwargs):
    """A layer of Debian packages, unpacked on a merged /usr; attributes declare what their maintainer scripts would make.

        debian_layer(
            name = "base",
            packages = ["@debian_image_base//:packages"],
            copies = {"etc/nsswitch.conf": "usr/share/libc-bin/nsswitch.conf"},
            symlinks = {"bin": "usr/bin"},
        )

    Set-user-id and set-group-id bits are dropped. Manual pages, translations and documentation are left out, except
    copyright files. Each package is recorded in /var/lib/dpkg/status.d, where image scanners look.

    Args:
        name: the layer's target; its output is <name>.tar.gz, .tar.zst or .tar.
        packages: labels of .deb files.
        exclude: globs of further paths to leave out; `*` also matches `/`.
        **kwargs: `bytecode`, `compression`, `copies`, `concatenations`, `directories`, `files`, `symlinks` (see private/layer.bzl) and common attributes.
    """
    layer(name = name, packages = packages, exclude = exclude, **kwargs)

def tree_layer(name, trees = {}, files = {}, **kwargs):
    """A layer of built folders and files, owned by root. Files from folders have mode 0644.

        tree_layer(
            name = "dependencies",
            trees = {"//wheels:dependencies": "usr/local/lib/python3.11/dist-packages"},
            exclude = ["bin/*"],
            console_scripts = "usr/local/bin",
        )

    Args:
        name: the layer's target; its output is <name>.tar.gz, .tar.zst or .tar.
        trees: label of a tree artifact → path in the image.
        files: label → "path" or "path:mode"; a path that ends in a slash is a folder.
        **kwargs: `bytecode`, `compression`, `include`, `exclude`, `console_scripts`, `directories`, `symlinks` (see private/layer.bzl) and common attributes.
    """
    layer(name = name, trees = trees, files = files, **kwargs)

def image_labels(name, title, description, licenses, source, **kwargs):
    """The OCI labels of an image, for `oci_image(labels = ...)`.

    Unless the build is stamped (--config=release), the revision is "unstamped", so that equal content has equal digests.

    Args:
        name: the target.
        title: short name of the image.
        description: one line.
        licenses: SPDX expression for what this project adds to the packages. Empty if unknown, like `source`.
        source: URL of the packaged software's sources.
        **kwargs: common attributes.
    """
    labels = {
        "org.opencontainers.image.description": description,
        "org.opencontainers.image.licenses": licenses,
        "org.opencontainers.image.source": source,
        "org.opencontainers.image.title": title,
        "org.opencontainers.image.version": VERSION,
    }
    image_labels_file(
        name = name,
        labels = {key: value for key, value in labels.items() if value},
        stamped = select({
            "//oci:stamped": True,
            "//conditions:default": False,
        }),
        **kwargs
    )
