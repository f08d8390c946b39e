"""Fake NVIDIA drivers."""

load("@bazel_skylib//rules:run_binary.bzl", "run_binary")
load("//toolchains/cuda:defs.bzl", "NEEDS_CUDA")

def driver_without_gpu(name, version):
    """Builds a libcuda.so.1 of some CUDA version that finds no GPU, in a folder `<name>`.

    Args:
        name: name of the target, the library.
        version: what cuDriverGetVersion returns, such as 13000 for CUDA 13.0.
    """
    run_binary(
        name = name + "_source",
        srcs = ["@cuda_nvcc//:cuda.h"],
        outs = [name + ".c"],
        args = [
            "$(execpath @cuda_nvcc//:cuda.h)",
            "--driver-version={}".format(version),
            "--output=$(execpath {}.c)".format(name),
        ],
        # Only builds with CUDA download the wheel with cuda.h.
        target_compatible_with = NEEDS_CUDA,
        tool = "//toolchains/cuda/private:make_driver_stub",
    )
    native.cc_binary(
        name = name + "/libcuda.so.1",
        srcs = [name + ".c"],
        linkopts = ["-Wl,-soname,libcuda.so.1"],
        linkshared = True,
        target_compatible_with = NEEDS_CUDA,
    )
    native.alias(
        name = name,
        actual = name + "/libcuda.so.1",
    )
