"""The GPU is found and described, and the runtime loads every CUDA library."""

import re

import pytest

import tvm
import tvm_cuda


def test_the_device_says_what_it_is(device: tvm.runtime.Device) -> None:
    assert device.exist
    assert device.device_name.strip() and "\0" not in device.device_name
    # CUDA 13 supports Turing and newer.
    assert tuple(map(int, device.compute_version.split("."))) >= (7, 5)
    assert device.warp_size == 32
    assert device.max_threads_per_block == 1024
    assert list(device.max_thread_dimensions) == [1024, 1024, 64]
    assert device.max_shared_memory_per_block >= 48 << 10
    assert device.multi_processor_count > 0
    assert device.l2_cache_size_bytes > 1 << 20


def test_memory_in_use_is_counted(device: tvm.runtime.Device) -> None:
    size = 1 << 30
    assert device.total_global_memory > 2 * size
    before = device.available_global_memory
    tensor = tvm.runtime.empty((size,), "uint8", device)
    during = device.available_global_memory
    del tensor
    assert during <= before - size
    assert device.available_global_memory >= during + size


def test_a_device_that_is_not_there_does_not_exist() -> None:
    assert not tvm.cuda(999).exist


def test_compiled_for_cuda_13(device: tvm.runtime.Device) -> None:
    assert device.api_version // 1000 == 13


@pytest.mark.parametrize("component", ["driver", "device runtime", "cublas", "cudnn", "curand", "nccl"])
def test_component_is_loaded(component: str) -> None:
    part = tvm_cuda.status()[component]
    assert part.loaded, part.reason
    assert re.match(r"\d+\.\d+", part.version), part.version
