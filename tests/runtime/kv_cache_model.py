"""A paged KV cache and its NumPy twin: every step runs on both, so a test only says what happens, not how it is checked.

`CacheUnderTest` drives the cache inside libtvm_runtime with the attention kernels that TVM itself generates for LLVM;
`Reference` is attention over plain lists of tokens in float64 and knows nothing of pages. A difference is a wrong page,
position or length in the runtime.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import tvm
from tvm.relax.frontend.nn.llm import kv_cache as kernels
from tvm.runtime import ShapeTuple

PAGE_SIZE = 16  # The page size that the generated kernels are written for.
LAYERS = 2
KV_HEADS = 2
QO_HEADS = 4
HEAD_DIM = 8
ROPE_THETA = 10000.0
SM_SCALE = HEAD_DIM**-0.5
TOLERANCE = {"float32": 2e-5, "float16": 6e-3}

RopeMode = kernels.RopeMode


@functools.lru_cache(maxsize=None)
def compiled_kernels(dtype: str) -> tvm.runtime.Module:
    """The kernels of one data type, compiled once per process (about three seconds)."""
    heads = (KV_HEADS, QO_HEADS, HEAD_DIM, dtype)
    functions = {
        "append": kernels._kv_cache_transpose_append(KV_HEADS, HEAD_DIM, dtype),
        "ragged": kernels._attention_prefill_ragged_cpu(KV_HEADS, QO_HEADS, HEAD_DIM, HEAD_DIM, dtype, {}),
        "prefill": kernels._attention_prefill_cpu(*heads, False, {}),
        "decode": kernels._attention_decode_cpu(*heads, False, {}),
        "prefill_sliding": kernels._attention_prefill_cpu(*heads, True, {}),
        "decode_sliding": kernels._attention_decode_cpu(*heads, True, {}),
        "tree": kernels.tree_attn_cpu(*heads, {}),
        "tree_paged": kernels.tree_attn_with_paged_kv_cache_cpu(*heads, {}),
        "merge": kernels._merge_state_inplace_cpu(dtype),
        "rotary": kernels.llama_rope_with_position_map(ROPE_THETA, 1.0, HEAD_DIM, QO_HEADS, KV_HEADS, dtype, {}),
        "copy_page": kernels._copy_single_page_cpu(KV_HEADS, PAGE_SIZE, HEAD_DIM, dtype),
        "debug": kernels._kv_cache_debug_get_kv(LAYERS, KV_HEADS, HEAD_DIM, dtype),
        "compact": kernels._compact_kv_copy_cpu(KV_HEADS, HEAD_DIM, dtype),
    }
    module = tvm.IRModule({name: function.with_attr("global_symbol", name) for name, function in functions.items()})
    return tvm.compile(module, target="llvm")


def rope(x: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Rotary position embedding (rotate-half form) of x: (tokens, heads, HEAD_DIM), in float64."""
    half = HEAD_DIM // 2
    angle = positions[:, None, None] / ROPE_THETA ** (np.arange(half) / half)
    first, second = x[..., :half], x[..., half:]
    return np.concatenate(
        [first * np.cos(angle) - second * np.sin(angle), second * np.cos(angle) + first * np.sin(angle)], axis=-1
    )


