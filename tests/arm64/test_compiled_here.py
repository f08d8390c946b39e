"""What is compiled for arm64 on another processor computes there what NumPy does."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import numpy as np
import pytest

import tvm
from tvm import relax

PROGRAMS = [Path(path).absolute() for path in os.environ["PROGRAMS"].split()]


@pytest.fixture(params=PROGRAMS, ids=lambda path: path.stem)
def machine(request: pytest.FixtureRequest) -> relax.VirtualMachine:
    return relax.VirtualMachine(tvm.runtime.load_module(str(request.param)), tvm.cpu())


def test_this_is_arm64() -> None:
    assert platform.machine() == "aarch64"
    # ELF's e_machine.
    assert [path.read_bytes()[18] for path in PROGRAMS] == [183, 183]


@pytest.mark.parametrize("rows", [1, 2, 17])
def test_floats(machine: relax.VirtualMachine, rows: int) -> None:
    random = np.random.default_rng(rows)
    x, weight, bias, norm = (
        random.standard_normal(shape).astype("float32") for shape in ((rows, 48), (40, 48), (40,), (48,))
    )
    found = machine["forward"](*(tvm.runtime.tensor(each) for each in (x, weight, bias, norm))).numpy()
    normalized = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-5) * norm
    power = np.exp(normalized @ weight.T + bias)
    np.testing.assert_allclose(found, power / power.sum(axis=-1, keepdims=True), rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("rows", [1, 5])
def test_integers(machine: relax.VirtualMachine, rows: int) -> None:
    random = np.random.default_rng(rows)
    x, y = (random.integers(-128, 128, shape, dtype="int8") for shape in ((rows, 64), (64, 24)))
    found = machine["integers"](tvm.runtime.tensor(x), tvm.runtime.tensor(y)).numpy()
    np.testing.assert_array_equal(found, x.astype("int32") @ y.astype("int32"))
