"""The paged KV cache on the GPU, with the attention kernels that TVM generates for it: the tests of tests/runtime, and
a long sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from comparison import relative_error
from conftest import Machine
from tvm.runtime import ShapeTuple

import tvm

pytest.register_assert_rewrite("kv_cache_model", "kv_cache_scenarios")

from kv_cache_model import CacheUnderTest, Heads, RopeMode
from kv_cache_scenarios import *  # noqa: F403
from kv_cache_scenarios import NewCache, decode

# As BUILD.bazel compiles the modules.
HEADS = {"float16": Heads(layers=2, kv=2, qo=8, dim=128), "float32": Heads(layers=2, kv=2, qo=8, dim=64)}

# float32: sines of large angles and exponentials are the fast ones (nvcc --use_fast_math). float16: keys and values are
# rounded once
# when they are stored, probabilities once when they are multiplied, the output once.
TOLERANCE = {"float32": 2e-4, "float16": 4e-3}


class CacheOnGpu(CacheUnderTest):
    """The model of tests/runtime with kernels for the GPU; keeps the largest relative error."""

    def __init__(self, machine: Machine, device: tvm.runtime.Device, dtype: str, **options: object) -> None:
        self.device = device
        self._machine = machine(f"paged_kv_cache_{dtype}")
        self.largest_error = 0.0
        super().__init__(dtype, heads=HEADS[dtype], **options)  # type: ignore[arg-type]

    def create(self, sizes: ShapeTuple, rope_mode: RopeMode) -> object:
        return self._machine["create"](sizes, ShapeTuple([int(rope_mode)]))

    def compare(self, got: np.ndarray, expected: np.ndarray, where: str) -> None:
        error, tolerance = relative_error(got, expected), TOLERANCE[self.dtype]
        self.largest_error = max(self.largest_error, error)
        assert error <= tolerance, f"{where}: relative error {error:.3g}, expected at most {tolerance:.3g}"


@pytest.fixture(params=["float16", "float32"])
def new_cache(
    request: pytest.FixtureRequest,
    machine: Machine,
    device: tvm.runtime.Device,
    record_property: Callable[[str, object], None],
) -> Iterator[NewCache]:
    """new_cache(...): a cache of either data type; takes the arguments of CacheUnderTest."""
    made: list[CacheOnGpu] = []

    def new(**options: object) -> CacheOnGpu:
        made.append(CacheOnGpu(machine, device, request.param, **options))
        return made[-1]

    yield new
    record_property("relative_error", max(cache.largest_error for cache in made))


def test_a_long_sequence(new_cache: NewCache) -> None:
    """Prefill in chunks, the last of them odd, then decode over 80 pages."""
    cache = new_cache(tokens=2048)
    cache.add(0)
    for chunk in (256, 256, 256, 256, 211):
        cache.forward({0: chunk})
    decode(cache, [0], 8)
    cache.check_contents()
