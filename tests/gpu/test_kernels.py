"""Kernels that TVM generates match NumPy in float64, for sizes that fit their tiles and sizes that do not."""

import numpy as np
import pytest
from comparison import ROUNDING, random_array, softmax
from conftest import Compare, Machine, run_poisoned
from modules import COLUMNS, INNER

import tvm


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("size", [1, 31, 1024, 1025, (1 << 20) + 3])
def test_add(device: tvm.runtime.Device, machine: Machine, size: int, dtype: str) -> None:
    """Both sides round once to nearest, so the bits are equal."""
    x, y = random_array(1, (size,), dtype), random_array(2, (size,), dtype)
    got = run_poisoned(
        machine("generated_kernels"), f"add_{dtype}", tvm.runtime.tensor(x, device), tvm.runtime.tensor(y, device)
    )
    np.testing.assert_array_equal(got, x + y)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 1000), (7, 33), (64, 1024), (129, 4097)], ids=str)
def test_softmax(
    device: tvm.runtime.Device, machine: Machine, compare: Compare, shape: tuple[int, int], dtype: str
) -> None:
    x = (4 * random_array(3, shape, "float32")).astype(dtype)
    got = run_poisoned(machine("generated_kernels"), f"softmax_{dtype}", tvm.runtime.tensor(x, device))
    # The kernel keeps exponentials and their sum in the input's type, which adds roundings; its fast exponential is off
    # by a few of float32's.
    compare(got, softmax(x), 16 * ROUNDING[dtype] + 64 * ROUNDING["float32"])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("rows", [1, 16, 63, 128, 257, 1024])
def test_matmul(device: tvm.runtime.Device, machine: Machine, compare: Compare, rows: int, dtype: str) -> None:
    x, w = random_array(4, (rows, INNER), dtype), random_array(5, (INNER, COLUMNS), dtype)
    got = run_poisoned(
        machine("generated_kernels"), f"matmul_{dtype}", tvm.runtime.tensor(x, device), tvm.runtime.tensor(w, device)
    )
    # Products of two such numbers are exact in float32; the error comes from the sum, which tensor cores truncate
    # instead of rounding.
    compare(got, x.astype("float64") @ w.astype("float64"), 512 * ROUNDING["float32"])


@pytest.mark.parametrize("columns", [1, 50, 511, 8192, 8193, 128256])
def test_a_draw_is_the_column_at_which_the_sum_reaches_the_number(
    device: tvm.runtime.Device, machine: Machine, columns: int
) -> None:
    probabilities = np.random.default_rng(columns).random((5, columns), dtype="float32") ** 8
    probabilities[0] = np.arange(columns) == columns // 3  # At temperature 0.
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    rows = np.array([[0], [0], [1], [2], [2], [4], [3]], "int64")
    # mlc-llm asks for no number nearer to 0 or 1 (third_party/mlc_llm).
    uniform = np.array([[2e-6], [1 - 1e-5], [2e-6], [0.3], [0.7], [1 - 1e-5], [0.5]], "float32")
    inputs = [tvm.runtime.tensor(each, device) for each in (probabilities, uniform, rows)]
    drawn = machine("generated_kernels")["draw"](*inputs).numpy()[:, 0]
    assert list(drawn[:2]) == [columns // 3] * 2
    sums = probabilities.astype("float64").cumsum(axis=1)
    # The sums of the kernel are in float32.
    for column, (row,), (number,) in zip(drawn, rows, uniform):
        assert probabilities[row, column] > 0
        assert sums[row, column] >= number - 1e-4
        assert column == 0 or sums[row, column - 1] <= number + 1e-4
