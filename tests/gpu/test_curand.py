"""cuRAND fills tensors with normal numbers of mean 0 and standard deviation 5, as TVM requests."""

import numpy as np
import pytest
from conftest import poisoned

import tvm

DEVIATION = 5.0


def _fill(shape: tuple[int, ...], dtype: str, device: tvm.runtime.Device) -> np.ndarray:
    tensor = poisoned(shape, dtype, device)
    tvm.get_global_func("runtime.contrib.curand.RandomFill")(tensor)
    return tensor.numpy()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("size", [1 << 20, (1 << 20) + 1], ids=["even", "odd"])
def test_normal_numbers(device: tvm.runtime.Device, size: int, dtype: str) -> None:
    """Each bound is six standard deviations of the statistic. The seed is fixed, so it holds always or never."""
    numbers = _fill((size,), dtype, device).astype("float64") / DEVIATION
    assert np.isfinite(numbers).all()
    bound = 6 / np.sqrt(size)
    assert abs(numbers.mean()) < bound
    assert abs(numbers.std() - 1) < bound / np.sqrt(2)
    assert abs((numbers**3).mean()) < bound * np.sqrt(15)
    assert abs((numbers**4).mean() - 3) < bound * np.sqrt(96)
    # Neighbours are uncorrelated.
    assert abs((numbers[1:] * numbers[:-1]).mean()) < bound
    assert np.unique(numbers).size > size / (2 if dtype in ("float32", "float64") else 1000)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(1,), (2,), (3, 5, 7), (1, 1, 1000), (1001,)], ids=str)
def test_every_element_of_a_shape_is_written(device: tvm.runtime.Device, shape: tuple[int, ...], dtype: str) -> None:
    numbers = _fill(shape, dtype, device).astype("float64")
    assert np.isfinite(numbers).all()
    assert (np.abs(numbers) < 10 * DEVIATION).all()


def test_numbers_go_on_from_call_to_call(device: tvm.runtime.Device) -> None:
    one, other = _fill((4096,), "float32", device), _fill((4096,), "float32", device)
    assert np.unique(np.concatenate([one, other])).size > 8000


def test_nothing_is_written_beside_the_tensor(device: tvm.runtime.Device) -> None:
    """For an odd number of elements cuRAND generates one more."""
    whole = poisoned((1004,), "float32", device)
    tvm.get_global_func("runtime.contrib.curand.RandomFill")(whole._create_view((1001,), "float32"))
    numbers = whole.numpy()
    assert np.isfinite(numbers[:1001]).all() and np.isnan(numbers[1001:]).all()


def test_what_it_cannot_fill_is_refused(device: tvm.runtime.Device) -> None:
    fill = tvm.get_global_func("runtime.contrib.curand.RandomFill")
    with pytest.raises(ValueError, match="expected float16, bfloat16, float32 or float64"):
        fill(tvm.runtime.empty((4,), "int32", device))
    with pytest.raises(ValueError, match="expected a tensor on a CUDA device"):
        fill(tvm.runtime.empty((4,), "float32", tvm.cpu()))
