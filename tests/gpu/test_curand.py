"""cuRAND fills tensors with normal numbers, mean 0 and standard deviation 5, which is what TVM asks it for."""

import numpy as np
import pytest
import tvm
from comparison import poisoned

DEVIATION = 5.0


def _fill(shape: tuple[int, ...], dtype: str, device: tvm.runtime.Device) -> np.ndarray:
    tensor = poisoned(shape, dtype, device)
    tvm.get_global_func("runtime.contrib.curand.RandomFill")(tensor)
    return tensor.numpy()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("size", [1 << 20, (1 << 20) + 1], ids=["even", "odd"])
def test_normal_numbers(device: tvm.runtime.Device, size: int, dtype: str) -> None:
    """Each bound is six of the statistic's own standard deviations: the generator's seed is fixed, so it holds always or never."""
    numbers = _fill((size,), dtype, device).astype("float64") / DEVIATION
    assert np.isfinite(numbers).all()
    bound = 6 / np.sqrt(size)
    assert abs(numbers.mean()) < bound
    assert abs(numbers.std() - 1) < bound / np.sqrt(2)
    assert abs((numbers**3).mean()) < bound * np.sqrt(15)
    assert abs((numbers**4).mean() - 3) < bound * np.sqrt(96)
    # Neighbours have nothing to do with each other.
    assert abs((numbers[1:] * numbers[:-1]).mean()) < bound
    assert np.unique(numbers).size > size / (1000 if dtype == "float16" else 2)


@pytest.mark.parametrize("size", [2, 1000, 1001])
def test_float16_is_float32_rounded(device: tvm.runtime.Device, size: int) -> None:
    """A kernel of TVM's own does it; each call starts the same sequence."""
    np.testing.assert_array_equal(_fill((size,), "float16", device), _fill((size,), "float32", device).astype("float16"))


def test_every_element_of_a_shape_is_written(device: tvm.runtime.Device) -> None:
    np.testing.assert_array_equal(_fill((3, 5, 7), "float32", device).ravel(), _fill((105,), "float32", device))


def test_what_it_cannot_fill_is_refused(device: tvm.runtime.Device) -> None:
    fill = tvm.get_global_func("runtime.contrib.curand.RandomFill")
    with pytest.raises(ValueError, match="Unsupported dtype"):
        fill(tvm.runtime.empty((4,), "int32", device))
    with pytest.raises(ValueError, match="only works on CUDA devices"):
        fill(tvm.runtime.empty((4,), "float32", tvm.cpu()))
