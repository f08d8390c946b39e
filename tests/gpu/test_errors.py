"""What cannot work fails with one line that says why, and everything else still works afterwards."""

import os
from pathlib import Path

import numpy as np
import pytest
from child import run_python
from comparison import random_array
from conftest import Machine, poisoned
from tvm.runtime.vm import VirtualMachine

import tvm

# A child prints tvm_cuda's status of each part, whether there is a GPU, the error of an allocation on it, and a sum
# from the CPU.
REPORT = """
import json
import numpy as np
import tvm
import tvm_cuda
try:
    tvm.runtime.tensor(np.ones(4, "float32"), tvm.cuda(0))
    error = ""
except Exception as raised:
    error = str(raised)
cpu = tvm.runtime.tensor(np.arange(4, dtype="float32"), tvm.cpu()).numpy().sum()
print(json.dumps({
    "parts": {name: [part.loaded, part.reason] for name, part in tvm_cuda.status().items()},
    "exists": tvm.cuda(0).exist,
    "error": error,
    "cpu": float(cpu),
}))
"""


def _add(machine: Machine, device: tvm.runtime.Device) -> None:
    """A kernel still runs correctly."""
    x = random_array(1, (1001,), "float32")
    tensor = tvm.runtime.tensor(x, device)
    np.testing.assert_array_equal(machine("generated_kernels")["add_float32"](tensor, tensor).numpy(), x + x)


def _multiply(device: tvm.runtime.Device) -> None:
    """cuBLAS still works; it would report an earlier error that nobody cleared."""
    ones = tvm.runtime.tensor(np.ones((64, 64), "float32"), device)
    product = poisoned((64, 64), "float32", device)
    tvm.get_global_func("tvm.contrib.cublas.matmul")(ones, ones, product, False, False)
    np.testing.assert_array_equal(product.numpy(), np.full((64, 64), 64, "float32"))


def test_out_of_memory_is_named_and_memory_is_as_before(device: tvm.runtime.Device, machine: Machine) -> None:
    _multiply(device)
    before = device.available_global_memory
    for _ in range(3):
        with pytest.raises(RuntimeError, match="out of memory"):
            tvm.runtime.empty((10 * device.total_global_memory,), "uint8", device)
    # Not ==: on two H200s the driver once had 2 MiB more than before.
    assert device.available_global_memory >= before
    _add(machine, device)
    _multiply(device)


def test_freed_memory_can_be_used_again(device: tvm.runtime.Device) -> None:
    """Allocates a third of the free memory ten times."""
    size = device.available_global_memory // 3
    for _ in range(10):
        tensor = tvm.runtime.empty((size,), "uint8", device)
        del tensor


def test_a_full_device_takes_work_again_once_memory_is_freed(device: tvm.runtime.Device, machine: Machine) -> None:
    piece = 4 << 30
    held = []
    with pytest.raises(RuntimeError, match="out of memory"):
        while True:
            held.append(tvm.runtime.empty((piece,), "uint8", device))
    assert held and device.available_global_memory < piece + (64 << 20)
    held.clear()
    _add(machine, device)
    _multiply(device)


def test_a_library_for_another_architecture_is_named_as_such(device: tvm.runtime.Device, machine: Machine) -> None:
    wrong = machine("wrong_architecture")
    x = tvm.runtime.tensor(np.ones(16, "float32"), device)
    for _ in range(2):
        # The driver's own name for the error: the library has no machine code for this GPU.
        with pytest.raises(Exception, match="CUDA_ERROR_NO_BINARY_FOR_GPU"):
            wrong["add"](x, x)
    _add(machine, device)


@pytest.mark.parametrize(
    ("shapes", "dtype", "message"),
    [
        (((16,), (17,)), "float32", "(?i)match_?shape|shape"),
        (((4, 4), (4, 4)), "float32", "ndim"),
        (((16,), (16,)), "float64", "(?i)dtype|type"),
    ],
    ids=["lengths differ", "rank", "type"],
)
def test_wrong_arguments_never_reach_the_kernel(
    device: tvm.runtime.Device, machine: Machine, shapes: tuple[tuple[int, ...], ...], dtype: str, message: str
) -> None:
    x, y = (tvm.runtime.tensor(np.ones(shape, dtype), device) for shape in shapes)
    with pytest.raises((RuntimeError, ValueError, TypeError), match=message):
        machine("generated_kernels")["add_float32"](x, y)
    _add(machine, device)


def test_a_tensor_on_the_cpu_is_refused_or_copied_never_read_by_the_gpu(
    device: tvm.runtime.Device, machine: Machine
) -> None:
    x = random_array(2, (16,), "float32")
    on_device, on_cpu = tvm.runtime.tensor(x, device), tvm.runtime.tensor(x, tvm.cpu())
    try:
        got = machine("generated_kernels")["add_float32"](on_device, on_cpu).numpy()
    except Exception as error:
        assert "device" in str(error), error
    else:
        np.testing.assert_array_equal(got, x + x)
    _add(machine, device)


def test_a_file_that_is_no_library_is_named(tmp_path: Path, device: tvm.runtime.Device) -> None:
    path = tmp_path / "model.so"
    path.write_bytes(b"\x7fELF and then nothing")
    with pytest.raises(Exception, match="model.so"):
        VirtualMachine(tvm.runtime.load_module(str(path)), device)


def test_a_missing_cuda_library_is_named_and_the_rest_works(tmp_path: Path) -> None:
    """NVIDIA's libraries without cuBLAS."""
    for folder in os.environ["MLC_NVIDIA_LIBRARIES"].split(os.pathsep):
        for library in Path(folder).glob("nvidia/*/lib/*.so*"):
            if not library.name.startswith("libcublas"):
                link = tmp_path / library.relative_to(folder)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(library.resolve())
    report = run_python(REPORT, MLC_NVIDIA_LIBRARIES=str(tmp_path))
    loaded, reason = report["parts"]["cublas"]
    assert not loaded
    assert "libcublas" in reason
    assert all(report["parts"][name][0] for name in ("driver", "device runtime", "curand"))
    assert report["exists"] and report["error"] == "" and report["cpu"] == 6.0


def test_no_cuda_libraries_at_all_leave_the_cpu(tmp_path: Path) -> None:
    report = run_python(REPORT, MLC_NVIDIA_LIBRARIES=str(tmp_path))
    loaded, reason = report["parts"]["device runtime"]
    assert not loaded
    assert "libcudart" in reason
    assert not report["exists"] and report["error"] and report["cpu"] == 6.0


def test_no_visible_device_leaves_the_cpu() -> None:
    report = run_python(REPORT, CUDA_VISIBLE_DEVICES="-1")
    assert not report["exists"]
    assert "device" in report["error"].lower()
    assert report["cpu"] == 6.0
