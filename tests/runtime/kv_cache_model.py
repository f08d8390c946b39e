"""A paged KV cache and its NumPy reference. Every step runs on both, so tests describe steps, not how to check them.

`CacheUnderTest` drives the cache inside libtvm_runtime with the attention kernels that TVM generates for LLVM.
`Reference` computes attention over plain token lists in float64, without pages. A difference means a wrong page,
position or length in the runtime. kv_cache_scenarios.py has the tests; tests/gpu/test_paged_attention.py runs them with
GPU kernels.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from tvm.runtime import ShapeTuple

import tvm

PAGE_SIZE = 16  # The page size of the generated kernels.
ROPE_THETA = 10000.0
TOLERANCE = {"float32": 2e-5, "float16": 6e-3}


class RopeMode(enum.IntEnum):
    """How the cache encodes positions, in the runtime's numbers. TVM's own class belongs to the compiler, which may not
    be installed.
    """

    NONE = 0
    NORMAL = 1
    INLINE = 2


@dataclasses.dataclass(frozen=True)
class Heads:
    """The shape of the attention: layers, heads of keys and values, heads of queries, head size."""

    layers: int
    kv: int
    qo: int
    dim: int

    @property
    def scale(self) -> float:
        """The factor of the attention scores."""
        return self.dim**-0.5


@functools.cache
def compiled_kernels(dtype: str, shape: Heads) -> tvm.runtime.Module:
    """The kernels of one data type, compiled once per process (about three seconds)."""
    from tvm.relax.frontend.nn.llm import kv_cache as kernels

    heads = (shape.kv, shape.qo, shape.dim, dtype)
    functions = {
        "append": kernels._kv_cache_transpose_append(shape.kv, shape.dim, dtype),
        "ragged": kernels._attention_prefill_ragged_cpu(shape.kv, shape.qo, shape.dim, shape.dim, dtype, {}),
        "prefill": kernels._attention_prefill_cpu(*heads, False, {}),
        "decode": kernels._attention_decode_cpu(*heads, False, {}),
        "prefill_sliding": kernels._attention_prefill_cpu(*heads, True, {}),
        "decode_sliding": kernels._attention_decode_cpu(*heads, True, {}),
        "tree": kernels.tree_attn_cpu(*heads, {}),
        "tree_paged": kernels.tree_attn_with_paged_kv_cache_cpu(*heads, {}),
        "merge": kernels._merge_state_inplace_cpu(dtype),
        "rotary": kernels.llama_rope_with_position_map(ROPE_THETA, 1.0, shape.dim, shape.qo, shape.kv, dtype, {}),
        "copy_page": kernels._copy_single_page_cpu(shape.kv, PAGE_SIZE, shape.dim, dtype),
        "debug": kernels._kv_cache_debug_get_kv(shape.layers, shape.kv, shape.dim, dtype),
        "compact": kernels._compact_kv_copy_cpu(shape.kv, shape.dim, dtype),
    }
    module = tvm.IRModule({name: function.with_attr("global_symbol", name) for name, function in functions.items()})
    return tvm.compile(module, target="llvm")


def rope(x: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Rotary position embedding (rotate-half form) of x: (tokens, heads, dim), in float64."""
    half = x.shape[-1] // 2
    angle = positions[:, None, None] / ROPE_THETA ** (np.arange(half) / half)
    first, second = x[..., :half], x[..., half:]
    return np.concatenate(
        [first * np.cos(angle) - second * np.sin(angle), second * np.cos(angle) + first * np.sin(angle)], axis=-1
    )


