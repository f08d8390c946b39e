"""Products with weights of four bits are NumPy's, for one row to many, in shapes that fit no tile."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import Compare, Machine, run_poisoned
from modules import FOUR_BIT_SHAPES

import tvm


def weights(words: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Dequantized in float64: the lowest four bits come first, 32 weights share a scale."""
    four = np.stack([words >> np.uint32(4 * each) & np.uint32(15) for each in range(8)], axis=-1)
    values = four.reshape(words.shape[0], -1).astype("float64") - 7
    return values * np.repeat(scales.astype("float64"), 32, axis=1)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("count", [1, 2, 4, 5, 8, 9, 16, 17, 33, 70])
@pytest.mark.parametrize(("rows", "inner"), FOUR_BIT_SHAPES)
def test_a_product(
    machine: Machine,
    device: tvm.runtime.Device,
    compare: Compare,
    rows: int,
    inner: int,
    count: int,
    dtype: str,
) -> None:
    random = np.random.default_rng(rows + inner + count)
    words = random.integers(0, 1 << 32, (rows, inner // 8), "uint32")
    scales = (random.random((rows, inner // 32)) * 0.02).astype("float16")
    x = random.standard_normal((count, inner), "float32").astype("float16")
    inputs = [tvm.runtime.tensor(each, device) for each in (x, words, scales)]
    found = run_poisoned(machine("four_bit_products"), f"product_{rows}_{inner}_{dtype}", *inputs)
    # Weights are rounded to float16, as mlc-llm does, and the result is.
    compare(found, x.astype("float64") @ weights(words, scales).T, 2e-3)


@pytest.mark.parametrize("count", [1, 2])
def test_products_that_float16_does_not_hold(
    machine: Machine, device: tvm.runtime.Device, compare: Compare, count: int
) -> None:
    """Some numbers of x are so large that four products exceed float16, and the sum is a number nevertheless."""
    rows, inner = 576, 1536
    random = np.random.default_rng(count)
    words = random.integers(0, 1 << 32, (rows, inner // 8), "uint32")
    scales = (random.random((rows, inner // 32)) * 0.02).astype("float16")
    x = random.standard_normal((count, inner), "float32").astype("float16")
    x[:, ::97] = 50000
    inputs = [tvm.runtime.tensor(each, device) for each in (x, words, scales)]
    found = run_poisoned(machine("four_bit_products"), f"product_{rows}_{inner}_float32", *inputs)
    compare(found, x.astype("float64") @ weights(words, scales).T, 2e-3)


def test_no_row(machine: Machine, device: tvm.runtime.Device) -> None:
    rows, inner = FOUR_BIT_SHAPES[0]
    shapes = [((0, inner), "float16"), ((rows, inner // 8), "uint32"), ((rows, inner // 32), "float16")]
    inputs = [tvm.runtime.tensor(np.zeros(shape, dtype), device) for shape, dtype in shapes]
    assert machine("four_bit_products")[f"product_{rows}_{inner}_float16"](*inputs).shape == (0, rows)
