"""How GPU tests and measurements check results: ‖got − expected‖ / ‖expected‖ in float64, with a bound that follows
from the data type.

Plain NumPy: measurements load NVIDIA's libraries before they import TVM.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np

ROUNDING = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
"""Unit roundoff: the largest relative error of rounding once to the type."""

NUMPY = {"bfloat16": ml_dtypes.bfloat16, "float8_e4m3fn": ml_dtypes.float8_e4m3fn}


def numpy_dtype(dtype: str) -> np.dtype:
    """NumPy's equivalent of a TVM data type."""
    return np.dtype(NUMPY.get(dtype, dtype))


def random_array(seed: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Standard normal numbers, rounded to the type; reproducible by seed."""
    return np.random.default_rng(seed).standard_normal(shape).astype(numpy_dtype(dtype))


def poison(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Initial content of an output: NaN, or the lowest integer, so that elements a kernel leaves out show up."""
    kind = numpy_dtype(dtype)
    return np.full(shape, np.iinfo(kind).min if kind.kind in "iu" else np.nan, kind)


def relative_error(got: np.ndarray, expected: np.ndarray) -> float:
    """‖got − expected‖ / ‖expected‖ over all elements, in float64.

    Raises:
        AssertionError: the shapes differ, or either array holds a value that is not finite.
    """
    assert got.shape == expected.shape, f"expected shape {expected.shape}, found {got.shape}"
    got, expected = got.astype("float64"), expected.astype("float64")
    bad = ~np.isfinite(got)
    assert not bad.any(), (
        f"{bad.sum()} of {bad.size} elements are not finite, the first at {tuple(np.argwhere(bad)[0].tolist())}"
    )
    assert np.isfinite(expected).all(), "the reference itself is not finite"
    norm = np.linalg.norm(expected)
    return float(np.linalg.norm(got - expected) / norm) if norm else float(np.linalg.norm(got))


def softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    """Softmax in float64."""
    exponential = np.exp(x.astype("float64") - x.astype("float64").max(axis=axis, keepdims=True))
    return exponential / exponential.sum(axis=axis, keepdims=True)
