"""The documents about a release's images and wheels, all written from the locks and the artifacts themselves."""

load("//:version.bzl", "VERSION")
load("//toolchains/cuda:defs.bzl", "NEEDS_CUDA")
load("//wheels:defs.bzl", "made_of_target")
load(":document.bzl", "document")

_LOCKS = ["//locks"]
_LOCK_ARGUMENTS = ["--locks $(execpaths //locks)"]

_OPTIONS = [] if NEEDS_CUDA else ["--config=cuda"]

def _products(images, wheels):
    return ["--image {}=$(execpath {})".format(image, label) for image, label in images.items()] + ["--wheel $(execpath {})".format(wheel) for wheel in wheels]

def _made_of(wheels):
    return [made_of_target(wheel) for wheel in wheels] + ["//wheels:unavailable_inputs"]

def _made_of_arguments(wheels):
    made_of = _made_of(wheels)
    return ["--made-of $(execpath {})".format(each) for each in made_of[:-1]] + ["--unavailable $(execpath {})".format(made_of[-1])]

def _sources(images, wheels):
    return _LOCKS + images.values() + wheels

def _bills(name, images, wheels, only = []):
    document(
        name = name + "_sbom",
        srcs = _sources(images, wheels) + _made_of(wheels),
        outs = {
            "--cyclonedx": name + ".cdx.json",
            "--spdx": name + ".spdx.json",
        },
        arguments = _LOCK_ARGUMENTS + ["--version " + VERSION] + _products(images, wheels) + _made_of_arguments(wheels) + only,
        tool = "//release/private:sbom",
    )

def _provenance(name, images, wheels):
    document(
        name = name + "_provenance",
        srcs = _sources(images, wheels),
        outs = {"--output": name + ".provenance.json"},
        arguments = _LOCK_ARGUMENTS + [
            "--version " + VERSION,
        ] + ["--option=" + option for option in _OPTIONS] + _products(images, wheels),
        stamped = True,
        tool = "//release/private:provenance",
    )

def describe_release(name, images, single_images, wheels, gate, previous):
    """The documents of a release, as files:

    * `<name>.spdx.json`, `<name>.cdx.json`, `<name>.provenance.json` of the whole build;
    * `<image>.provenance.json` for each layout;
    * `<image>.spdx.json`, `<image>.cdx.json`, and `<image>.report.html`, the page that //images:report writes, for each image in the layouts;
    * `inputs.json`, the inputs;
    * `licenses.html`, the licences of everything that ships, with the texts;
    * `vulnerabilities.json`, the known vulnerabilities of each image;
    * `index.html` and `notes.md`, the release page and notes.

    Args:
        name: name of the whole build's documents.
        images: names → labels of OCI layouts.
        single_images: name of each layout → names and labels of the images in it.
        wheels: finished wheels (`wheel` of //wheels:defs.bzl).
        gate: the test_gate that covers both.
        previous: the previous release's inputs.json.
    """
    _bills(name, images, wheels)
    _provenance(name, images, wheels)
    for layout, label in images.items():
        _provenance(layout, {layout: label}, [])
        for image in single_images[layout]:
            _bills(image, {layout: label}, wheels, only = ["--only-image " + image])
            document(
                name = image + "_report",
                srcs = [label],
                outs = {"--html": image + ".report.html"},
                arguments = ["--layout {}=$(execpath {})".format(layout, label), "--image " + image],
                tool = "//oci/report:report",
            )
    described = [image for names in single_images.values() for image in names]
    document(
        name = "licenses",
        srcs = _sources(images, wheels) + _made_of(wheels),
        outs = {"--html": "licenses.html"},
        arguments = _LOCK_ARGUMENTS + ["--version " + VERSION] + _products(images, wheels) + _made_of_arguments(wheels),
        tool = "//release/private:licenses",
    )
    document(
        name = "vulnerabilities",
        srcs = _LOCKS + [
            "//locks:audit.json",
            "//locks:vulnerabilities.lock.json",
        ] + [":{}.cdx.json".format(image) for image in described],
        outs = {"--output": "vulnerabilities.json"},
        arguments = _LOCK_ARGUMENTS + [
            "--record $(execpath //locks:vulnerabilities.lock.json)",
            "--allowed $(execpath //locks:audit.json)",
        ] + ["--bill {}=$(execpath :{}.cdx.json)".format(image, image) for image in described],
        tool = "//release/private:vulnerabilities",
    )
    document(
        name = "inputs",
        srcs = _LOCKS,
        outs = {"--output": "inputs.json"},
        arguments = _LOCK_ARGUMENTS + ["--release v" + VERSION],
        tool = "//release/private:inputs",
    )
    document(
        name = "page",
        testonly = True,
        srcs = _sources(images, wheels) + [gate, previous, ":inputs.json", ":vulnerabilities.json"],
        outs = {
            "--html": "index.html",
            "--notes": "notes.md",
        },
        arguments = [
            "--version " + VERSION,
            "--inputs $(execpath :inputs.json)",
            "--vulnerabilities $(execpath :vulnerabilities.json)",
            "--previous $(execpath {})".format(previous),
            "--gate $(execpath {})".format(gate),
        ] + _products(images, wheels),
        stamped = True,
        tool = "//release/private:page",
    )
