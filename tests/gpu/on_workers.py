"""What the workers of a session do for test_nccl.py where their tensors are, so that a gibibyte need not go through the controller's pipes.

    import on_workers                                 # for workers that are threads
    ProcessSession(workers, entrypoint="on_workers")  # for those that are processes

TVM's own entry point, tvm.exec.disco_worker, lacks what imports modules (Session.import_python_module), unless TVM is its runtime alone.

A tensor has rows, and row i holds `pattern(seed + i)`. Functions are called on every worker; the tensor is None on those that have none.
All return a number, as None does not come through the pipe from a worker that is a process.
"""

from __future__ import annotations

import functools
import math
import sys

import numpy as np
import tvm_ffi
from comparison import numpy_dtype, random_array
from tvm.runtime import Tensor

BLOCK = 1000003
"""Elements after which a pattern repeats: a prime, so no multiple of what NCCL cuts tensors into."""


@functools.lru_cache(maxsize=64)
def block(seed: int, length: int, dtype: str) -> np.ndarray:
    """What a pattern of this length repeats."""
    return random_array(seed, (min(length, BLOCK),), dtype)


def pattern(seed: int, length: int, dtype: str) -> np.ndarray:
    """Random numbers of the type, a block over and over."""
    return np.resize(block(seed, length, dtype), length)


def _bits(array: np.ndarray) -> np.ndarray:
    """The same memory as integers, which are equal where all bits are."""
    return array.view(f"uint{8 * array.itemsize}")


@tvm_ffi.register_global_func("tests.gpu.fill", override=True)
def fill(tensor: Tensor | None, seed: int) -> int:
    """Puts patterns into the tensor."""
    if tensor is not None:
        rows, length = tensor.shape
        tensor.copyfrom(np.stack([pattern(seed + row, length, str(tensor.dtype)) for row in range(rows)]))
    return 0


@tvm_ffi.register_global_func("tests.gpu.fill_own", override=True)
def fill_own(tensor: Tensor, seed: int) -> int:
    """`fill`, with a seed of the worker's own: its number is added."""
    return fill(tensor, seed + _worker())


@tvm_ffi.register_global_func("tests.gpu.poison", override=True)
def poison(tensor: Tensor) -> int:
    """Puts NaN into the tensor, which is no right result's."""
    tensor.copyfrom(np.full(tensor.shape, np.nan, numpy_dtype(str(tensor.dtype))))
    return 0


@tvm_ffi.register_global_func("tests.gpu.wrong", override=True)
def wrong(tensor: Tensor, seed: int) -> int:
    """How many elements have other bits than `fill` would give them."""
    dtype = str(tensor.dtype)
    return sum(int(np.count_nonzero(_bits(row) != _bits(pattern(seed + number, row.size, dtype)))) for number, row in enumerate(tensor.numpy()))


@tvm_ffi.register_global_func("tests.gpu.wrong_own", override=True)
def wrong_own(tensor: Tensor, seed: int) -> int:
    """`wrong`, with a seed of the worker's own: its number is added."""
    return wrong(tensor, seed + _worker())


@tvm_ffi.register_global_func("tests.gpu.error_of_reduction", override=True)
def error_of_reduction(tensor: Tensor, operation: str, seed: int, workers: int) -> float:
    """The relative error of a row that is the sum, max or avg of what `fill_own` gave the workers: the largest of its blocks, infinite where one is no number."""
    (got,) = tensor.numpy()
    stacked = np.stack([block(seed + worker, got.size, str(tensor.dtype)) for worker in range(workers)]).astype("float64")
    expected = {"sum": np.sum, "max": np.max, "avg": np.mean}[operation](stacked, axis=0)
    # What is left of a block is compared together with the one before: an error of few elements says little.
    starts = range(0, max(1, got.size // expected.size) * expected.size, expected.size)
    squares = []
    for start, stop in zip(starts, [*starts[1:], got.size]):
        wanted = expected if stop - start == expected.size else np.resize(expected, stop - start)
        difference = got[start:stop].astype("float64")
        difference -= wanted
        # Not np.linalg.norm, as `comparison` has it: its threads, as many as there are cores in each worker, would wait for each other.
        squares.append(np.square(difference, out=difference).sum() / np.square(wanted).sum())
    error = math.sqrt(np.max(squares))
    return error if math.isfinite(error) else math.inf


def _worker() -> int:
    return tvm_ffi.get_global_func("runtime.disco.worker_rank")()


if __name__ == "__main__":
    tvm_ffi.get_global_func("runtime.disco.WorkerProcess")(*map(int, sys.argv[1:]))
