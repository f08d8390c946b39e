"""Functions that test_nccl.py runs on the workers of a session, next to their tensors, so that gigabytes need not pass
through the controller's pipes.

    import on_workers                                 # for workers that are threads
    ProcessSession(workers, entrypoint="on_workers")  # for workers that are processes

TVM's own entry point, tvm.exec.disco_worker, cannot import modules (Session.import_python_module) unless TVM is the
runtime alone.

Row i of a tensor holds `pattern(seed + i)`. Functions are called on every worker; the tensor is None on workers without
one. All return a number, since
None cannot pass through the pipe from a worker process.
"""

from __future__ import annotations

import functools
import math
import sys
import time

import numpy as np
import tvm_ffi
from comparison import numpy_dtype, random_array
from tvm.runtime import Tensor

BLOCK = 1000003
"""Period of a pattern in elements: a prime, so that it does not align with NCCL's chunks."""


@functools.lru_cache(maxsize=64)
def block(seed: int, length: int, dtype: str) -> np.ndarray:
    """The block that a pattern of this length repeats."""
    return random_array(seed, (min(length, BLOCK),), dtype)


def pattern(seed: int, length: int, dtype: str) -> np.ndarray:
    """Random numbers of the type: the repeated block."""
    return np.resize(block(seed, length, dtype), length)


def _bits(array: np.ndarray) -> np.ndarray:
    """The same memory as integers, which are equal if and only if all bits are."""
    return array.view(f"uint{8 * array.itemsize}")


@tvm_ffi.register_global_func("tests.gpu.fill", override=True)
def fill(tensor: Tensor | None, seed: int) -> int:
    """Fills the tensor with patterns."""
    if tensor is not None:
        rows, length = tensor.shape
        tensor.copyfrom(np.stack([pattern(seed + row, length, str(tensor.dtype)) for row in range(rows)]))
    return 0


@tvm_ffi.register_global_func("tests.gpu.fill_own", override=True)
def fill_own(tensor: Tensor, seed: int) -> int:
    """`fill` with the worker's own seed: its rank is added."""
    return fill(tensor, seed + _worker())


@tvm_ffi.register_global_func("tests.gpu.poison", override=True)
def poison(tensor: Tensor) -> int:
    """Fills the tensor with NaN, which no correct result holds."""
    tensor.copyfrom(np.full(tensor.shape, np.nan, numpy_dtype(str(tensor.dtype))))
    return 0


@tvm_ffi.register_global_func("tests.gpu.wrong", override=True)
def wrong(tensor: Tensor, seed: int) -> int:
    """Number of elements whose bits differ from those that `fill` writes."""
    dtype = str(tensor.dtype)
    return sum(
        int(np.count_nonzero(_bits(row) != _bits(pattern(seed + number, row.size, dtype))))
        for number, row in enumerate(tensor.numpy())
    )


@tvm_ffi.register_global_func("tests.gpu.wrong_own", override=True)
def wrong_own(tensor: Tensor, seed: int) -> int:
    """`wrong` with the worker's own seed: its rank is added."""
    return wrong(tensor, seed + _worker())


@tvm_ffi.register_global_func("tests.gpu.error_of_reduction", override=True)
def error_of_reduction(tensor: Tensor, operation: str, seed: int, workers: int) -> float:
    """Relative error of a row with the sum, max or avg of what `fill_own` wrote: the largest over its blocks, infinite
    if one is not finite.
    """
    (got,) = tensor.numpy()
    stacked = np.stack([block(seed + worker, got.size, str(tensor.dtype)) for worker in range(workers)]).astype(
        "float64"
    )
    expected = {"sum": np.sum, "max": np.max, "avg": np.mean}[operation](stacked, axis=0)  # type: ignore[operator]
    # A partial last block is compared together with the one before it: the error of a few elements says little.
    starts = range(0, max(1, got.size // expected.size) * expected.size, expected.size)
    squares = []
    for start, stop in zip(starts, [*starts[1:], got.size]):
        wanted = expected if stop - start == expected.size else np.resize(expected, stop - start)
        difference = got[start:stop].astype("float64")
        difference -= wanted
        # Not np.linalg.norm as in `comparison`: each worker would start one thread per core, and they would wait for
        # each other.
        squares.append(np.square(difference, out=difference).sum() / np.square(wanted).sum())
    error = math.sqrt(np.max(squares))
    return error if math.isfinite(error) else math.inf


@tvm_ffi.register_global_func("tests.gpu.wrong_sum", override=True)
def wrong_sum(tensor: Tensor, seed: int, workers: int) -> int:
    """Number of elements that are not the sum of what `fill_own` wrote, in float32 and in the order of the workers."""
    (got,) = tensor.numpy()
    arrays = [block(seed + worker, got.size, str(tensor.dtype)).astype("float32") for worker in range(workers)]
    expected = functools.reduce(np.add, arrays).astype(got.dtype)
    return int(np.count_nonzero(got != expected))


@tvm_ffi.register_global_func("tests.gpu.pause", override=True)
def pause(number: int) -> int:
    """Waits for up to two milliseconds, each worker for as long as the number says for it."""
    time.sleep(np.random.default_rng((number, _worker())).random() / 500)
    return 0


def _worker() -> int:
    return tvm_ffi.get_global_func("runtime.disco.worker_rank")()


if __name__ == "__main__":
    tvm_ffi.get_global_func("runtime.disco.WorkerProcess")(*map(int, sys.argv[1:]))
