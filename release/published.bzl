"""What is published. The tests that it must pass are //tests:gate.

Without mlc-llm's sources, only TVM is published: see "Sources of mlc-llm" in README.md. --config=cuda adds what runs on GPUs.
"""

load("//fetch/git:defs.bzl", "NEEDS_SOURCES")
load("//toolchains/cuda:defs.bzl", "NEEDS_CUDA")

_HAS_MLC_LLM = not NEEDS_SOURCES

_HAS_CUDA = not NEEDS_CUDA

_CUDA_IMAGES = ["tvm_runtime_cuda"] + (["mlc_llm_cuda"] if _HAS_MLC_LLM else [])

_CUDA_WHEELS = ["//wheels/tvm_cuda"]

_MLC_LLM_IMAGES = [
    "mlc_llm",
    "mlc_llm_dev",
]

_MLC_LLM_WHEELS = ["//wheels/mlc_llm"]

# The first is what //images:run and the like take where none is named: the same with and without CUDA.
IMAGES = (_MLC_LLM_IMAGES if _HAS_MLC_LLM else []) + [
    "tvm_runtime",
    "tvm_runtime_dev",
] + (_CUDA_IMAGES if _HAS_CUDA else [])

WHEELS = (_MLC_LLM_WHEELS if _HAS_MLC_LLM else []) + (_CUDA_WHEELS if _HAS_CUDA else []) + [
    "//wheels/tvm",
    "//wheels/tvm_ffi",
]