def attend(q: np.ndarray, k: np.ndarray, v: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """Grouped-query attention in float64: q (n, heads, d), k and v (m, fewer heads, d), visible (n, m) bool."""
    group = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    scores = np.einsum("nhd,mhd->hnm", q, k) * q.shape[2] ** -0.5
    scores = np.where(visible[None], scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return np.einsum("hnm,mhd->nhd", weights, v)


class Reference:
    """The tokens of each sequence as plain float64 arrays: keys and values of (layer, token, head, dim)."""

    def __init__(self, heads: Heads, use_rope: bool) -> None:
        self.heads = heads
        self.use_rope = use_rope
        self.keys: dict[int, np.ndarray] = {}
        self.values: dict[int, np.ndarray] = {}

    def add(self, sequence: int) -> None:
        self.keys[sequence] = np.zeros((self.heads.layers, 0, self.heads.kv, self.heads.dim))
        self.values[sequence] = np.zeros((self.heads.layers, 0, self.heads.kv, self.heads.dim))

    def fork(self, parent: int, child: int, position: int) -> None:
        length = self.length(parent) if position == -1 else position
        self.keys[child] = self.keys[parent][:, :length].copy()
        self.values[child] = self.values[parent][:, :length].copy()

    def remove(self, sequence: int) -> None:
        del self.keys[sequence], self.values[sequence]

    def keep(self, sequence: int, tokens: Sequence[int]) -> None:
        """Keep only these tokens, in this order."""
        self.keys[sequence] = self.keys[sequence][:, list(tokens)]
        self.values[sequence] = self.values[sequence][:, list(tokens)]

    def length(self, sequence: int) -> int:
        return self.keys[sequence].shape[1]

    def forward(self, sequence: int, qkv: np.ndarray, depths: np.ndarray, visible_new: np.ndarray) -> np.ndarray:
        """Append qkv (layer, tokens, heads, dim) and return attention (layer, tokens, heads of queries, dim).

        Args:
            sequence: its id.
            qkv: the new tokens, as the cache gets them.
            depths: each new token's position, counted from the end of what is cached.
            visible_new: (tokens, tokens), which new token sees which.
        """
        past = self.length(sequence)
        tokens = qkv.shape[1]
        q, k, v = np.split(qkv.astype("float64"), [self.heads.qo, self.heads.qo + self.heads.kv], axis=2)
        if self.use_rope:
            q = np.stack([rope(layer, past + depths) for layer in q])
            k = np.stack([rope(layer, past + depths) for layer in k])
        self.keys[sequence] = np.concatenate([self.keys[sequence], k], axis=1)
        self.values[sequence] = np.concatenate([self.values[sequence], v], axis=1)
        visible = np.concatenate([np.ones((tokens, past), bool), visible_new], axis=1)
        layers = range(self.heads.layers)
        return np.stack([attend(q[i], self.keys[sequence][i], self.values[sequence][i], visible) for i in layers])


class CacheUnderTest:
    """The runtime's paged KV cache and its reference. Each method does one step on both and compares them."""

    device = tvm.cpu()

    def __init__(
        self,
        dtype: str = "float32",
        rope_mode: RopeMode = RopeMode.NORMAL,
        sliding: bool = False,
        tokens: int = 512,
        heads: Heads = Heads(layers=2, kv=2, qo=4, dim=8),
    ) -> None:
        self.dtype = dtype
        self.heads = heads
        self.random = np.random.default_rng(20260)
        self.reference = Reference(heads, use_rope=rope_mode != RopeMode.NONE)
        self.pages = -(-tokens // PAGE_SIZE) + 1 + (2 * 8 if sliding else 0)
        self.handle = self.create(ShapeTuple([8, tokens, 256, PAGE_SIZE, int(sliding)]), rope_mode)

    def create(self, sizes: ShapeTuple, rope_mode: RopeMode) -> object:
        """The cache. sizes: sequences, total tokens, tokens per prefill, tokens per page, whether windows slide."""
        heads = self.heads
        kernel = compiled_kernels(self.dtype, heads)
        none: list[object] = []
        return self._call(
            "vm.builtin.paged_attention_kv_cache_create",
            sizes,
            ShapeTuple([0, heads.layers]),
            heads.qo,
            heads.kv,
            heads.dim,
            heads.dim,
            ShapeTuple([0] * heads.layers),  # All layers are plain grouped-query attention.
            False,
            int(rope_mode),
            1,
            ROPE_THETA,
            None,
            tvm.runtime.empty((), self.dtype),
            kernel["append"],
            None,
            ["tirx", kernel["ragged"]],
            ["tirx", kernel["prefill"]],
            ["tirx", kernel["decode"]],
            ["tirx", kernel["prefill_sliding"]],
            ["tirx", kernel["decode_sliding"]],
            ["tirx", kernel["tree_paged"]],
            ["tirx", kernel["tree"]],
            none,
            [kernel["merge"]],
            kernel["rotary"],
            kernel["copy_page"],
            kernel["debug"],
            kernel["compact"],
        )

    @staticmethod
    def _call(name: str, *arguments: object) -> Any:
        return tvm.get_global_func(name)(*arguments)

    def add(self, *sequences: int) -> None:
        for sequence in sequences:
            self._call("vm.builtin.kv_state_add_sequence", self.handle, sequence)
            self.reference.add(sequence)

    def fork(self, parent: int, child: int, position: int = -1) -> None:
        self._call("vm.builtin.kv_state_fork_sequence", self.handle, parent, child, position)
        self.reference.fork(parent, child, position)

    def pop(self, sequence: int, count: int) -> None:
        self._call("vm.builtin.kv_state_popn", self.handle, sequence, count)
        self.reference.keep(sequence, range(self.reference.length(sequence) - count))

    def remove(self, sequence: int) -> None:
        self._call("vm.builtin.kv_state_remove_sequence", self.handle, sequence)
        self.reference.remove(sequence)

    def clear(self) -> None:
        self._call("vm.builtin.kv_state_clear", self.handle)
        for sequence in list(self.reference.keys):
            self.reference.remove(sequence)

    def slide(self, sequence: int, window: int, sink: int) -> None:
        self._call("vm.builtin.attention_kv_cache_enable_sliding_window_for_seq", self.handle, sequence, window, sink)

    def commit(self, leaves: dict[int, int], tree_sizes: dict[int, int], paths: dict[int, list[int]]) -> None:
        """Accept, per sequence, the tree path that ends in `leaf`; the reference keeps `paths`."""
        self._call(
            "vm.builtin.attention_kv_cache_commit_accepted_token_tree_nodes",
            self.handle,
            ShapeTuple(list(leaves)),
            ShapeTuple(list(leaves.values())),
        )
        for sequence in leaves:
            base = self.reference.length(sequence) - tree_sizes[sequence]
            self.reference.keep(sequence, [*range(base), *(base + node for node in paths[sequence])])

    @property
    def free_pages(self) -> int:
        return self._call("vm.builtin.attention_kv_cache_get_num_available_pages", self.handle)

    @property
    def used_pages(self) -> int:
        return self.pages - self.free_pages

    @property
    def total_length(self) -> int:
        return self._call("vm.builtin.attention_kv_cache_get_total_sequence_length", self.handle)

    @property
    def empty(self) -> bool:
        return bool(self._call("vm.builtin.attention_kv_cache_empty", self.handle))

    def query_positions(self) -> list[int]:
        return self._call("vm.builtin.attention_kv_cache_get_query_positions", self.handle).numpy().tolist()

    def forward(self, lengths: dict[int, int], trees: dict[int, list[int]] | None = None) -> None:
        """Runs one forward step of a batch on both; the attention of every layer must agree.

        Args:
            lengths: sequence id -> number of new tokens.
            trees: sequence id -> parent of each new token (-1: the end of what is cached); without it, chains.
        """
        arguments = [self.handle, ShapeTuple(list(lengths)), ShapeTuple(list(lengths.values()))]
        if trees is not None:
            arguments.append(ShapeTuple([parent for sequence in lengths for parent in trees[sequence]]))
        self._call("vm.builtin.kv_state_begin_forward", *arguments)

        total = sum(lengths.values())
        shape = (self.heads.layers, total, self.heads.qo + 2 * self.heads.kv, self.heads.dim)
        qkv = self.random.standard_normal(shape).astype(self.dtype)
        expected, positions, start = [], [], 0
        for sequence, length in lengths.items():
            parents = trees[sequence] if trees is not None else list(range(-1, length - 1))
            depths, visible = tree_order(parents)
            positions += (self.reference.length(sequence) + depths).tolist()
            expected.append(self.reference.forward(sequence, qkv[:, start : start + length], depths, visible))
            start += length
        attention = np.concatenate(expected, axis=1)

        is_step = trees is None and all(length == 1 for length in lengths.values())
        for layer, output in enumerate(self.attention(qkv, is_step)):
            self.compare(output, attention[layer], f"{layer=}")
        assert self.query_positions() == positions
        self._call("vm.builtin.kv_state_end_forward", self.handle)

    def attention(self, qkv: np.ndarray, is_step: bool) -> Iterable[np.ndarray]:
        """Attention of each layer (tokens, heads of queries, dim).

        Args:
            qkv: (layer, tokens, heads, dim).
            is_step: whether each sequence has one token.
        """
        for layer in range(self.heads.layers):
            shape = (qkv.shape[1], self.heads.qo, self.heads.dim)
            output = tvm.runtime.tensor(np.full(shape, np.nan, self.dtype), self.device)
            self._call(
                "vm.builtin.attention_kv_cache_attention_with_fused_qkv",
                self.handle,
                layer,
                self.heads.scale,
                tvm.runtime.tensor(qkv[layer], self.device),
                output,
            )
            yield output.numpy()

    def compare(self, got: np.ndarray, expected: np.ndarray, where: str) -> None:
        """Raises AssertionError if the cache and the reference disagree."""
        tolerance = TOLERANCE[self.dtype]
        np.testing.assert_allclose(got.astype("float64"), expected, rtol=tolerance, atol=tolerance, err_msg=where)

    def check_contents(self) -> None:
        """Asserts that the pages hold what was appended, sequence by sequence."""
        for sequence in self.reference.keys:
            length = self.reference.length(sequence)
            if not length:
                continue
            shape = (self.heads.layers, length, self.heads.kv, self.heads.dim)
            keys, values = (tvm.runtime.empty(shape, self.dtype, self.device) for _ in range(2))
            self._call("vm.builtin.attention_kv_cache_debug_get_kv", self.handle, sequence, 0, length, keys, values)
            for got, expected in ((keys, self.reference.keys), (values, self.reference.values)):
                self.compare(got.numpy(), expected[sequence], f"{sequence=}")


def tree_order(parents: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Depth of each node, and which nodes it sees (its ancestors and itself)."""
    depths = np.zeros(len(parents), "int64")
    visible = np.eye(len(parents), dtype=bool)
    for node, parent in enumerate(parents):
        if parent >= 0:
            depths[node] = depths[parent] + 1
            visible[node] |= visible[parent]
    return depths, visible
