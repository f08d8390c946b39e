"""The published images and wheels. //tests:gate has the tests that they must pass.

--config=cuda adds what runs on GPUs. Without mlc-llm's sources ("Sources of mlc-llm" in README.md) only TVM can be pushed, and no release can be built:
a release (--config=release) has all parts named here.
"""

load("//fetch/git:defs.bzl", "NEEDS_SOURCES")
load("//toolchains/cuda:defs.bzl", "NEEDS_CUDA")

# Folder in //images → what the build must provide for it. The first available one is the default of //images:run and the other commands,
# with and without CUDA.
_IMAGES = {
    "mlc_llm": NEEDS_SOURCES,
    "mlc_llm_dev": NEEDS_SOURCES,
    "tvm_runtime": [],
    "tvm_runtime_dev": [],
    "tvm_runtime_cuda": NEEDS_CUDA,
    "mlc_llm_cuda": NEEDS_CUDA + NEEDS_SOURCES,
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

# Published by this build: names of images in //images, and packages of wheels.
IMAGES = _available(_IMAGES)

WHEELS = _available(_WHEELS)

# Packages of what a release must contain: everything above, but what runs on GPUs only with --config=cuda.
REQUIRED = [
    package.removeprefix("//")
    for package, needs in ({"images/" + image: needs for image, needs in _IMAGES.items()} | _WHEELS).items()
    if not [need for need in needs if need in NEEDS_CUDA]
]
