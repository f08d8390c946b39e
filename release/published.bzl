"""The published images, models and wheels. //tests:gate has the tests that they must pass.

--config=cuda adds what runs on GPUs. Without mlc-llm's sources ("Sources of mlc-llm" in README.md) only TVM can be pushed, and no release can be built:
a release (--config=release) has all parts named here.
"""

load("//fetch/git:defs.bzl", "NEEDS_SOURCES")
load("//toolchains/cuda:defs.bzl", "NEEDS_CUDA")
load("//toolchains/python:defs.bzl", "PYTHON", "PYTHONS")

# Folder in //images → what the build must provide for it. The first available one is the default of //images:run and the other commands,
# with and without CUDA.
_IMAGES = {
    "mlc_llm": NEEDS_SOURCES,
    "mlc_llm_dev": NEEDS_SOURCES,
    "mlc_llm_serve": NEEDS_SOURCES,
    "mlc_llm_serve_debug": NEEDS_SOURCES,
    "tvm_runtime": [],
    "tvm_runtime_dev": [],
    "tvm_runtime_cuda": NEEDS_CUDA,
    "mlc_llm_cuda": NEEDS_CUDA + NEEDS_SOURCES,
    "mlc_llm_serve_cuda": NEEDS_CUDA + NEEDS_SOURCES,
    "mlc_llm_serve_cuda_cublas": NEEDS_CUDA + NEEDS_SOURCES,
    "mlc_llm_serve_cuda_nccl": NEEDS_CUDA + NEEDS_SOURCES,
}

# Folder in //models with an `mlc_model_oci` that is named <folder>_oci → what the build must provide for it.
_MODELS = {
    "smollm2": NEEDS_SOURCES,
}

# Package of a wheel → what the build must provide for it.
_WHEELS = {
    "//wheels/mlc_llm": NEEDS_SOURCES,
    "//wheels/tvm_cuda": NEEDS_CUDA,
    "//wheels/tvm": [],
    "//wheels/tvm_ffi": [],
}

def _available(products):
    return [product for product, needs in products.items() if not needs]

# What `mlc_model_oci` makes of a model: an image, and a ModelPack artifact.
_MODEL_LAYOUTS = {"_oci": [], "_oci.modelpack": []}

# Published by this build. OCI layouts by name: what can be run is in //images, and the default of every command comes first.
IMAGES = {image: "//images/{}:index".format(image) for image in _available(_IMAGES)} | {
    model + suffix: "//models/{0}:{0}{1}".format(model, suffix)
    for model in _available(_MODELS)
    for suffix in _MODEL_LAYOUTS
}

_OTHER_PYTHONS = [abi for abi in PYTHONS if abi != PYTHON]

# Wheels: one of each package, those of apache-tvm-ffi for other CPythons, and the same for arm64.
WHEELS = _available(_WHEELS) + ["//wheels/tvm_ffi:" + abi for abi in _OTHER_PYTHONS] + [
    "//wheels:{}_arm64".format(package.rpartition("/")[2])
    for package in _available(_WHEELS)
] + ["//wheels:tvm_ffi_{}_arm64".format(abi) for abi in _OTHER_PYTHONS]

# The processors that images are for, as image indexes name them.
_ARCHITECTURES = ["amd64", "arm64"]

def _single_images(name):
    if name not in _IMAGES:
        return {name: IMAGES[name]}
    return {
        "{}_{}".format(name, architecture): "//images:" + name if architecture == _ARCHITECTURES[0] else "//images/{}:{}".format(name, architecture)
        for architecture in _ARCHITECTURES
    }

# Name of a layout → names and labels of the images in it: an index has one for each processor. Tests and bills of materials are about these.
SINGLE_IMAGES = {name: _single_images(name) for name in IMAGES}

# Packages of what a release must contain: everything above, but what runs on GPUs only with --config=cuda.
REQUIRED = [
    package.removeprefix("//")
    for package, needs in (
        {"images/" + image: needs for image, needs in _IMAGES.items()} |
        {"models/" + model: needs for model, needs in _MODELS.items()} |
        _WHEELS
    ).items()
    if not [need for need in needs if need in NEEDS_CUDA]
]
