"""Tests of the paged KV cache on any device: it computes the same as NumPy attention over plain token lists.

A test file imports all of them and defines the fixture `new_cache`, whose arguments are those of CacheUnderTest:
test_paged_kv_cache.py for the CPU, tests/gpu/test_paged_attention.py for a GPU.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from kv_cache_model import PAGE_SIZE, CacheUnderTest, RopeMode

NewCache = Callable[..., CacheUnderTest]


def decode(cache: CacheUnderTest, sequences: list[int], steps: int) -> None:
    """Appends one token per step to each sequence."""
    for _ in range(steps):
        cache.forward(dict.fromkeys(sequences, 1))


@pytest.mark.parametrize("rope_mode", [RopeMode.NONE, RopeMode.NORMAL])
def test_prefill_then_decode(new_cache: NewCache, rope_mode: RopeMode) -> None:
    cache = new_cache(rope_mode=rope_mode)
    cache.add(0)
    cache.forward({0: 37})
    decode(cache, [0], 20)
    cache.check_contents()


def test_inline_rope_gives_the_same_attention(new_cache: NewCache) -> None:
    """The cache then holds unrotated keys, so only attention is compared, not contents."""
    cache = new_cache(rope_mode=RopeMode.INLINE)
    cache.add(0, 1)
    cache.forward({0: 19, 1: 3})
    decode(cache, [0, 1], 3)


@pytest.mark.parametrize("length", [1, PAGE_SIZE - 1, PAGE_SIZE, PAGE_SIZE + 1, 2 * PAGE_SIZE, 5 * PAGE_SIZE - 1])
def test_every_side_of_a_page_boundary(new_cache: NewCache, length: int) -> None:
    cache = new_cache()
    cache.add(7)
    cache.forward({7: length})
    assert cache.used_pages == -(-length // PAGE_SIZE)
    decode(cache, [7], 2)
    assert cache.used_pages == -(-(length + 2) // PAGE_SIZE)
    cache.check_contents()


def test_chunked_prefill_equals_one_prefill(new_cache: NewCache) -> None:
    cache = new_cache()
    cache.add(0)
    for chunk in (3, 13, 1, 16, 30):
        cache.forward({0: chunk})
    cache.check_contents()
    assert cache.total_length == 63


def test_sequences_of_different_lengths_in_one_batch(new_cache: NewCache) -> None:
    cache = new_cache()
    cache.add(3, 1, 2, 0)
    cache.forward({3: 17, 1: 1, 2: 140, 0: 64})
    decode(cache, [2, 3, 1, 0], 5)
    cache.forward({1: 6, 2: 1})
    cache.forward({3: 2})
    cache.check_contents()
    assert cache.total_length == 17 + 1 + 140 + 64 + 4 * 5 + 7 + 2


@pytest.mark.parametrize("position", [-1, 0, 1, PAGE_SIZE, PAGE_SIZE + 5, 2 * PAGE_SIZE, 37])
def test_fork_shares_the_prefix_and_then_diverges(new_cache: NewCache, position: int) -> None:
    cache = new_cache()
    cache.add(0)
    cache.forward({0: 37})
    cache.fork(0, 1, position)
    decode(cache, [0, 1], 3)
    cache.forward({1: 4, 0: 2})
    cache.check_contents()


def test_fork_does_not_copy_whole_pages(new_cache: NewCache) -> None:
    cache = new_cache()
    cache.add(0)
    cache.forward({0: 3 * PAGE_SIZE})
    before = cache.used_pages
    for child in (1, 2, 3):
        cache.fork(0, child)
    assert cache.used_pages == before
    decode(cache, [0, 1, 2, 3], 1)
    assert cache.used_pages == before + 4


def test_forks_of_forks(new_cache: NewCache) -> None:
    cache = new_cache()
    cache.add(0)
    cache.forward({0: 20})
    cache.fork(0, 1, 18)
    cache.forward({1: 20})
    cache.fork(1, 2, 33)
    cache.fork(2, 3, 17)
    cache.forward({0: 1, 1: 1, 2: 1, 3: 1})
    cache.forward({3: 9, 0: 2})
    cache.remove(1)
    cache.forward({0: 1, 2: 9, 3: 1})
    cache.check_contents()


@pytest.mark.parametrize("count", [0, 1, 5, 6, PAGE_SIZE + 6, 37])
def test_pop_forgets_the_last_tokens(new_cache: NewCache, count: int) -> None:
    cache = new_cache()
    cache.add(0, 1)
    cache.forward({0: 37, 1: 4})
    cache.pop(0, count)
    assert cache.total_length == 41 - count
    assert cache.used_pages == -(-(37 - count) // PAGE_SIZE) + 1
    cache.forward({0: 3, 1: 1})
    cache.check_contents()


def test_pop_into_a_shared_prefix_leaves_the_other_branch_alone(new_cache: NewCache) -> None:
    cache = new_cache()
    cache.add(0)
    cache.forward({0: 40})
    cache.fork(0, 1, 36)
    cache.forward({1: 2})
    cache.pop(1, 20)
    decode(cache, [0, 1], 2)
    cache.check_contents()


def test_removing_and_clearing_free_every_page(new_cache: NewCache) -> None:
    cache = new_cache()
    assert cache.empty and cache.free_pages == cache.pages
    cache.add(0, 1)
    cache.forward({0: 50, 1: 9})
    cache.fork(0, 2, 33)
    assert not cache.empty
    for sequence in (0, 2, 1):
        cache.remove(sequence)
    assert cache.empty and cache.free_pages == cache.pages

    cache.add(0)
    cache.forward({0: 21})
    cache.clear()
    assert cache.empty and cache.free_pages == cache.pages
    cache.add(0)
    cache.forward({0: 21})
    cache.check_contents()


def test_freed_pages_are_reused_in_any_order(new_cache: NewCache) -> None:
    cache = new_cache(tokens=8 * PAGE_SIZE)
    for round_ in range(4):
        cache.add(0, 1, 2)
        cache.forward({0: 30 + round_, 1: 20, 2: 40})
        cache.remove(round_ % 3)
        survivors = [sequence for sequence in range(3) if sequence != round_ % 3]
        cache.forward(dict.fromkeys(survivors, 17))
        cache.check_contents()
        for sequence in survivors:
            cache.remove(sequence)
    assert cache.empty


def test_token_tree_attends_to_ancestors_only(new_cache: NewCache) -> None:
    trees = {0: [-1, 0, 0, 1, 1, 2], 1: [-1, -1, 1]}
    cache = new_cache()
    cache.add(0, 1)
    cache.forward({0: 18, 1: 3})
    cache.forward({0: 6, 1: 3}, trees)
    # Both accepted paths have gaps: the cache must compact their tokens before it drops the rest.
    cache.commit({0: 5, 1: 2}, {0: 6, 1: 3}, {0: [0, 2, 5], 1: [1, 2]})
    assert cache.total_length == 18 + 3 + 3 + 2
    cache.check_contents()
    cache.forward({0: 1, 1: 1})


@pytest.mark.parametrize("sink", [0, 4])
def test_sliding_window_keeps_the_sink_and_the_last_tokens(new_cache: NewCache, sink: int) -> None:
    window = 24
    cache = new_cache(rope_mode=RopeMode.NONE, sliding=True)
    cache.add(0)
    cache.slide(0, window, sink)
    cache.forward({0: 20})
    for _ in range(40):
        cache.forward({0: 1})
        length = cache.reference.length(0)
        if length > window:
            cache.reference.keep(0, [*range(sink), *range(length - (window - sink), length)])
        assert cache.total_length == min(length, window)
    assert cache.used_pages <= window // PAGE_SIZE + 2


def test_a_full_cache_is_an_error_and_stays_usable(new_cache: NewCache) -> None:
    cache = new_cache(tokens=2 * PAGE_SIZE)
    cache.add(0, 1)
    cache.forward({0: 3 * PAGE_SIZE})
    with pytest.raises(Exception, match="KV cache is full"):
        cache.forward({1: 1})
    cache.clear()
    cache.add(0)
    cache.forward({0: PAGE_SIZE})
    cache.check_contents()


@pytest.mark.parametrize(
    ("misuse", "message"),
    [
        (lambda cache: cache.add(0), "already in the KV cache"),
        (lambda cache: cache.fork(9, 10), "parent sequence .* cannot be found"),
        (lambda cache: cache.fork(0, 1, 6), "should not exceed the total length"),
        (lambda cache: cache.pop(0, 6), "exceeds the whole sequence length"),
        (lambda cache: cache.remove(9), "cannot be found"),
        (lambda cache: cache.slide(0, 8, 2), "does not support sliding window"),
    ],
    ids=["add twice", "fork unknown", "fork beyond end", "pop too many", "remove unknown", "slide unsupported"],
)
def test_misuse_is_refused_and_changes_nothing(
    new_cache: NewCache, misuse: Callable[[CacheUnderTest], None], message: str
) -> None:
    cache = new_cache()
    cache.add(0)
    cache.forward({0: 5})
    with pytest.raises(RuntimeError, match=message):
        misuse(cache)
    cache.forward({0: 1})
    cache.check_contents()
