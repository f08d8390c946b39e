"""The commands for the published images: push, load, run, report."""

load("@rules_python//python:defs.bzl", "py_binary")
load("//:version.bzl", "VERSION")

# Documents attached to each image in a registry: media type → suffix of the file in //release.
_DOCUMENTS = {
    "application/spdx+json": "spdx.json",
    "application/vnd.cyclonedx+json": "cdx.json",
    "application/vnd.in-toto+json": "provenance.json",
}

_ORAS = "@debian_publish_tools//:oras"
_COSIGN = "@debian_publish_tools//:cosign"
_UMOCI = "@debian_container_tools//:umoci"
_SKOPEO = "@debian_container_tools//:skopeo"

def _command(name, args, data, room = "//release/private", **kwargs):
    # Wildcards leave them out: `bazel build //images/...` should not run the tests and fetch the tools that they need.
    py_binary(
        name = name,
        srcs = ["{}:{}.py".format(room, name)],
        main = "{}:{}.py".format(room, name),
        args = args,
        data = data,
        tags = ["manual"],
        deps = ["{}:{}".format(room, name)],
        **kwargs
    )

def image_commands(images, gate):
    """Targets `push`, `load`, `run` and `report`; each takes --image, one of `images`, and has its --help. And `hand_over`.

    What leaves this machine or is handed out, `push`, `hand_over` and `load`, waits for the gate.

    Args:
        images: names of packages below //images; the first is the default of every command.
        gate: a test_gate that covers the images.
    """
    layouts = ["//images:" + image for image in images]
    layout_args = ["--layout={}=$(rootpath //images:{})".format(image, image) for image in images]
    loaders = ["//images/{}:load".format(image) for image in images]
    loader_args = ["--loader={0}=$(rootpath //images/{0}:load)".format(image) for image in images]
    gate_args = ["--gate=$(rootpath {})".format(gate)]
    documents = {"//release:{}.{}".format(image, suffix): (image, kind) for image in images for kind, suffix in _DOCUMENTS.items()}

    document_args = ["--document={}={}=$(rootpath {})".format(image, kind, label) for label, (image, kind) in documents.items()]

    _command(
        name = "push",
        args = gate_args + layout_args + [
            "--settings=$(rootpath //release:settings.json)",
            "--oras=$(rootpath {})".format(_ORAS),
            "--cosign=$(rootpath {})".format(_COSIGN),
            "--version=" + VERSION,
        ] + document_args,
        data = [gate, "//release:settings.json", _ORAS, _COSIGN] + layouts + documents.keys(),
        testonly = True,
    )
    _command(
        name = "hand_over",
        args = gate_args + layout_args + document_args + ["--dist=$(rootpath //release:dist)", "--version=" + VERSION],
        data = [gate, "//release:dist"] + layouts + documents.keys(),
        testonly = True,
    )
    _command(
        name = "load",
        args = gate_args + layout_args + loader_args,
        data = [gate] + layouts + loaders,
        testonly = True,
    )
    _command(
        name = "run",
        args = layout_args + loader_args + ["--umoci=$(rootpath {})".format(_UMOCI), "--version=" + VERSION],
        data = [_UMOCI] + layouts + loaders,
    )
    _command(
        name = "report",
        args = layout_args + ["--skopeo=$(rootpath {})".format(_SKOPEO)],
        data = [_SKOPEO] + layouts,
        room = "//oci/report",
    )
