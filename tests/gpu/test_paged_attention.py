"""The paged KV cache on the GPU, with the attention kernels that TVM generates for it: the tests of tests/runtime, and
a long sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from cache_on_gpu import check_a_long_sequence, new_caches
from conftest import Machine
from kv_cache_model import Heads
from kv_cache_scenarios import *  # noqa: F403
from kv_cache_scenarios import NewCache

import tvm

# As BUILD.bazel compiles the modules.
HEADS = {"float16": Heads(layers=2, kv=2, qo=8, dim=128), "float32": Heads(layers=2, kv=2, qo=8, dim=64)}


@pytest.fixture(params=["float16", "float32"])
def new_cache(
    request: pytest.FixtureRequest,
    machine: Machine,
    device: tvm.runtime.Device,
    record_property: Callable[[str, object], None],
) -> Iterator[NewCache]:
    dtype = request.param
    yield from new_caches(machine(f"paged_kv_cache_{dtype}"), device, dtype, HEADS[dtype], record_property)


def test_a_long_sequence(new_cache: NewCache) -> None:
    check_a_long_sequence(new_cache)
