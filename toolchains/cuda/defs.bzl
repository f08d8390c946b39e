"""Rules for code that runs on NVIDIA GPUs. Public: `cuda_library`; `NEEDS_CUDA` and `NEEDS_GPU` for target_compatible_with; `bool_flag`."""

load("//toolchains/cuda/private:cuda_library.bzl", "cuda_library_rule")
load("//toolchains/cuda/private:settings.bzl", _NEEDS_CUDA = "NEEDS_CUDA", _NEEDS_GPU = "NEEDS_GPU", _bool_flag = "bool_flag")

# A setting that is either on or off.
bool_flag = _bool_flag

# For targets that download or run parts of CUDA. Bazel skips them without --config=cuda.
NEEDS_CUDA = _NEEDS_CUDA

# For tests that run on a GPU. Bazel skips them, rather than passing them, on a machine without one.
NEEDS_GPU = _NEEDS_GPU

def cuda_library(name, target_compatible_with = [], **kwargs):
    """Compiles a CUDA C++ library with the hermetic nvcc, and the hermetic GCC as its host compiler.

        cuda_library(
            name = "kernels",
            srcs = ["kernels.cu"],
            hdrs = ["kernels.h"],
            copts = ["-std=c++20"],
        )

    Other targets depend on it like on a cc_library. One flag sets the architectures of the whole build: --//toolchains/cuda:archs="sm_90;compute_90".
    The attributes are those of rules_cuda, which no package registry has: alwayslink, copts, defines, deps, hdrs, host_copts, includes, linkopts,
    local_defines, ptxascopts, srcs. Relocatable device code (rdc) is not supported.

    Args:
        name: the target.
        target_compatible_with: constraints in addition to NEEDS_CUDA.
        **kwargs: the attributes above, and common ones.
    """
    cuda_library_rule(name = name, target_compatible_with = NEEDS_CUDA + target_compatible_with, **kwargs)
