"""The targets that //release:reproduce and //tests/proofs/reproducible build twice, and the tools that compare them."""

load("@git_sources//:sources.bzl", "AVAILABLE")
load("//:version.bzl", "VERSION")
load("//release:published.bzl", "IMAGES", "SINGLE_IMAGES")
load("//toolchains/cuda:defs.bzl", "NEEDS_CUDA")

# Everything that is published, the documents and, with mlc-llm's sources, models and their image.
_ARTIFACTS = ["//release:dist"] + IMAGES.values() + ["//release:{}.report.html".format(image) for names in SINGLE_IMAGES.values() for image in names] + ([
    "//models/tiny",
    "//models/tiny:tiny_image",
] if AVAILABLE else []) + ([
    # The second has FlashInfer's kernels and ours.
    "//models/tiny:tiny_cuda",
    "//models/smollm2:smollm2_cuda",
] if AVAILABLE and not NEEDS_CUDA else [])

_SEEN = "//release/private/reproduce:seen"
_TOOLS = {
    "diffoscope": "@debian_diffoscope//:diffoscope",
    "libfaketime": "@debian_other_clock//:libfaketime",
    "skopeo": "@debian_container_tools//:skopeo",
}

# The build's name in digests.json, after the network profile.
_KIND = ("" if NEEDS_CUDA else ",cuda") + ("" if AVAILABLE else ",without-mlc-llm")

# Arguments and data of release/private/reproduce/command.py, besides --workspace_file.
ARGS = [
    "--surroundings=$(rootpath {})".format(_SEEN),
    "--version=" + VERSION,
    "--kind=" + repr(_KIND),
] + ["--{}=$(rootpath {})".format(name, label) for name, label in _TOOLS.items()] + [
    "--targets",
    _SEEN,
] + _ARTIFACTS + ["--artifacts"] + ["$(rootpaths {})".format(artifact) for artifact in _ARTIFACTS]

DATA = [_SEEN] + _TOOLS.values() + _ARTIFACTS
