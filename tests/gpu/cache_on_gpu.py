"""A paged KV cache on the GPU under the tests of tests/runtime, whichever kernels its module has."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from comparison import relative_error
from tvm.runtime import Device, ShapeTuple
from tvm.runtime.vm import VirtualMachine

pytest.register_assert_rewrite("kv_cache_model", "kv_cache_scenarios")

from kv_cache_model import CacheUnderTest, Heads, RopeMode
from kv_cache_scenarios import NewCache, decode

TOLERANCE = {"float32": 2e-4, "float16": 4e-3, "bfloat16": 3e-2}
"""float32: sines of large angles and exponentials are the fast ones (nvcc --use_fast_math). The others: keys and values
are rounded once when they are stored, probabilities once when they are multiplied, the output once.
"""


class CacheOnGpu(CacheUnderTest):
    """The model of tests/runtime with kernels for the GPU; keeps the largest relative error."""

    def __init__(self, module: VirtualMachine, device: Device, dtype: str, heads: Heads, **options: object) -> None:
        self.device = device
        self._module = module
        self.largest_error = 0.0
        super().__init__(dtype, heads=heads, **options)  # type: ignore[arg-type]

    def create(self, sizes: ShapeTuple, rope_mode: RopeMode) -> object:
        return self._module["create"](sizes, ShapeTuple([int(rope_mode)]))

    def compare(self, got: np.ndarray, expected: np.ndarray, where: str) -> None:
        error, tolerance = relative_error(got, expected), TOLERANCE[self.dtype]
        self.largest_error = max(self.largest_error, error)
        assert error <= tolerance, f"{where}: relative error {error:.3g}, expected at most {tolerance:.3g}"


def new_caches(
    module: VirtualMachine,
    device: Device,
    dtype: str,
    heads: Heads,
    record_property: Callable[[str, object], None],
) -> Iterator[NewCache]:
    """Yields new_cache(...), which takes the arguments of CacheUnderTest; for a fixture of that name."""
    made: list[CacheOnGpu] = []

    def new(**options: object) -> CacheOnGpu:
        made.append(CacheOnGpu(module, device, dtype, heads, **options))
        return made[-1]

    yield new
    record_property("relative_error", max(cache.largest_error for cache in made))


def check_a_long_sequence(new_cache: NewCache) -> None:
    """Prefill in chunks, the last of them odd, then decode over 80 pages."""
    cache = new_cache(tokens=2048)
    cache.add(0)
    for chunk in (256, 256, 256, 256, 211):
        cache.forward({0: chunk})
    decode(cache, [0], 8)
    cache.check_contents()
