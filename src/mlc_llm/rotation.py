"""Rotates queries and keys in the model for families whose rotation TVM's paged KV cache gets wrong.

Gemma 3: upstream leaves its two kinds of layers to the cache of TVM 0.26 (paged_kv_cache.cc), which

* rotates the tokens of one prefill with the base of the global layers in all layers (MHASelfAttnInternal), so that
  logits are wrong from the second token on;
* has a window of 1024 tokens, whatever the model's is, and does not move it within a prefill;
* takes the wrong pages for all sequences of a batch but the first.

Phi 3 with LongRoPE: TVM's function does not compile, and it would choose the factors by the length of a prefill, not of
the sequence. Here the context of the compiled model decides, as in vLLM and llama.cpp: the short factors up to the
length of the original training, beyond it the long ones.

YaRN (arXiv:2309.00071): TVM's function counts on through both halves of a head when it chooses a frequency, so that the
two turn at different ones, and it lacks the rounding of transformers. Here it gets the pair's number; the cache
rotates.

For the first two the cache does not rotate, and every layer sees everything: `checkpoint_config` limits the context to
where that is right.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .after_import import after_import

Rotation = tuple[np.ndarray, float]
"""Radians for each position of each pair of a head's numbers, and a factor for rotated numbers."""

LOCAL_BASE = 10000.0
"""Of Gemma 3's layers with a window: `checkpoint_config` refuses others."""


