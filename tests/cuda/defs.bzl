"""Imitations of NVIDIA's driver, for tests of what happens with and without one."""

def driver_without_gpu(name, version):
    """A folder `<name>` with a libcuda.so.1 of some CUDA version that shows no GPU.

    Args:
        name: the target: the library.
        version: as cuDriverGetVersion counts, 13000 for CUDA 13.0.
    """
    native.genrule(
        name = name + "_source",
        srcs = ["@cuda_nvcc//:cuda.h"],
        outs = [name + ".c"],
        cmd = "$(execpath //toolchains/cuda/private:make_driver_stub) $< --driver-version {} > $@".format(version),
        tools = ["//toolchains/cuda/private:make_driver_stub"],
    )
    native.cc_binary(
        name = name + "/libcuda.so.1",
        srcs = [name + ".c"],
        linkopts = ["-Wl,-soname,libcuda.so.1"],
        linkshared = True,
    )
    native.alias(
        name = name,
        actual = name + "/libcuda.so.1",
    )
