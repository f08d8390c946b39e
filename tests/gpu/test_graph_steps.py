"""Steps of decoding as one CUDA graph, with the attention in it: the tests of tests/runtime, and which steps use the
graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest
import tvm_ffi
from cache_on_gpu import CacheOnGpu, check_a_long_sequence
from conftest import MODULES
from kv_cache_model import Heads
from kv_cache_scenarios import *  # noqa: F403
from kv_cache_scenarios import NewCache, decode
from tvm.runtime.vm import VirtualMachine

import tvm

# A cache with these is not compiled.
del test_inline_rope_gives_the_same_attention  # type: ignore[name-defined]  # noqa: F821

# As BUILD.bazel compiles the modules: type, size of heads, heads of queries, of keys. TVM has another kernel for the
# second, if the step is no graph.
SHAPES = [("float16", 128, 8, 2), ("bfloat16", 64, 4, 4)]

BEGIN = "mlc_bazel.begin_step"


class CacheInSteps(CacheOnGpu):
    """A cache whose steps go through the model's function; until a sequence is forked, each of them uses its graph."""

    is_forked = False
    is_first = True

    def __init__(self, used: list[bool], *arguments: Any, **options: Any) -> None:
        self.used = used
        self.is_sliding = options.get("sliding", False)
        super().__init__(*arguments, **options)

    def fork(self, parent: int, child: int, position: int = -1) -> None:
        self.is_forked = True
        super().fork(parent, child, position)

    def attention(self, qkv: np.ndarray, is_step: bool) -> Iterable[np.ndarray]:
        if not is_step:
            return super().attention(qkv, is_step)
        layers, tokens, heads, dim = qkv.shape
        joined = np.ascontiguousarray(qkv.transpose(1, 0, 2, 3)).reshape(tokens, layers * heads, dim)
        found = self._module["batch_decode"](tvm.runtime.tensor(joined, self.device), self.handle).numpy()
        assert self.used[-1] or self.is_forked or self.is_sliding or not self.is_first
        return found.reshape(tokens, layers, self.heads.qo, dim).transpose(1, 0, 2, 3)


@pytest.fixture
def used() -> Iterator[list[bool]]:
    """Whether each step used the graph."""
    begin = tvm.get_global_func(BEGIN)
    found: list[bool] = []

    def recorded(*arguments: object) -> bool:
        found.append(bool(begin(*arguments)))
        return found[-1]

    tvm_ffi.register_global_func(BEGIN, recorded, override=True)
    yield found
    tvm_ffi.register_global_func(BEGIN, begin, override=True)


@pytest.fixture(params=SHAPES, ids=lambda shape: "_".join(map(str, shape)))
def new_cache(
    request: pytest.FixtureRequest,
    used: list[bool],
    device: tvm.runtime.Device,
    record_property: Callable[[str, object], None],
) -> Iterator[NewCache]:
    dtype, dim, heads, kv_heads = request.param
    shape = Heads(layers=2, kv=kv_heads, qo=heads, dim=dim)
    library = MODULES / f"cache_with_steps_{'_'.join(map(str, request.param))}.so"
    made: list[CacheInSteps] = []

    def new(**options: object) -> CacheInSteps:
        # A machine of its own for each cache, because its graphs are for one.
        module = VirtualMachine(tvm.runtime.load_module(str(library)), device)
        made.append(CacheInSteps(used, module, device, dtype, shape, **options))
        return made[-1]

    yield new
    record_property("relative_error", max(cache.largest_error for cache in made))


def test_a_long_sequence(new_cache: NewCache, used: list[bool]) -> None:
    check_a_long_sequence(new_cache)
    assert used
    assert all(used)


def test_every_number_of_sequences_has_its_graph(new_cache: NewCache, used: list[bool]) -> None:
    cache = new_cache()
    for sequence in range(4):
        cache.add(sequence)
        cache.forward({sequence: 3 + 14 * sequence})
        decode(cache, range(sequence + 1), 20)
    # Back to fewer, whose graphs were captured when less was in the cache.
    for sequence in (3, 2, 1):
        cache.remove(sequence)
        decode(cache, range(sequence), 5)
    assert len(used) == 4 * 20 + 3 * 5
    assert all(used)


def test_sequences_with_a_common_prefix_have_no_graph(new_cache: NewCache, used: list[bool]) -> None:
    cache = new_cache()
    cache.add(0)
    cache.forward({0: 40})
    cache.fork(0, 1, 32)
    cache.forward({1: 3})
    decode(cache, [0, 1], 3)
    assert used == [False] * 3


def test_another_cache_has_no_graph(new_cache: NewCache, used: list[bool]) -> None:
    first = new_cache()
    first.add(0)
    first.forward({0: 5})
    decode(first, [0], 2)
    second = new_cache()
    second._module, second.is_first = first._module, False
    second.add(0)
    second.forward({0: 9})
    decode(second, [0], 2)
    decode(first, [0], 2)
    assert used == [True, True, False, False, True, True]
