"""Tensors share memory with NumPy through DLPack, keep it alive exactly as long as needed, and convert exactly."""

import gc
import weakref
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from tvm.runtime import ShapeTuple

import tvm

DTYPES = ["bool", "int8", "uint8", "int16", "int32", "int64", "float16", "float32", "float64"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (7,), (3, 0, 2), (2, 3, 5)])
def test_round_trip_through_a_copy(dtype: str, shape: tuple[int, ...]) -> None:
    data = np.random.default_rng(1).integers(0, 2, shape).astype(dtype)
    tensor = tvm.runtime.tensor(data)
    assert (tuple(tensor.shape), str(tensor.dtype)) == (shape, dtype)
    back = tensor.numpy()
    assert back.dtype == data.dtype
    np.testing.assert_array_equal(back, data)


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_round_trip_of_small_floats(dtype: str) -> None:
    data = np.array([0, 1, -2.5, 0.375, 96]).astype(getattr(ml_dtypes, dtype))
    tensor = tvm.runtime.tensor(data)
    assert str(tensor.dtype) == dtype
    np.testing.assert_array_equal(tensor.numpy().view("uint8"), data.view("uint8"))


def aligned(shape: tuple[int, ...], offset: int = 0) -> np.ndarray:
    """A float32 array whose memory starts `offset` bytes after a multiple of 64."""
    size = int(np.prod(shape)) * 4
    raw = np.zeros(size + 128, "uint8")
    start = -raw.ctypes.data % 64 + offset
    return raw[start : start + size].view("float32").reshape(shape)


def test_numpy_to_tvm_shares_memory() -> None:
    data = aligned((3, 4))
    tensor = tvm.runtime.from_dlpack(data)
    data[1, 2] = 100
    assert tensor.numpy()[1, 2] == 100


def test_tvm_to_numpy_shares_memory() -> None:
    tensor = tvm.runtime.tensor(np.zeros((3, 4), "float32"))
    first, second = np.from_dlpack(tensor), np.from_dlpack(tensor)
    assert first.ctypes.data == second.ctypes.data
    tensor.copyfrom(np.full((3, 4), 5, "float32"))
    assert (first == 5).all()


def test_unaligned_memory_is_refused() -> None:
    with pytest.raises(RuntimeError, match="not aligned to 64 bytes"):
        tvm.runtime.from_dlpack(aligned((3, 4), offset=4))


def test_a_shared_array_lives_until_the_tensor_dies() -> None:
    data = aligned((1000,))
    alive = weakref.ref(data)
    tensor = tvm.runtime.from_dlpack(data)
    del data
    gc.collect()
    assert alive() is not None
    del tensor
    gc.collect()
    assert alive() is None


def test_an_array_over_a_tensor_outlives_the_tensor() -> None:
    tensor = tvm.runtime.tensor(np.arange(1000, dtype="int64"))
    array = np.from_dlpack(tensor)
    del tensor
    gc.collect()
    filler = [tvm.runtime.tensor(np.full(1000, -1, "int64")) for _ in range(50)]
    np.testing.assert_array_equal(array, np.arange(1000))
    del filler


@pytest.mark.parametrize("dtype", ["int8", "float32", "float64"])
def test_memory_is_aligned_for_vector_instructions(dtype: str) -> None:
    tensors = [tvm.runtime.empty((size,), dtype) for size in (1, 3, 17, 1000)]
    assert [np.from_dlpack(tensor).ctypes.data % 64 for tensor in tensors] == [0] * 4


def test_freed_memory_goes_back_to_the_system() -> None:
    """A hundred tensors of 16 MiB, one after the other, leave less than a quarter of 1600 MiB resident."""

    def resident_mib() -> float:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * 4096 / 2**20

    block = np.ones(4 << 20, "float32")
    before = resident_mib()
    for _ in range(100):
        tvm.runtime.tensor(block)
    gc.collect()
    assert resident_mib() - before < 400


def test_a_view_shares_memory_and_may_not_leave_it() -> None:
    tensor = tvm.runtime.tensor(np.arange(12, dtype="float32").reshape(3, 4))
    view = tensor._create_view((2, 2), relative_byte_offset=4 * 4)
    np.testing.assert_array_equal(view.numpy(), [[4, 5], [6, 7]])
    with pytest.raises(ValueError, match="only contains 48 bytes"):
        tensor._create_view((13,))


def test_a_wrong_shape_is_not_copied() -> None:
    tensor = tvm.runtime.tensor(np.zeros((2, 3), "float32"))
    with pytest.raises(ValueError, match="shape"):
        tensor.copyfrom(np.ones((3, 3), "float32"))
    assert not tensor.numpy().any()


def test_a_strided_array_is_copied_in_its_order() -> None:
    data = np.arange(24, dtype="int32").reshape(4, 6)
    np.testing.assert_array_equal(tvm.runtime.tensor(data.T[::2]).numpy(), data.T[::2])


def test_runtime_reshape_shares_memory() -> None:
    tensor = tvm.runtime.tensor(np.arange(6, dtype="float32"))
    reshaped = tvm.get_global_func("vm.builtin.reshape")(tensor, ShapeTuple([2, 3]))
    assert np.from_dlpack(reshaped).ctypes.data == np.from_dlpack(tensor).ctypes.data
    assert list(tvm.get_global_func("vm.builtin.shape_of")(reshaped)) == [2, 3]


def test_parameters_survive_saving_to_bytes_and_to_a_file(tmp_path: Path) -> None:
    parameters = {
        "weight": tvm.runtime.tensor(np.random.default_rng(2).standard_normal((3, 5)).astype("float32")),
        "bias": tvm.runtime.tensor(np.arange(4, dtype="int8")),
    }
    tvm.runtime.save_param_dict_to_file(parameters, str(tmp_path / "parameters"))
    for loaded in (
        tvm.runtime.load_param_dict(tvm.runtime.save_param_dict(parameters)),
        tvm.runtime.load_param_dict_from_file(str(tmp_path / "parameters")),
    ):
        assert set(loaded) == set(parameters)
        for name, value in parameters.items():
            np.testing.assert_array_equal(loaded[name].numpy(), value.numpy())


@pytest.mark.parametrize("length", [0, 8, 20, 40, 60, 80])
def test_parameters_cut_before_the_data_are_refused(length: int) -> None:
    """TVM 0.26 does not notice a cut inside a tensor's data. The tensor cache, which holds weights on disk, does."""
    data = bytes(tvm.runtime.save_param_dict({"weight": tvm.runtime.tensor(np.zeros(100, "float32"))}))
    with pytest.raises(tvm.error.InternalError, match="Invalid (parameters|DLTensor) file format"):
        tvm.runtime.load_param_dict(bytearray(data[:length]))
