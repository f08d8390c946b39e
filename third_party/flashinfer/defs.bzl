"""`flashinfer_kernels`: FlashInfer's attention for TVM."""

load("@bazel_skylib//rules:run_binary.bzl", "run_binary")
load("//toolchains/cuda:defs.bzl", "NEEDS_CUDA", "cuda_library")

# The heads' sizes that FlashInfer has attention for.
HEAD_DIMS = [64, 128, 256]

# TVM's type → CUDA's.
DTYPES = {
    "bfloat16": "nv_bfloat16",
    "float16": "half",
}

# What sources.py writes.
_NAMES = [
    "batch_decode.cu",
    "batch_decode_config.inc",
    "batch_decode_jit_binding.cu",
    "batch_decode_kernel.cu",
    "batch_prefill.cu",
    "batch_prefill_config.inc",
    "batch_prefill_jit_binding.cu",
] + [
    "batch_prefill_{}_kernel_{}.cu".format(layout, mask)
    for layout in ["paged", "ragged"]
    for mask in ["kCausal", "kNone"]
]

def flashinfer_kernels(name, dtype, head_dim, **kwargs):
    """Compiles FlashInfer's attention for the build's CUDA architectures, sm_80 and newer.

    Args:
        name: the target, a cuda_library. Its objects export what TVM's paged KV cache calls.
        dtype: a key of DTYPES.
        head_dim: one of HEAD_DIMS.
        **kwargs: common attributes.
    """
    outputs = ["{}/{}".format(name, source) for source in _NAMES]
    run_binary(
        name = name + ".sources",
        srcs = [
            "@flashinfer//:csrc/batch_decode.cu",
            "@flashinfer//:kernels",
        ],
        outs = outputs,
        args = ["--dtype=" + DTYPES[dtype], "--head-dim={}".format(head_dim)] +
               ["--output=$(execpath {})".format(output) for output in outputs] +
               ["$(execpath @flashinfer//:csrc/batch_decode.cu)"],
        target_compatible_with = NEEDS_CUDA,
        tool = "//third_party/flashinfer:sources",
    )
    cuda_library(
        name = name,
        srcs = outputs,
        # As FlashInfer compiles them.
        copts = [
            "-std=c++17",
            "-use_fast_math",
            "--diag-suppress=177",  # It has variables that some kernels do not use.
            "--expt-relaxed-constexpr",
            # The functions that plan name kernels of other sources.
            "--static-global-template-stub=false",
        ],
        # Only what TVM calls is exported, so that two models in one process do not share a kernel.
        host_copts = [
            "-fvisibility=hidden",
            "-fvisibility-inlines-hidden",
        ],
        local_defines = [
            "FLASHINFER_ENABLE_BF16",
            "FLASHINFER_ENABLE_F16",
            "NDEBUG",
        ],
        deps = ["@flashinfer//:headers"],
        **kwargs
    )
