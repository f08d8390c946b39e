"""The paged KV cache of libtvm_runtime, with the attention kernels that TVM generates for the CPU."""

from __future__ import annotations

import functools

import pytest

pytest.register_assert_rewrite("kv_cache_model", "kv_cache_scenarios")

from kv_cache_model import CacheUnderTest
from kv_cache_scenarios import *  # noqa: F403
from kv_cache_scenarios import NewCache


@pytest.fixture(params=["float32", "float16"])
def new_cache(request: pytest.FixtureRequest) -> NewCache:
    """new_cache(...): a cache of either data type; takes the arguments of CacheUnderTest."""
    return functools.partial(CacheUnderTest, request.param)
