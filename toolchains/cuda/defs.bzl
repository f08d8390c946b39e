"""Rules for code that runs on NVIDIA GPUs. Public: `cuda_library`; `NEEDS_CUDA` and `NEEDS_GPU` for target_compatible_with; `bool_flag`."""

load("//toolchains/cuda/private:cuda_library.bzl", "cuda_library_rule")
load("//toolchains/cuda/private:settings.bzl", _NEEDS_CUDA = "NEEDS_CUDA", _NEEDS_GPU = "NEEDS_GPU", _bool_flag = "bool_flag")

# A setting that is on or off.
bool_flag = _bool_flag

# Of targets that download or run what belongs to CUDA: without --config=cuda they are skipped.
NEEDS_CUDA = _NEEDS_CUDA

# Of tests that run on a GPU: without one in this machine they are skipped, not passed.
NEEDS_GPU = _NEEDS_GPU

def cuda_library(name, target_compatible_with = [], **kwargs):
    """A library of CUDA C++, compiled by the hermetic nvcc with the hermetic GCC as host compiler.

        cuda_library(
            name = "kernels",
            srcs = ["kernels.cu"],
            hdrs = ["kernels.h"],
            copts = ["-std=c++20"],
        )

    Other targets depend on it as on a cc_library. What it is compiled for is one setting of the build: --//toolchains/cuda:archs="sm_90;compute_90".
    Attributes are named as in rules_cuda, which no package registry has: alwayslink, copts, defines, deps, hdrs, host_copts, includes, linkopts,
    local_defines, ptxascopts, srcs. Relocatable device code (rdc) is not supported.

    Args:
        name: the target.
        target_compatible_with: further constraints, beside NEEDS_CUDA.
        **kwargs: the attributes above and common ones.
    """
    cuda_library_rule(name = name, target_compatible_with = NEEDS_CUDA + target_compatible_with, **kwargs)