def attend(q: np.ndarray, k: np.ndarray, v: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """Grouped-query attention in float64: q (n, QO_HEADS, d), k and v (m, KV_HEADS, d), visible (n, m) bool."""
    group = QO_HEADS // KV_HEADS
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    scores = np.einsum("nhd,mhd->hnm", q, k) * SM_SCALE
    scores = np.where(visible[None], scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return np.einsum("hnm,mhd->nhd", weights, v)


class Reference:
    """The tokens of each sequence as plain float64 arrays: keys and values of (layer, token, head, dim)."""

    def __init__(self, use_rope: bool) -> None:
        self.use_rope = use_rope
        self.keys: dict[int, np.ndarray] = {}
        self.values: dict[int, np.ndarray] = {}

    def add(self, sequence: int) -> None:
        self.keys[sequence] = np.zeros((LAYERS, 0, KV_HEADS, HEAD_DIM))
        self.values[sequence] = np.zeros((LAYERS, 0, KV_HEADS, HEAD_DIM))

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
        """Append qkv (layer, tokens, heads, dim) and return attention (layer, tokens, QO_HEADS, dim).

        Args:
            sequence: its id.
            qkv: the new tokens, as the cache gets them.
            depths: each new token's position, counted from the end of what is cached.
            visible_new: (tokens, tokens), which new token sees which.
        """
        past = self.length(sequence)
        tokens = qkv.shape[1]
        q, k, v = np.split(qkv.astype("float64"), [QO_HEADS, QO_HEADS + KV_HEADS], axis=2)
        if self.use_rope:
            q = np.stack([rope(layer, past + depths) for layer in q])
            k = np.stack([rope(layer, past + depths) for layer in k])
        self.keys[sequence] = np.concatenate([self.keys[sequence], k], axis=1)
        self.values[sequence] = np.concatenate([self.values[sequence], v], axis=1)
        visible = np.concatenate([np.ones((tokens, past), bool), visible_new], axis=1)
        return np.stack(
            [attend(q[i], self.keys[sequence][i], self.values[sequence][i], visible) for i in range(LAYERS)]
        )


class CacheUnderTest:
    """The runtime's paged KV cache beside its reference; each method does one step on both and compares."""

    def __init__(
        self, dtype: str = "float32", rope_mode: RopeMode = RopeMode.NORMAL, sliding: bool = False, tokens: int = 512
    ) -> None:
        self.dtype = dtype
        self.random = np.random.default_rng(20260)
        self.reference = Reference(use_rope=rope_mode != RopeMode.NONE)
        self.pages = -(-tokens // PAGE_SIZE) + 1 + (2 * 8 if sliding else 0)
        kernel = compiled_kernels(dtype)
        none: list[object] = []
        self.handle = self._call(
            "vm.builtin.paged_attention_kv_cache_create",
            ShapeTuple([8, tokens, 256, PAGE_SIZE, int(sliding)]),
            ShapeTuple([0, LAYERS]),
            QO_HEADS,
            KV_HEADS,
            HEAD_DIM,
            HEAD_DIM,
            ShapeTuple([int(kernels.AttnKind.MHA)] * LAYERS),
            False,
            int(rope_mode),
            1,
            ROPE_THETA,
            None,
            tvm.runtime.empty((), dtype),
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
    def _call(name: str, *arguments: object) -> object:
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
        """One forward step of a batch on both sides; attention of every layer must agree.

        Args:
            lengths: sequence id -> number of new tokens.
            trees: sequence id -> parent of each new token (-1: the end of what is cached); without it, chains.
        """
        arguments = [self.handle, ShapeTuple(list(lengths)), ShapeTuple(list(lengths.values()))]
        if trees is not None:
            arguments.append(ShapeTuple([parent for sequence in lengths for parent in trees[sequence]]))
        self._call("vm.builtin.kv_state_begin_forward", *arguments)

        total = sum(lengths.values())
        shape = (LAYERS, total, QO_HEADS + 2 * KV_HEADS, HEAD_DIM)
        qkv = self.random.standard_normal(shape).astype(self.dtype)
        expected, positions, start = [], [], 0
        for sequence, length in lengths.items():
            parents = trees[sequence] if trees is not None else list(range(-1, length - 1))
            depths, visible = tree_order(parents)
            positions += (self.reference.length(sequence) + depths).tolist()
            expected.append(self.reference.forward(sequence, qkv[:, start : start + length], depths, visible))
            start += length
        expected = np.concatenate(expected, axis=1)

        assert self.query_positions() == positions
        for layer in range(LAYERS):
            output = tvm.runtime.empty((total, QO_HEADS, HEAD_DIM), self.dtype)
            self._call(
                "vm.builtin.attention_kv_cache_attention_with_fused_qkv",
                self.handle,
                layer,
                SM_SCALE,
                tvm.runtime.tensor(qkv[layer]),
                output,
            )
            tolerance = TOLERANCE[self.dtype]
            np.testing.assert_allclose(
                output.numpy().astype("float64"), expected[layer], rtol=tolerance, atol=tolerance, err_msg=f"{layer=}"
            )
        self._call("vm.builtin.kv_state_end_forward", self.handle)

    def check_contents(self) -> None:
        """What the pages hold, read back sequence by sequence, is what was appended."""
        for sequence in self.reference.keys:
            length = self.reference.length(sequence)
            if not length:
                continue
            keys, values = (tvm.runtime.empty((LAYERS, length, KV_HEADS, HEAD_DIM), self.dtype) for _ in range(2))
            self._call("vm.builtin.attention_kv_cache_debug_get_kv", self.handle, sequence, 0, length, keys, values)
            tolerance = TOLERANCE[self.dtype]
            for got, expected in ((keys, self.reference.keys), (values, self.reference.values)):
                np.testing.assert_allclose(
                    got.numpy(), expected[sequence], rtol=tolerance, atol=tolerance, err_msg=f"{sequence=}"
                )


def tree_order(parents: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Depth of each node, and which node sees which (its ancestors and itself)."""
    depths = np.zeros(len(parents), "int64")
    visible = np.eye(len(parents), dtype=bool)
    for node, parent in enumerate(parents):
        if parent >= 0:
            depths[node] = depths[parent] + 1
            visible[node] |= visible[parent]
    return depths, visible
