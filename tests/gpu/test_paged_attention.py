"""The paged KV cache on the GPU, with the attention kernels that TVM generates for it, computes what NumPy computes in float64 over plain lists."""

import numpy as np
import pytest
import tvm
from comparison import relative_error
from kv_cache_model import CacheUnderTest, Heads, RopeMode
from modules import HEAD_DIM, KV_HEADS, LAYERS, PAGE_SIZE, QO_HEADS
from tvm.runtime import ShapeTuple

# float32: sines of large angles and exponentials are the fast ones (nvcc --use_fast_math). float16: keys and values are rounded once
# when they are stored, probabilities once when they are multiplied, the output once.
TOLERANCE = {"float32": 2e-4, "float16": 4e-3}


class CacheOnGpu(CacheUnderTest):
    """The model of tests/runtime with kernels for the GPU; keeps the largest relative error."""

    def __init__(self, machine, device: tvm.runtime.Device, dtype: str, **options: object) -> None:
        self.device = device
        self._machine = machine(f"paged_kv_cache_{dtype}")
        self.largest_error = 0.0
        super().__init__(dtype, heads=Heads(layers=LAYERS, kv=KV_HEADS, qo=QO_HEADS, dim=HEAD_DIM[dtype]), **options)

    def create(self, sizes: ShapeTuple, rope_mode: RopeMode) -> object:
        return self._machine["create"](sizes, ShapeTuple([int(rope_mode)]))

    def compare(self, got: np.ndarray, expected: np.ndarray, where: str) -> None:
        error = relative_error(got, expected)
        self.largest_error = max(self.largest_error, error)
        assert error <= TOLERANCE[self.dtype], f"{where}: relative error {error:.3g}, expected at most {TOLERANCE[self.dtype]:.3g}"


@pytest.fixture(params=["float16", "float32"])
def new_cache(request: pytest.FixtureRequest, machine, device, record_property):
    """new_cache(...): a cache of either data type; takes what CacheUnderTest takes."""
    made: list[CacheOnGpu] = []

    def new(**options: object) -> CacheOnGpu:
        made.append(CacheOnGpu(machine, device, request.param, **options))
        return made[-1]

    yield new
    record_property("relative_error", max(cache.largest_error for cache in made))


def decode(cache: CacheOnGpu, sequences: list[int], steps: int) -> None:
    for _ in range(steps):
        cache.forward(dict.fromkeys(sequences, 1))


@pytest.mark.parametrize("rope_mode", [RopeMode.NONE, RopeMode.NORMAL])
def test_prefill_then_decode(new_cache, rope_mode: RopeMode) -> None:
    cache = new_cache(rope_mode=rope_mode)
    cache.add(0)
    cache.forward({0: 37})
    decode(cache, [0], 20)
    cache.check_contents()


def test_inline_rope_gives_the_same_attention(new_cache) -> None:
    """The cache then holds unrotated keys, so contents are not compared; attention is."""
    cache = new_cache(rope_mode=RopeMode.INLINE)
    cache.add(0, 1)
    cache.forward({0: 19, 1: 3})
    decode(cache, [0, 1], 3)


@pytest.mark.parametrize("length", [1, PAGE_SIZE - 1, PAGE_SIZE, PAGE_SIZE + 1, 5 * PAGE_SIZE - 1])
def test_every_side_of_a_page_boundary(new_cache, length: int) -> None:
    cache = new_cache()
    cache.add(7)
    cache.forward({7: length})
    decode(cache, [7], 2)
    assert cache.used_pages == -(-(length + 2) // PAGE_SIZE)
    cache.check_contents()


def test_sequences_of_different_lengths_in_one_batch(new_cache) -> None:
    cache = new_cache()
    cache.add(3, 1, 2, 0)
    cache.forward({3: 17, 1: 1, 2: 140, 0: 64})
    decode(cache, [2, 3, 1, 0], 5)
    cache.forward({1: 6, 2: 1})
    cache.forward({3: 2})
    cache.check_contents()


def test_a_long_sequence(new_cache) -> None:
    """Prefill in chunks, the last of them odd, then decode over 80 pages."""
    cache = new_cache(tokens=2048)
    cache.add(0)
    for chunk in (256, 256, 256, 256, 211):
        cache.forward({0: chunk})
    decode(cache, [0], 8)
    cache.check_contents()


@pytest.mark.parametrize("position", [-1, 1, PAGE_SIZE, PAGE_SIZE + 5])
def test_fork_shares_the_prefix_and_then_diverges(new_cache, position: int) -> None:
    cache = new_cache()
    cache.add(0)
    cache.forward({0: 37})
    cache.fork(0, 1, position)
    decode(cache, [0, 1], 3)
    cache.forward({1: 4, 0: 2})
    cache.check_contents()


@pytest.mark.parametrize("count", [1, 6, PAGE_SIZE + 6])
def test_pop_forgets_the_last_tokens(new_cache, count: int) -> None:
    cache = new_cache()
    cache.add(0, 1)
    cache.forward({0: 37, 1: 4})
    cache.pop(0, count)
    cache.forward({0: 3, 1: 1})
    cache.check_contents()


def test_forks_of_forks_with_one_removed(new_cache) -> None:
    cache = new_cache()
    cache.add(0)
    cache.forward({0: 20})
    cache.fork(0, 1, 18)
    cache.forward({1: 20})
    cache.fork(1, 2, 33)
    cache.forward({0: 1, 1: 1, 2: 1})
    cache.remove(1)
    cache.forward({0: 1, 2: 9})
    cache.check_contents()


def test_token_tree_attends_to_ancestors_only(new_cache) -> None:
    trees = {0: [-1, 0, 0, 1, 1, 2], 1: [-1, -1, 1]}
    cache = new_cache()
    cache.add(0, 1)
    cache.forward({0: 18, 1: 3})
    cache.forward({0: 6, 1: 3}, trees)
    cache.commit({0: 5, 1: 2}, {0: 6, 1: 3}, {0: [0, 2, 5], 1: [1, 2]})
    cache.check_contents()
    cache.forward({0: 1, 1: 1})


@pytest.mark.parametrize("sink", [0, 4])
def test_sliding_window_keeps_the_sink_and_the_last_tokens(new_cache, sink: int) -> None:
    window = 24
    cache = new_cache(rope_mode=RopeMode.NONE, sliding=True)
    cache.add(0)
    cache.slide(0, window, sink)
    cache.forward({0: 20})
    for _ in range(24):
        cache.forward({0: 1})
        length = cache.reference.length(0)
        if length > window:
            cache.reference.keep(0, [*range(sink), *range(length - (window - sink), length)])
    assert cache.used_pages <= window // PAGE_SIZE + 2


def test_a_full_cache_says_so_and_lives_on(new_cache) -> None:
    cache = new_cache(tokens=2 * PAGE_SIZE)
    cache.add(0, 1)
    cache.forward({0: 3 * PAGE_SIZE})
    with pytest.raises(Exception, match="KV cache is full"):
        cache.forward({1: 1})
    cache.clear()
    cache.add(0)
    cache.forward({0: PAGE_SIZE})
    cache.check_contents()
