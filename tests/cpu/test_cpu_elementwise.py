"""Norms, gates and probabilities are what NumPy computes in float64."""

from __future__ import annotations

import cpu_kernels
import numpy as np
import pytest

ROWS = [1, 3, 70]
COLUMNS = [1, 15, 16, 40, 576, 1001]


@pytest.fixture(params=cpu_kernels.AVAILABLE, autouse=True)
def kernels(request: pytest.FixtureRequest) -> str:
    cpu_kernels.use(request.param)
    name: str = request.param
    return name


def normal(*shape: int, size: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(6).standard_normal(shape) * size).astype("float32")


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
def test_rms_norm(rows: int, columns: int, size: float) -> None:
    x, weight = normal(rows, columns, size=size), normal(columns)
    out = np.full_like(x, np.nan)
    cpu_kernels.call("rms_norm", x, weight, 1e-5, out)
    exact = x.astype("float64")
    expected = exact / np.sqrt((exact**2).mean(axis=-1, keepdims=True) + 1e-5) * weight
    np.testing.assert_allclose(out, expected, rtol=2e-6, atol=0)


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


@pytest.mark.parametrize(("name", "activation"), [("silu_multiply", silu), ("gelu_multiply", gelu)])
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("size", [1e-3, 1.0, 20.0])
def test_gates(name: str, activation: object, rows: int, columns: int, size: float) -> None:
    x = normal(rows, 2 * columns, size=size)
    out = np.full((rows, columns), np.nan, "float32")
    cpu_kernels.call(name, x, out)
    gate, up = np.split(x.astype("float64"), 2, axis=-1)
    assert callable(activation)
    np.testing.assert_allclose(out, activation(gate) * up, rtol=2e-6, atol=1e-6 * size)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize(("columns", "active"), [(1, 1), (40, 40), (1001, 1000), (49152, 49000)])
@pytest.mark.parametrize("temperature", [0.1, 1.0, 2.0])
def test_softmax(rows: int, columns: int, active: int, temperature: float) -> None:
    logits = normal(rows, 1, columns, size=10.0)
    logits[..., active:] = 1e3
    out = np.full_like(logits, np.nan)
    cpu_kernels.call("softmax", logits, np.full(rows, temperature, "float32"), active, out)
    exact = logits.astype("float64")[..., :active] / np.float32(temperature)
    shares = np.exp(exact - exact.max(axis=-1, keepdims=True))
    np.testing.assert_allclose(out[..., :active], shares / shares.sum(axis=-1, keepdims=True), rtol=1e-4, atol=1e-30)
    assert (out[..., active:] == 0).all()


def test_without_temperature_the_largest_share_everything() -> None:
    logits = np.array([[[0, 3, 1, 3, 9]], [[0, 3, 1, 2, 9]], [[0, 3, 1, 2, 9]]], "float32")
    out = np.full_like(logits, np.nan)
    cpu_kernels.call("softmax", logits, np.array([0, 1e-6, 1], "float32"), 4, out)
    np.testing.assert_array_equal(out[:2, 0], [[0, 0.5, 0, 0.5, 0], [0, 1, 0, 0, 0]])
    assert 0 < out[2, 0, 0] < out[2, 0, 1] < 1


@pytest.mark.parametrize("active", [0, 6])
def test_other_sizes_are_refused(active: int) -> None:
    with pytest.raises(ValueError, match=f"active: expected 1 to 5, found {active}"):
        cpu_kernels.call("softmax", normal(1, 1, 5), np.ones(1, "float32"), active, normal(1, 1, 5))
    with pytest.raises(ValueError, match=r"expected out \[1, 2\], found \[1, 3\]"):
        cpu_kernels.call("silu_multiply", normal(1, 4), normal(1, 3))
    with pytest.raises(TypeError, match="x: expected float32"):
        cpu_kernels.call("rms_norm", normal(1, 4).astype("float16"), normal(4), 1e-5, normal(1, 4))
