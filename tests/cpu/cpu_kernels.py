"""Loads the kernels, and calls them on NumPy's arrays."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

import numpy as np

import tvm

ctypes.CDLL(str(Path(os.environ["MLC_CPU_KERNELS"]).absolute()), ctypes.RTLD_GLOBAL)

AVAILABLE = [str(name) for name in tvm.get_global_func("mlc_bazel.cpu.available_kernels")()]


def call(name: str, *arguments: Any) -> None:
    """Calls a kernel. Arrays are inputs and outputs, as they are in memory."""
    given = [tvm.runtime.tensor(each) if isinstance(each, np.ndarray) else each for each in arguments]
    tvm.get_global_func(f"mlc_bazel.cpu.{name}")(*given)
    for array, tensor in zip(arguments, given):
        if isinstance(array, np.ndarray):
            array[...] = tensor.numpy()


def use(kernels: str) -> None:
    tvm.get_global_func("mlc_bazel.cpu.use_kernels")(kernels)
    assert tvm.get_global_func("mlc_bazel.cpu.kernels")() == kernels
