"""Attention, over pages and over keys side by side, is what NumPy computes in float64."""

from __future__ import annotations

from collections.abc import Callable

import cpu_kernels
import numpy as np
import pytest

PAGE = 16
NOTHING = -5e4
SCALE = 0.2
NO_ROTATION = (0, 1.0, 1e4)


@pytest.fixture(params=cpu_kernels.AVAILABLE, autouse=True)
def kernels(request: pytest.FixtureRequest) -> str:
    cpu_kernels.use(request.param)
    name: str = request.param
    return name


def reference(q: np.ndarray, keys: np.ndarray, values: np.ndarray, causal: bool) -> tuple[np.ndarray, np.ndarray]:
    """Output [rows, heads, size] and log2 of the sums [rows, heads] of one sequence.

    Args:
        q: [rows, heads, size].
        keys: [count, key heads, size].
        values: of the same shape.
        causal: whether the last row sees all keys, and each row before it one less.
    """
    rows, heads, _ = q.shape
    count = len(keys)
    if count == 0:
        return np.zeros(q.shape), np.full((rows, heads), NOTHING)
    group = heads // keys.shape[1]
    keys, values = (np.repeat(each.astype("float64"), group, axis=1) for each in (keys, values))
    scores = np.einsum("rhd,chd->rhc", q.astype("float64"), keys) * SCALE * np.log2(np.e)
    if causal:
        seen = np.arange(count)[None, :] < count - rows + 1 + np.arange(rows)[:, None]
        scores = np.where(seen[:, None, :], scores, -np.inf)
    top = scores.max(axis=-1, keepdims=True)
    weights = np.exp2(scores - top)
    sums = weights.sum(axis=-1, keepdims=True)
    out = np.einsum("rhc,chd->rhd", weights / sums, values)
    return out, (top + np.log2(sums))[..., 0]


