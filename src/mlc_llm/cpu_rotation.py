"""Rotates queries and keys for CPUs with one cosine and one sine for each position of a head, not for each head.

TVM's function computes both again for every head of every token, on one thread: a tenth of a prompt's time. Ours
returns the same numbers, bit by bit.
"""

from __future__ import annotations

from typing import Any

from .after_import import after_import


def rotate_heads(
    theta: float,
    scale: float,
    head_dim: int,
    num_q_heads: int,
    num_kv_heads: int,
    dtype: str,
    rope_scaling: dict[str, Any],
    rotary_dim: int | None = None,
) -> Any:
    """Returns a kernel as TVM's llama_rope_with_position_map does, whose arguments these are.

    (qkv: (n, heads, head_dim), positions: (n,) int32, q, k, v, apply: int64) -> None. It splits heads into those of
    queries, keys and values, and rotates the first two as halves of a head ("rotate half") where `apply` is not 0.
    """
    from tvm.relax.frontend.nn.llm import position_embedding
    from tvm.script import tirx as T

    from tvm import tirx

    size = head_dim if rotary_dim is None else rotary_dim
    half = size // 2
    first_value = num_q_heads + num_kv_heads
    frequency = position_embedding.switch_rope_freq_func(rope_scaling)

    def turn(position: Any, number: Any, index: int) -> Any:
        """The cosine (0) or sine (1) of a position's angle."""
        *values, bindings = frequency(position * tirx.const(scale, "float32"), number, size, theta, "float32")
        value = values[index]
        for variable, bound in bindings.items():
            value = tirx.Let(variable, bound, value)
        return value

    def cosine(position: Any, number: Any) -> Any:
        return turn(position, number, 0)

    def sine(position: Any, number: Any) -> Any:
        return turn(position, number, 1)

    @T.prim_func(s_tir=True)
    def fused_rope(
        qkv_handle: T.handle,
        positions_handle: T.handle,
        q_handle: T.handle,
        k_handle: T.handle,
        v_handle: T.handle,
        apply: T.int64,
    ) -> None:
        # 8: opaque, as TVM's.
        T.func_attr({"op_pattern": 8, "tirx.noalias": True})
        tokens = T.int32()
        offset = T.int32()
        qkv = T.match_buffer(qkv_handle, (tokens, first_value + num_kv_heads, head_dim), dtype)
        q = T.match_buffer(q_handle, (tokens, num_q_heads, head_dim), dtype)
        k = T.match_buffer(k_handle, (tokens, num_kv_heads, head_dim), dtype)
        v = T.match_buffer(v_handle, (tokens, num_kv_heads, head_dim), dtype)
        positions = T.match_buffer(positions_handle, (tokens,), "int32", elem_offset=offset)
        for token in range(tokens):
            with T.sblock("rotation"):
                cos = T.sblock_alloc_buffer((size,), "float32", scope="local")
                sin = T.sblock_alloc_buffer((size,), "float32", scope="local")
                for d in range(size):
                    cos[d] = T.if_then_else(apply > 0, cosine(positions[token], d), T.float32(1))
                    sin[d] = T.if_then_else(apply > 0, sine(positions[token], d), T.float32(0))
                for h in range(num_q_heads):
                    for d in range(half):
                        q[token, h, d] = T.Cast(
                            dtype,
                            cos[d] * T.Cast("float32", qkv[token, h, d])
                            + sin[d] * T.Cast("float32", -qkv[token, h, d + half]),
                        )
                        q[token, h, d + half] = T.Cast(
                            dtype,
                            cos[d + half] * T.Cast("float32", qkv[token, h, d + half])
                            + sin[d + half] * T.Cast("float32", qkv[token, h, d]),
                        )
                    for d in range(head_dim - size):
                        q[token, h, size + d] = qkv[token, h, size + d]
                for h in range(num_kv_heads):
                    for d in range(half):
                        k[token, h, d] = T.Cast(
                            dtype,
                            cos[d] * T.Cast("float32", qkv[token, num_q_heads + h, d])
                            + sin[d] * T.Cast("float32", -qkv[token, num_q_heads + h, d + half]),
                        )
                        k[token, h, d + half] = T.Cast(
                            dtype,
                            cos[d + half] * T.Cast("float32", qkv[token, num_q_heads + h, d + half])
                            + sin[d + half] * T.Cast("float32", qkv[token, num_q_heads + h, d]),
                        )
                    for d in range(head_dim - size):
                        k[token, h, size + d] = qkv[token, num_q_heads + h, size + d]
                    for d in range(head_dim):
                        v[token, h, d] = qkv[token, first_value + h, d]

    return fused_rope


def _change_cache(module: Any) -> None:
    """Gives caches for CPUs this kernel.

    Args:
        module: tvm.relax.frontend.nn.llm.kv_cache.
    """
    import tvm

    upstream = module.llama_rope_with_position_map

    def llama_rope_with_position_map(*arguments: Any) -> Any:
        target = tvm.target.Target.current()
        # GPT-J's pairs are neighbours, and LongRoPE's function has another argument.
        halves = arguments[6].get("rope_type") not in ("gptj", "longrope")
        ours = target is not None and target.kind.name == "llvm" and halves
        return (rotate_heads if ours else upstream)(*arguments)

    module.llama_rope_with_position_map = llama_rope_with_position_map


def install() -> None:
    after_import("tvm.relax.frontend.nn.llm.kv_cache", _change_cache)
