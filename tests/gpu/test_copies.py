"""Bytes arrive unchanged: host to device, device to host, device to device; whole tensors and parts of them."""

import numpy as np
import pytest
from comparison import numpy_dtype, random_array
from conftest import Machine, device_count, poisoned

import tvm


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float16", "bfloat16", "float32", "float8_e4m3fn"])
@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 5, 17), (1 << 20,)], ids=str)
def test_round_trip(device: tvm.runtime.Device, shape: tuple[int, ...], dtype: str) -> None:
    data = (random_array(1, shape, "float32") * 50).astype(numpy_dtype(dtype))
    tensor = poisoned(shape, "uint8", device) if dtype == "uint8" else tvm.runtime.empty(shape, dtype, device)
    tensor.copyfrom(data)
    back = tensor.numpy()
    assert back.dtype == data.dtype
    assert back.tobytes() == data.tobytes()


@pytest.mark.parametrize("size", [(1 << 30) + 4], ids=["1 GiB and a bit"])
def test_a_large_copy_to_the_device_within_it_and_back(device: tvm.runtime.Device, size: int) -> None:
    data = np.frombuffer(np.random.default_rng(2).bytes(size), "uint32")
    first = tvm.runtime.tensor(data, device)
    second = poisoned(data.shape, "int32", device)._create_view(data.shape, "uint32")
    first.copyto(second)
    np.testing.assert_array_equal(second.numpy(), data)


def test_a_view_reads_and_writes_its_part_alone(device: tvm.runtime.Device) -> None:
    data = np.arange(1000, dtype="float32")
    tensor = tvm.runtime.tensor(data, device)
    view = tensor._create_view((3, 7), "float32", 4 * 100)
    np.testing.assert_array_equal(view.numpy(), data[100:121].reshape(3, 7))

    new = -np.arange(21, dtype="float32").reshape(3, 7)
    tvm.runtime.tensor(new, device).copyto(view)
    data[100:121] = new.ravel()
    np.testing.assert_array_equal(tensor.numpy(), data)

    view.copyfrom(new + 1)
    data[100:121] = new.ravel() + 1
    np.testing.assert_array_equal(tensor.numpy(), data)


def test_between_every_two_devices(device: tvm.runtime.Device) -> None:
    """With one GPU: from the GPU to itself."""
    data = random_array(3, (12345,), "float32")
    devices = [tvm.cuda(index) for index in range(device_count())]
    for source in devices:
        for destination in devices:
            copy = poisoned(data.shape, "float32", destination)
            tvm.runtime.tensor(data, source).copyto(copy)
            # A copy is only ordered with the work of its source device.
            source.sync()
            np.testing.assert_array_equal(copy.numpy(), data)


def test_sizes_must_agree(device: tvm.runtime.Device) -> None:
    tensor = tvm.runtime.tensor(np.zeros(4, "float32"), device)
    with pytest.raises(ValueError, match="shape"):
        tensor.copyfrom(np.zeros(5, "float32"))
    with pytest.raises(Exception, match="size in bytes must exactly match"):
        tvm.runtime.tensor(np.ones(5, "float32"), device).copyto(tensor)
    np.testing.assert_array_equal(tensor.numpy(), np.zeros(4))


def test_work_on_a_stream_of_its_own(device: tvm.runtime.Device, machine: Machine) -> None:
    x, y = random_array(4, (1 << 20,), "float32"), random_array(5, (1 << 20,), "float32")
    arguments = [tvm.runtime.tensor(array, device) for array in (x, y)]
    stream = device.create_raw_stream()
    assert stream != 0
    device.set_raw_stream(stream)
    try:
        result = machine("generated_kernels")["add_float32"](*arguments)
        device.sync(stream)
    finally:
        device.set_raw_stream(0)
        device.free_raw_stream(stream)
    np.testing.assert_array_equal(result.numpy(), x + y)


def test_one_stream_waits_for_another(device: tvm.runtime.Device, machine: Machine) -> None:
    """Each addition needs the result of the previous one, which ran on the other stream."""
    kernels = machine("generated_kernels")
    wait = tvm.get_global_func("runtime.Device_StreamSyncFromTo")
    streams = [device.create_raw_stream() for _ in range(2)]
    one = tvm.runtime.tensor(np.ones(1 << 22, "float32"), device)
    results = [one]
    try:
        for step in range(20):
            device.set_raw_stream(streams[step % 2])
            results.append(kernels["add_float32"](results[-1], one))
            wait(device, streams[step % 2], streams[(step + 1) % 2])
        for stream in streams:
            device.sync(stream)
    finally:
        device.set_raw_stream(0)
        for stream in streams:
            device.free_raw_stream(stream)
    np.testing.assert_array_equal(results[-1].numpy(), np.full(1 << 22, 21, "float32"))
