"""Products with weights: of floats as exact as NumPy's, of 4-bit weights nearly so."""

from __future__ import annotations

import platform
from typing import Any

import cpu_kernels
import numpy as np
import pytest

GROUP = 32


@pytest.fixture(params=cpu_kernels.AVAILABLE, autouse=True)
def kernels(request: pytest.FixtureRequest) -> str:
    cpu_kernels.use(request.param)
    name: str = request.param
    return name


def test_the_best_are_first_and_the_oldest_last() -> None:
    assert cpu_kernels.AVAILABLE[-1] == {"aarch64": "armv8-a", "x86_64": "x86-64-v2"}[platform.machine()]
    assert sorted(cpu_kernels.AVAILABLE, reverse=True) == cpu_kernels.AVAILABLE


def test_kernels_that_this_cpu_lacks_are_refused() -> None:
    with pytest.raises(ValueError, match=rf"expected one of .*{cpu_kernels.AVAILABLE[-1]}, found x86-64-v9"):
        cpu_kernels.use("x86-64-v9")


def weights(rows: int, depth: int, scale_type: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Words and scales as mlc-llm has them, and their values."""
    random = np.random.default_rng(seed)
    bits = random.integers(0, 16, (rows, depth), dtype=np.uint32)
    shifts = np.arange(8, dtype=np.uint32) * 4
    words = (bits.reshape(rows, -1, 8) << shifts).sum(axis=-1, dtype=np.uint32)
    scales = random.uniform(1e-3, 2e-2, (rows, depth // GROUP)).astype(scale_type)
    values = (bits.astype("float64") - 7) * np.repeat(scales.astype("float64"), GROUP, axis=1)
    return words, scales, values


@pytest.mark.parametrize(
    ("x_type", "scale_type"), [("float32", "float32"), ("float16", "float16"), ("float32", "float16")]
)
@pytest.mark.parametrize("depth", [32, 64, 96, 576])
@pytest.mark.parametrize("columns", [1, 5, 64, 131])
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 11, 16, 29])
def test_products_with_weights_of_four_bits(rows: int, columns: int, depth: int, x_type: str, scale_type: str) -> None:
    words, scales, values = weights(columns, depth, scale_type)
    x = np.random.default_rng(1).standard_normal((rows, depth)).astype(x_type)
    x[0, :GROUP] = 0  # A group without a scale.
    out = np.full((rows, columns), np.nan, x_type)
    cpu_kernels.call("matmul_q4", x, words, scales, out)
    expected = x.astype("float64") @ values.T
    # Activations are off by at most half of 2 ** -15 of the largest in their group.
    tolerance = 2**-16 * np.abs(x).max() * np.abs(values).sum(axis=1).max()
    if x_type == "float16":
        tolerance += 1e-3 * np.abs(expected).max()
    np.testing.assert_allclose(out, expected, atol=tolerance, rtol=0)


def test_more_rows_than_are_multiplied_at_a_time() -> None:
    words, scales, values = weights(40, 4096, "float32")
    x = np.random.default_rng(1).standard_normal((150, 4096)).astype("float32")
    out = np.full((150, 40), np.nan, "float32")
    cpu_kernels.call("matmul_q4", x, words, scales, out)
    tolerance = 2**-16 * np.abs(x).max() * np.abs(values).sum(axis=1).max()
    np.testing.assert_allclose(out, x.astype("float64") @ values.T, atol=tolerance, rtol=0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_stays_none(value: float) -> None:
    words, scales, _ = weights(8, 96, "float32")
    x = np.ones((2, 96), "float32")
    x[1, 40] = value
    out = np.zeros((2, 8), "float32")
    cpu_kernels.call("matmul_q4", x, words, scales, out)
    assert np.isfinite(out[0]).all()
    assert not np.isfinite(out[1]).any()


@pytest.mark.parametrize("size", [1e-38, 1e-20, 1.0, 1e20, 1e30])
def test_activations_of_any_size(size: float) -> None:
    words, scales, values = weights(8, 64, "float32")
    x = (np.random.default_rng(1).standard_normal((2, 64)) * size).astype("float32")
    out = np.full((2, 8), np.nan, "float32")
    cpu_kernels.call("matmul_q4", x, words, scales, out)
    expected = x.astype("float64") @ values.T
    tolerance = 2**-16 * np.abs(x).max() * np.abs(values).sum(axis=1).max()
    np.testing.assert_allclose(out, expected, atol=float(tolerance) + 1e-30, rtol=0)


@pytest.mark.parametrize("weight_type", ["float32", "float16"])
@pytest.mark.parametrize("x_type", ["float32", "float16"])
@pytest.mark.parametrize("depth", [1, 7, 64, 100, 577])
@pytest.mark.parametrize("columns", [1, 3, 32, 70])
@pytest.mark.parametrize("rows", [1, 2, 5, 6, 12, 13, 25])
def test_products_with_floats(rows: int, columns: int, depth: int, x_type: str, weight_type: str) -> None:
    random = np.random.default_rng(2)
    x = random.standard_normal((1, rows, depth)).astype(x_type)
    matrix = random.standard_normal((columns, depth)).astype(weight_type)
    out = np.full((1, rows, columns), np.nan, x_type)
    cpu_kernels.call("matmul", x, matrix, out)
    expected = x.astype("float64") @ matrix.astype("float64").T
    tolerance = 3e-6 if x_type == "float32" else 2e-3
    np.testing.assert_allclose(out, expected, atol=tolerance * (1 + np.abs(expected).max()), rtol=0)


@pytest.mark.parametrize("scale_type", ["float32", "float16"])
def test_rows_of_weights_are_looked_up(scale_type: str) -> None:
    words, scales, values = weights(50, 96, scale_type)
    ids = np.array([0, 49, 7, 7], "int32")
    out = np.full((4, 96), np.nan, "float32")
    cpu_kernels.call("take_q4", words, scales, ids, out)
    np.testing.assert_allclose(out, values[ids], rtol=1e-6)
    with pytest.raises(ValueError, match="ids: expected numbers from 0 to 49, found 50"):
        cpu_kernels.call("take_q4", words, scales, np.array([50], "int32"), np.zeros((1, 96), "float32"))


def test_every_16_bit_number_is_read_and_written() -> None:
    """Among them numbers below the normal ones, infinities and those that are none."""
    halves = np.arange(1 << 16, dtype="uint16").view("float16")
    out = np.zeros((1, 1 << 16), "float16")
    cpu_kernels.call("matmul", np.ones((1, 1), "float16"), halves.reshape(-1, 1), out)
    np.testing.assert_array_equal(out[0], halves)


@pytest.mark.parametrize("value", [65519.9, 65520.0, 1e-8, 2.98e-8, 3e-8, 6.1e-5, -1e9, 2049.0, 2051.0])
def test_numbers_are_rounded_to_16_bits_as_by_numpy(value: float) -> None:
    out = np.zeros((1, 1), "float16")
    cpu_kernels.call("matmul", np.full((1, 1), value, "float32"), np.ones((1, 1), "float32"), out)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(out[0, 0], np.float32(value).astype("float16"))


def arrays(**changed: np.ndarray) -> list[np.ndarray]:
    given = {
        "x": np.zeros((2, 64), "float32"),
        "words": np.zeros((3, 8), "uint32"),
        "scales": np.zeros((3, 2), "float32"),
        "out": np.zeros((2, 3), "float32"),
    }
    return [*{**given, **changed}.values()]


@pytest.mark.parametrize(
    ("changed", "error", "found"),
    [
        ({"x": np.zeros((2, 32), "float32")}, ValueError, r"expected x \[2, 64\] and out \[2, 3\], found x \[2, 32\]"),
        ({"out": np.zeros((3, 3), "float32")}, ValueError, "and out"),
        ({"words": np.zeros((3, 7), "uint32")}, ValueError, r"expected weights \[3, 8\], found \[3, 7\]"),
        ({"words": np.zeros((3, 8), "int64")}, TypeError, "weights: expected uint32"),
        ({"x": np.zeros((2, 64), "int32")}, TypeError, "x: expected float32 or float16"),
        ({"out": np.zeros((2, 3), "float64")}, TypeError, "out: expected float32 or float16"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(changed: dict[str, Any], error: type[Exception], found: str) -> None:
    with pytest.raises(error, match=found):
        cpu_kernels.call("matmul_q4", *arrays(**changed))


def test_nothing_is_multiplied() -> None:
    cpu_kernels.call("matmul_q4", *arrays(x=np.zeros((0, 64), "float32"), out=np.zeros((0, 3), "float32")))
