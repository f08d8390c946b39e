"""The driver stub defines the names that programs link with."""

from __future__ import annotations

import pytest

from toolchains.cuda.private import make_driver_stub

HEADER = """
#define cuDeviceTotalMem                    cuDeviceTotalMem_v2
#define cuMemcpyHtoD                        __CUDA_API_PTDS(cuMemcpyHtoD_v2)
#define cuNothing                           cuNothing_v2
CUresult CUDAAPI cuInit(unsigned int Flags);
CUresult CUDAAPI cuDriverGetVersion(int *driverVersion);
CUresult CUDAAPI cuDeviceTotalMem(size_t *bytes, CUdevice dev);
CUresult CUDAAPI cuMemcpyHtoD(CUdeviceptr dst, const void *src, size_t count);
"""


def test_has_declared_names_and_those_that_macros_rename() -> None:
    assert make_driver_stub.functions(HEADER) == [
        "cuDeviceTotalMem",
        "cuDeviceTotalMem_v2",
        "cuDriverGetVersion",
        "cuInit",
        "cuMemcpyHtoD",
        "cuMemcpyHtoD_v2",
    ]


def test_another_header_is_refused() -> None:
    with pytest.raises(ValueError, match="is this cuda.h"):
        make_driver_stub.functions("int main(void);")


def test_every_function_of_a_stub_returns_its_error() -> None:
    assert "int cuInit(void) { return 34; }" in make_driver_stub.source(["cuInit"])


def test_a_fake_driver_has_a_version_and_no_gpu() -> None:
    text = make_driver_stub.source(["cuDriverGetVersion", "cuInit"], 12080)
    assert "*version = 12080; return 0;" in text
    assert "int cuInit(void) { return 100; }" in text
