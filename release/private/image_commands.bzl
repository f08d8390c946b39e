"""The commands for the published images: push, load, run, report."""

load("@rules_python//python:defs.bzl", "py_binary")
load("//:version.bzl", "VERSION")

# Documents that are attached in a registry, by media type: suffixes of files in //release.
_BILLS = {
    "application/spdx+json": "spdx.json",
    "application/vnd.cyclonedx+json": "cdx.json",
}
_PROVENANCE = "application/vnd.in-toto+json"

_ORAS = "@debian_publish_tools//:oras"
_COSIGN = "@debian_publish_tools//:cosign"
_UMOCI = "@debian_container_tools//:umoci"
_RUNC = "@debian_container_tools//:runc"
_SKOPEO = "@debian_container_tools//:skopeo"

# The argument of programs that check what a release will be before it is built.
STAMPED = select({
    "//oci:stamped": ["--stamped"],
    "//conditions:default": [],
})

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

def _documents(images, single_images):
    """What is attached: (name of a layout or an image in it, media type, label of the file)."""
    return [
        (image, kind, "//release:{}.{}".format(image, suffix))
        for names in single_images.values()
        for image in names
        for kind, suffix in _BILLS.items()
    ] + [
        (each, _PROVENANCE, "//release:{}.provenance.json".format(layout))
        for layout in images
        for each in {name: None for name in [layout] + list(single_images[layout])}
    ]

def image_commands(images, single_images, gate):
    """Targets `push`, `load`, `run` and `report`; each takes --image, one of `images`, and has its --help. And `hand_over`.

    `load` and `run` take only what is in //images: an engine has no use for a model alone.

    `push_check` is `push` up to where it needs the tests.

    What leaves this machine or is handed out, `push`, `hand_over` and `load`, waits for the gate.

    Args:
        images: names → labels of OCI layouts; the first is the default of every command.
        single_images: name of each layout → names and labels of the images in it.
        gate: a test_gate that covers the images.
    """
    layouts = images.values()
    layout_args = ["--layout={}=$(rootpath {})".format(image, label) for image, label in images.items()]
    runnable = {image: label for image, label in images.items() if label.startswith("//images/")}
    loadable_args = ["--layout={}=$(rootpath {})".format(image, label) for image, label in runnable.items()]

    # For this machine's processor.
    run_layouts = {image: "//images:" + image for image in runnable}
    report_layouts = images | run_layouts
    report_args = ["--layout={}=$(rootpath {})".format(image, label) for image, label in report_layouts.items()]
    run_args = ["--layout={}=$(rootpath {})".format(image, label) for image, label in run_layouts.items()]
    loaders = ["//images/{}:load".format(image) for image in runnable]
    loader_args = ["--loader={0}=$(rootpath //images/{0}:load)".format(image) for image in runnable]
    gate_args = ["--gate=$(rootpath {})".format(gate)]
    documents = _documents(images, single_images)
    document_args = ["--document={}={}=$(rootpath {})".format(*document) for document in documents]
    document_files = {label: None for _, _, label in documents}.keys()

    _command(
        name = "push",
        args = gate_args + layout_args + [
            "--settings=$(rootpath //release:settings.json)",
            "--oras=$(rootpath {})".format(_ORAS),
            "--cosign=$(rootpath {})".format(_COSIGN),
            "--version=" + VERSION,
        ] + document_args,
        data = [gate, "//release:settings.json", _ORAS, _COSIGN] + layouts + document_files,
        testonly = True,
    )

    # The same program without the gate and the images: what tools/bazel runs before them (tools/launcher/checks.py).
    py_binary(
        name = "push_check",
        srcs = ["//release/private:push.py"],
        args = [
            "--settings=$(rootpath //release:settings.json)",
            "--oras=$(rootpath {})".format(_ORAS),
            "--cosign=$(rootpath {})".format(_COSIGN),
            "--version=" + VERSION,
        ] + ["--layout={0}={0}".format(image) for image in images] + STAMPED,
        data = ["//release:settings.json", _ORAS, _COSIGN],
        main = "//release/private:push.py",
        tags = ["manual"],
        deps = ["//release/private:push"],
    )
    _command(
        name = "hand_over",
        args = gate_args + layout_args + document_args + ["--dist=$(rootpath //release:dist)", "--version=" + VERSION],
        data = [gate, "//release:dist"] + layouts + document_files,
        testonly = True,
    )
    _command(
        name = "load",
        args = gate_args + loadable_args + loader_args,
        data = [gate] + runnable.values() + loaders,
        testonly = True,
    )
    _command(
        name = "run",
        args = run_args + loader_args + [
            "--runc=$(rootpath {})".format(_RUNC),
            "--umoci=$(rootpath {})".format(_UMOCI),
            "--version=" + VERSION,
        ],
        data = [_RUNC, _UMOCI] + run_layouts.values() + loaders,
    )
    _command(
        name = "report",
        args = report_args + ["--skopeo=$(rootpath {})".format(_SKOPEO)],
        data = [_SKOPEO] + report_layouts.values(),
        room = "//oci/report",
    )