class Cache:
    """Keys and values of some sequences in pages, whose order is not that of the sequences."""

    def __init__(
        self, lengths: list[int], key_heads: int, size: int, kind: str, window: tuple[int, int] | None
    ) -> None:
        random = np.random.default_rng(3)
        used = [-(-length // PAGE) for length in lengths]
        self.starts = np.cumsum([0, *used]).astype("int32")
        self.numbers = random.permutation(self.starts[-1] + 3)[: self.starts[-1]].astype("int32")
        self.pages = random.standard_normal((self.starts[-1] + 3, 2, key_heads, PAGE, size)).astype(kind)
        last = [length - PAGE * (pages - 1) if pages else 0 for length, pages in zip(lengths, used)]
        self.lengths = np.array(last, "int32")
        self.window = window
        if window:
            offset, sink = ([value] * len(lengths) for value in window)
            self.lengths = np.array([last, offset, sink], "int32")

    def sequence(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Keys and values that a sequence sees, [count, heads, size]."""
        pages = self.pages[self.numbers[self.starts[index] : self.starts[index + 1]]]
        last = self.lengths[0, index] if self.window else self.lengths[index]
        count = max(len(pages) - 1, 0) * PAGE + last
        both = pages.transpose(1, 0, 3, 2, 4).reshape(2, -1, *self.pages.shape[2:3], self.pages.shape[-1])[:, :count]
        if self.window and count:
            offset, sink = self.window
            both = np.concatenate([both[:, :sink], both[:, offset:]], axis=1)
        return both[0], both[1]


@pytest.fixture(params=["float32", "float16"])
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def close(out: np.ndarray, lse: np.ndarray, expected: list[tuple[np.ndarray, np.ndarray]], kind: str) -> None:
    wanted, sums = (np.concatenate(each) for each in zip(*expected))
    np.testing.assert_allclose(out, wanted, atol=5e-6 if kind == "float32" else 4e-3, rtol=0)
    np.testing.assert_allclose(lse, sums, atol=1e-5, rtol=2e-6)


@pytest.mark.parametrize("window", [None, (20, 4)])
@pytest.mark.parametrize(("heads", "key_heads", "size"), [(9, 3, 64), (4, 4, 16), (16, 2, 128), (8, 1, 80)])
def test_decode(heads: int, key_heads: int, size: int, window: tuple[int, int] | None, kind: str) -> None:
    lengths = [37, 100, 16 if window is None else 33]
    cache = Cache(lengths, key_heads, size, kind, window)
    q = np.random.default_rng(4).standard_normal((3, heads, size)).astype(kind)
    out, lse = np.full_like(q, np.nan), np.full((3, heads), np.nan, "float32")
    positions = np.zeros(3, "int32")
    cpu_kernels.call("attention_decode", q, cache.pages, cache.starts, cache.numbers, cache.lengths, positions,
                     positions, out, lse, *NO_ROTATION, SCALE)  # fmt: skip
    close(out, lse, [reference(q[i : i + 1], *cache.sequence(i), False) for i in range(3)], kind)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("heads", "key_heads", "size"), [(9, 3, 64), (2, 2, 16), (8, 1, 80)])
def test_prefill(heads: int, key_heads: int, size: int, causal: bool, kind: str) -> None:
    lengths, rows = [70, 0 if not causal else 5, 33, 1], [40, 2, 33, 1]
    cache = Cache(lengths, key_heads, size, kind, None)
    starts = np.cumsum([0, *rows]).astype("int32")
    total = int(starts[-1])
    q = np.random.default_rng(5).standard_normal((total, heads, size)).astype(kind)
    out, lse = np.full_like(q, np.nan), np.full((total, heads), np.nan, "float32")
    cpu_kernels.call("attention_prefill", q, starts, cache.pages, cache.starts, cache.numbers, cache.lengths,
                     np.zeros(4, "int32"), np.zeros(total, "int32"), out, lse, int(causal), *NO_ROTATION,
                     SCALE)  # fmt: skip
    close(out, lse, [reference(q[starts[i] : starts[i + 1]], *cache.sequence(i), causal) for i in range(4)], kind)


@pytest.mark.parametrize("causal", [False, True])
def test_ragged(causal: bool, kind: str) -> None:
    rows, counts = [5, 17, 64], [9, 17, 100]
    random = np.random.default_rng(6)
    starts, key_starts = (np.cumsum([0, *each]).astype("int32") for each in (rows, counts))
    q, out = (random.standard_normal((86, 6, 32)).astype(kind) for _ in range(2))
    k, v = (random.standard_normal((126, 2, 32)).astype(kind) for _ in range(2))
    lse = np.full((86, 6), np.nan, "float32")
    cpu_kernels.call("attention_ragged", q, starts, k, v, key_starts, np.zeros(86, "int32"), np.zeros(3, "int32"), out,
                     lse, int(causal), *NO_ROTATION, SCALE)  # fmt: skip
    seen = [slice(key_starts[i], key_starts[i + 1]) for i in range(3)]
    parts = [reference(q[starts[i] : starts[i + 1]], k[seen[i]], v[seen[i]], causal) for i in range(3)]
    close(out, lse, parts, kind)


@pytest.mark.parametrize("spread", [1e-3, 1.0, 30.0, 300.0])
def test_scores_of_any_size(spread: float) -> None:
    random = np.random.default_rng(7)
    q = (random.standard_normal((20, 2, 16)) * spread).astype("float32")
    k, v = (random.standard_normal((50, 2, 16)).astype("float32") for _ in range(2))
    out, lse = np.zeros_like(q), np.zeros((20, 2), "float32")
    starts, key_starts = np.array([0, 20], "int32"), np.array([0, 50], "int32")
    cpu_kernels.call("attention_ragged", q, starts, k, v, key_starts, np.zeros(20, "int32"), np.zeros(1, "int32"), out,
                     lse, 0, *NO_ROTATION, SCALE)  # fmt: skip
    wanted, sums = reference(q, k, v, False)
    np.testing.assert_allclose(out, wanted, atol=1e-5 * (1 + spread))
    np.testing.assert_allclose(lse, sums, rtol=2e-6, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda given: given.update(mode=1), "expected rotations before the attention, found rotary mode 1"),
        (lambda given: given.update(q=np.zeros((1, 2, 24), "float32")), "multiple of 16 numbers, found 24"),
        (lambda given: given.update(q=np.zeros((1, 2, 16), "float16")), "all float32 or all float16"),
    ],
)
def test_what_the_kernels_do_not_have_is_refused(change: Callable[[dict], None], found: str) -> None:
    given = {"q": np.zeros((1, 2, 16), "float32"), "mode": 0}
    change(given)
    cache = Cache([3], 2, given["q"].shape[2], "float32", None)
    positions = np.zeros(1, "int32")
    with pytest.raises((ValueError, TypeError), match=found):
        cpu_kernels.call("attention_decode", given["q"], cache.pages, cache.starts, cache.numbers, cache.lengths,
                         positions, positions, np.zeros_like(given["q"]), np.zeros((1, 2), "float32"), given["mode"],
                         1.0, 1e4, SCALE)  # fmt: skip


WRONG = {
    "heads of another size": ({"size": 32}, "expected keys for 4 heads of 16 numbers, found 2 of 32"),
    "heads that are no multiple": ({"heads": 5}, "expected keys for 5 heads"),
    "no heads": ({"key_heads": 0}, "found 0 of 16"),
    "a small output": ({"out_rows": 1}, "out: expected another shape"),
    "more sequences than rows": ({"rows": 1}, "expected 2 sequences within 1 rows"),
    "a page that is not there": ({"page": 99}, "page_values: expected numbers below 6, found 99"),
}


@pytest.mark.parametrize("what", WRONG)
def test_arguments_that_do_not_fit_are_refused(what: str) -> None:
    changed, message = WRONG[what]
    sizes = {"heads": 4, "key_heads": 2, "size": 16, "rows": 2, "out_rows": 2, "page": 0} | changed
    cache = Cache([3, 17], sizes["key_heads"], sizes["size"], "float32", None)
    cache.numbers[0] = sizes["page"] or cache.numbers[0]
    q = np.zeros((sizes["rows"], sizes["heads"], 16), "float32")
    out = np.zeros((min(sizes["rows"], sizes["out_rows"]), sizes["heads"], 16), "float32")
    lse, positions = np.zeros((sizes["rows"], sizes["heads"]), "float32"), np.zeros(2, "int32")
    with pytest.raises(ValueError, match=message):
        cpu_kernels.call("attention_decode", q, cache.pages, cache.starts, cache.numbers, cache.lengths, positions,
                         positions, out, lse, *NO_ROTATION, SCALE)  # fmt: skip
