"""libtvm_runtime_extra's random numbers have the promised distribution, and its sort and top-k agree with NumPy."""

import numpy as np
import pytest

import tvm

COUNT = 20000


def call(name: str, *arguments: object) -> object:
    return tvm.get_global_func(name)(*arguments)


def draw(name: str, first: float, second: float, dtype: str = "float32") -> np.ndarray:
    tensor = tvm.runtime.empty((COUNT,), dtype)
    call(f"tvm.contrib.random.{name}", first, second, tensor)
    return tensor.numpy()


def test_uniform() -> None:
    values = draw("uniform", -2.0, 6.0)
    assert -2 <= values.min() < -1.9 and 5.9 < values.max() <= 6
    quarters, _ = np.histogram(values, 4, (-2, 6))
    assert abs(quarters - COUNT / 4).max() < COUNT / 40


def test_normal() -> None:
    values = draw("normal", 3.0, 2.0)
    assert abs(values.mean() - 3) < 0.1 and abs(values.std() - 2) < 0.1
    assert abs((abs(values - 3) < 2).mean() - 0.6827) < 0.03


def test_randint_never_reaches_the_upper_bound() -> None:
    values = draw("randint", -3, 4, "int32")
    assert sorted(set(values.tolist())) == [-3, -2, -1, 0, 1, 2, 3]


def test_two_draws_differ() -> None:
    assert not np.array_equal(draw("uniform", 0.0, 1.0), draw("uniform", 0.0, 1.0))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "int32"])
def test_random_fill_reaches_every_element(dtype: str) -> None:
    tensor = tvm.runtime.tensor(np.zeros((1000,), dtype))
    call("tvm.contrib.random.random_fill", tensor)
    assert np.count_nonzero(tensor.numpy()) > 900


def distinct(dtype: str) -> np.ndarray:
    return (np.random.default_rng(4).permutation(60) - 30).reshape(3, 4, 5).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64"])
@pytest.mark.parametrize("axis", [0, 1, 2, -1])
@pytest.mark.parametrize("ascending", [True, False])
def test_sort_and_argsort(dtype: str, axis: int, ascending: bool) -> None:
    data = distinct(dtype)
    values = tvm.runtime.empty(data.shape, dtype)
    call("tvm.contrib.sort.sort", tvm.runtime.tensor(data), values, axis, ascending)
    places = tvm.runtime.empty(data.shape, "int64")
    call("tvm.contrib.sort.argsort", tvm.runtime.tensor(data), places, axis, ascending)
    expected = np.argsort(data if ascending else -data, axis=axis)
    np.testing.assert_array_equal(places.numpy(), expected)
    np.testing.assert_array_equal(values.numpy(), np.take_along_axis(data, expected, axis))


def test_equal_values_keep_their_order() -> None:
    data = np.random.default_rng(4).integers(0, 3, (200,)).astype("float32")
    places = tvm.runtime.empty(data.shape, "int32")
    call("tvm.contrib.sort.argsort", tvm.runtime.tensor(data), places, 0, True)
    np.testing.assert_array_equal(places.numpy(), np.argsort(data, kind="stable"))


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("ascending", [True, False])
def test_topk(k: int, ascending: bool) -> None:
    data = distinct("float32")
    values, places = tvm.runtime.empty((3, 4, k), "float32"), tvm.runtime.empty((3, 4, k), "int64")
    call("tvm.contrib.sort.topk", tvm.runtime.tensor(data), values, places, k, -1, "both", ascending)
    expected = np.argsort(data if ascending else -data, axis=-1)[..., :k]
    np.testing.assert_array_equal(places.numpy(), expected)
    np.testing.assert_array_equal(values.numpy(), np.take_along_axis(data, expected, -1))
