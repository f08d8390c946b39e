"""What is published. The tests that it must pass are //tests:gate.

Without mlc-llm's sources, only TVM is published: see "Sources of mlc-llm" in README.md. --config=cuda adds what runs on GPUs.
"""

load("//fetch/git:defs.bzl", "NEEDS_SOURCES")
load("//toolchains/cuda:defs.bzl", "NEEDS_CUDA")

# Folder in //images → what the build must have for it. The first is the default of //images:run and the like, the same with and without
# CUDA.
_IMAGES = {
    "mlc_llm": NEEDS_SOURCES,
    "mlc_llm_dev": NEEDS_SOURCES,
    "tvm_runtime": [],
    "tvm_runtime_dev": [],
    "tvm_runtime_cuda": NEEDS_CUDA,
    "mlc_llm_cuda": NEEDS_CUDA + NEEDS_SOURCES,
}

# Package of a wheel → what the build must have for it.
_WHEELS = {
    "//wheels/mlc_llm": NEEDS_SOURCES,
    "//wheels/tvm_cuda": NEEDS_CUDA,
    "//wheels/tvm": [],
    "//wheels/tvm_ffi": [],
}

def _available(products):
    return [product for product, needs in products.items() if not needs]

# What this build publishes: names of images in //images, and packages of wheels.
IMAGES = _available(_IMAGES)

WHEELS = _available(_WHEELS)