def frequencies(size: int, base: float) -> np.ndarray:
    return base ** (-np.arange(size // 2) / (size // 2))


def gemma3(config: Any, layer: int) -> Rotation:
    """Returns the rotation of a layer, given upstream's Gemma3Config."""
    text = config.text_config
    if (layer + 1) % text.sliding_window_pattern:
        return frequencies(text.head_dim, LOCAL_BASE), 1.0
    # Upstream's default is 0.
    factor = text.rope_scaling["factor"] if text.rope_scaling else 1.0
    return frequencies(text.head_dim, text.position_embedding_base) / factor, 1.0


def longrope(config: Any, _layer: int) -> Rotation:
    """Returns LongRoPE's rotation (arXiv:2402.13753), given upstream's Phi3Config or Phi3VConfig."""
    scaling = config.rope_scaling
    original = scaling["original_max_position_embeddings"]
    size = int(config.head_dim * getattr(config, "partial_rotary_factor", 1.0))
    longer = config.context_window_size > original
    rescaled = frequencies(size, config.position_embedding_base) / np.array(
        scaling["long_factor" if longer else "short_factor"]
    )
    times = scaling.get("factor") or scaling["max_position_embeddings"] / original
    default = math.sqrt(1 + math.log(times) / math.log(original)) if times > 1 else 1.0
    return rescaled, scaling.get("attention_factor") or default


def rotate(qkv: Any, positions: Any, heads: int, rotation: Rotation) -> Any:
    """Rotates the first heads of a tensor, as halves of a head ("rotate half").

    Args:
        qkv: (tokens, heads of queries, keys and values, head size).
        positions: of each token in its sequence.
        heads: how many to rotate, from the first.
        rotation: what `gemma3` or `longrope` returned. If it has fewer numbers than half a head, the rest is kept.
    """
    from tvm.relax.frontend.nn import Tensor, op

    from tvm import te, tirx

    radians, factor = rotation
    half = len(radians)

    def compute(qkv: Any, positions: Any, radians: Any) -> Any:
        def element(token: Any, head: Any, number: Any) -> Any:
            angle = positions[token].astype("float32") * radians[number % half]
            other = tirx.if_then_else(
                number < half, -qkv[token, head, number + half], qkv[token, head, number - half]
            ).astype("float32")
            rotated = qkv[token, head, number].astype("float32") * tirx.cos(angle) + other * tirx.sin(angle)
            return tirx.if_then_else(
                tirx.all(head < heads, number < 2 * half),
                (rotated * tirx.const(factor, "float32")).astype(qkv.dtype),
                qkv[token, head, number],
            )

        return te.compute(qkv.shape, element, name="rotated")

    constant = Tensor.from_const(radians.astype("float32"))
    return op.tensor_expr_op(compute, "rotate", [qkv, positions, constant])


class _Rotating:
    """A cache as a layer's attention uses it: it rotates what goes into one that does not."""

    def __init__(self, cache: Any, rotation: Callable[[int], Rotation]) -> None:
        self._cache = cache
        self._rotation = rotation

    def attention_with_fused_qkv(self, layer: int, qkv: Any, queries: int, sm_scale: float) -> Any:
        from tvm.relax.frontend.nn import op

        batch, length, heads, size = qkv.shape
        tokens = op.reshape(qkv, (batch * length, heads, size))
        positions = self._cache.get_query_positions(batch * length)
        rotated = rotate(tokens, positions, (queries + heads) // 2, self._rotation(layer))
        rotated = op.reshape(rotated, (batch, length, heads, size))
        return self._cache.attention_with_fused_qkv(layer, rotated, queries, sm_scale)


def _change_attention(attention: Any, rotation: Callable[[Any, int], Rotation], uses: Callable[[Any], bool]) -> None:
    """Makes an attention of upstream's rotate queries and keys itself.

    Args:
        attention: upstream's class.
        rotation: returns a layer's rotation, given the model's configuration.
        uses: whether a model with this configuration does so.
    """
    construct, forward = attention.__init__, attention.forward

    @functools.wraps(construct)
    def __init__(self: Any, config: Any) -> None:
        construct(self, config)
        self.rotation = functools.partial(rotation, config) if uses(config) else None

    @functools.wraps(forward)
    def rotating_forward(self: Any, hidden_states: Any, paged_kv_cache: Any, layer_id: int) -> Any:
        cache = _Rotating(paged_kv_cache, self.rotation) if self.rotation else paged_kv_cache
        return forward(self, hidden_states, cache, layer_id)

    attention.__init__ = __init__
    attention.forward = rotating_forward


def _change_cache(module: Any, uses: Callable[[dict[str, Any]], bool]) -> None:
    """Makes the models of a module create a cache that does not rotate and has no windows.

    Args:
        module: upstream's.
        uses: whether a model does so that creates a cache with these arguments.
    """
    upstream = module.PagedKVCache

    class PagedKVCache(upstream):  # type: ignore[misc, valid-type]
        @staticmethod
        def create_generic(**options: Any) -> Any:
            if uses(options):
                options |= {"attn_kind": "mha", "rope_mode": module.RopeMode.NONE}
                options |= {"rope_scaling": None, "rope_ext_factors": None}
            return upstream.create_generic(**options)

    module.PagedKVCache = PagedKVCache


def _change_gemma3(module: Any) -> None:
    _change_attention(module.Gemma3Attention, gemma3, lambda _config: True)
    _change_cache(module, lambda _options: True)


def _change_phi3(module: Any) -> None:
    _change_attention(module.PhiMHA, longrope, lambda config: bool(config.rope_scaling))
    _change_cache(module, lambda options: bool(options.get("rope_scaling")))


def _change_phi3_v(module: Any) -> None:
    # Its layers are those of phi3.
    _change_cache(module, lambda options: bool(options.get("rope_scaling")))


def _change_yarn(module: Any) -> None:
    """Makes TVM's YaRN that of transformers.

    Args:
        module: tvm.relax.frontend.nn.llm.position_embedding.
    """
    from tvm import tirx

    frequency, correction = module.rope_freq_yarn, module.yarn_find_correction_dim

    @functools.wraps(frequency)
    def rope_freq_yarn(s: Any, d: Any, d_range: int, *arguments: Any, **options: Any) -> Any:
        return frequency(s, d % (d_range // 2), d_range, *arguments, **options)

    def yarn_find_correction_range(low: int, high: int, size: int, length: int, inv_theta_log_scale: Any = None) -> Any:
        first = correction(low, size, length, inv_theta_log_scale=inv_theta_log_scale)
        last = correction(high, size, length, inv_theta_log_scale=inv_theta_log_scale)
        return tirx.max(tirx.floor(first), 0.0), tirx.min(tirx.ceil(last), size - 1.0)

    module.rope_freq_yarn = rope_freq_yarn
    module.yarn_find_correction_range = yarn_find_correction_range


def install() -> None:
    after_import("tvm.relax.frontend.nn.llm.position_embedding", _change_yarn)
    after_import("mlc_llm.model.gemma3.gemma3_model", _change_gemma3)
    after_import("mlc_llm.model.phi3.phi3_model", _change_phi3)
    after_import("mlc_llm.model.phi3v.phi3v_model", _change_phi3_v)
