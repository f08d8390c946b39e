"""The paged KV cache on the GPU with FlashInfer's attention, as models for GPUs have it: the tests of tests/runtime for
each size of head and type, and for queries that share keys and values by 1, 2, 3, 4, 7 and 8.
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

# FlashInfer's attention rotates nothing: a model that wants that in the attention gets TVM's kernels.
del test_inline_rope_gives_the_same_attention  # type: ignore[name-defined]  # noqa: F821

# As BUILD.bazel compiles the modules: type, size of heads, heads of queries, of keys.
SHAPES = [
    ("float16", 64, 9, 3),
    ("float16", 128, 8, 2),
    ("float16", 128, 7, 1),
    ("float16", 256, 8, 1),
    ("bfloat16", 64, 4, 4),
    ("bfloat16", 128, 4, 2),
]


@pytest.fixture(params=SHAPES, ids=lambda shape: "_".join(map(str, shape)))
def new_cache(
    request: pytest.FixtureRequest,
    machine: Machine,
    device: tvm.runtime.Device,
    record_property: Callable[[str, object], None],
) -> Iterator[NewCache]:
    dtype, dim, heads, kv_heads = request.param
    shape = Heads(layers=2, kv=kv_heads, qo=heads, dim=dim)
    module = machine("flashinfer_" + "_".join(map(str, request.param)))
    yield from new_caches(module, device, dtype, shape, record_property)


def test_a_long_sequence(new_cache: NewCache) -> None:
    check_a_long_sequence(new_cache)
