"""Llama in `tvm.relax.frontend.nn` with TVM's paged KV cache, in float32 for CPUs. Only compiling imports this file.

`relax_library` calls `module`, which returns the model that a checkpoint's config.json describes, without weights. The
compiled library has three functions:

    create_cache(sequences, tokens, tokens per step, page size, 0) -> cache; each argument is a Shape of one number
    forward(tokens: (n,) int32, positions: (m,) int32, cache, parameters) -> (m, vocabulary) float32
    metadata() -> JSON: the name and shape of each parameter, in order, and the length of the context

`forward` runs the tokens that begin_forward announced to the cache, of one or more sequences, and returns the scores of
what follows the tokens at `positions`. It runs prompts and single tokens alike.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import op
from tvm.relax.frontend.nn.llm.kv_cache import PagedKVCache, RopeMode, TIRPagedKVCache
from tvm.script import tirx as T

import tvm
from tvm import relax, te, tirx

LANES = 64
"""Outputs that a thread computes at a time: eight AVX2 registers of float32, which hide the latency of an addition."""

# Keys of config.json whose other values would mean another model.
_EXPECTED: dict[str, Any] = {
    "attention_bias": False,
    "hidden_act": "silu",
    "mlp_bias": False,
    "model_type": "llama",
    "quantization_config": None,
    "rope_scaling": None,
    "sliding_window": None,
}


class Config:
    """The shape of a Llama, from the config.json of a checkpoint.

    Raises:
        ValueError: the checkpoint is not a Llama, or needs something that this file does not implement.
    """

    def __init__(self, path: Path) -> None:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for key, expected in _EXPECTED.items():
            if values.get(key, expected) != expected:
                raise ValueError(f"{path}: {key}: expected {expected!r}, found {values[key]!r}")
        # transformers 5 has one dict for everything about positions.
        rope = {"rope_theta": 10000.0, **values, **(values.get("rope_parameters") or {})}
        if rope.get("rope_type", "default") != "default":
            raise ValueError(f"{path}: rope_type: expected 'default', found {rope['rope_type']!r}")
        self.context: int = values["max_position_embeddings"]
        self.epsilon: float = values["rms_norm_eps"]
        self.heads: int = values["num_attention_heads"]
        self.hidden: int = values["hidden_size"]
        self.inner: int = values["intermediate_size"]
        self.key_value_heads: int = values.get("num_key_value_heads") or self.heads
        self.head_size: int = values.get("head_dim") or self.hidden // self.heads
        self.layers: int = values["num_hidden_layers"]
        self.theta: float = rope["rope_theta"]
        self.tied: bool = values.get("tie_word_embeddings", False)
        self.vocabulary: int = values["vocab_size"]


def product(inputs: int, outputs: int, lanes: int) -> tirx.PrimFunc:
    """The kernel that multiplies x (rows, inputs) by a matrix packed as in `Linear`.

    A thread reads its part of the matrix in order, and finds it in its cache for all rows but the first.
    """

    @T.prim_func(private=True, s_tir=True)
    def kernel(x_handle: T.handle, matrix_handle: T.handle, y_handle: T.handle) -> None:
        T.func_attr({"tirx.noalias": True})
        rows = T.int64()
        x = T.match_buffer(x_handle, (rows, inputs), "float32")
        matrix = T.match_buffer(matrix_handle, (outputs // lanes, inputs, lanes), "float32")
        y = T.match_buffer(y_handle, (rows, outputs), "float32")
        for block in T.parallel(outputs // lanes):
            for row in range(rows):
                with T.sblock("product"):
                    total = T.sblock_alloc_buffer((lanes,), "float32", scope="local")
                    for lane in T.vectorized(lanes):
                        total[lane] = T.float32(0)
                    for i in range(inputs):
                        for lane in T.vectorized(lanes):
                            total[lane] = total[lane] + x[row, i] * matrix[block, i, lane]
                    for lane in T.vectorized(lanes):
                        y[row, block * lanes + lane] = total[lane]

    return kernel


class Linear(nn.Module):
    """A matrix of (outputs, inputs), packed: (outputs / lanes, inputs, lanes)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        self.lanes = math.gcd(outputs, LANES)
        self.inputs, self.outputs = inputs, outputs
        self.weight = nn.Parameter((outputs // self.lanes, inputs, self.lanes), "float32")

    def forward(self, x: nn.Tensor) -> nn.Tensor:
        kernel = product(self.inputs, self.outputs, self.lanes)
        return op.tensor_ir_op(
            kernel, "product", [x, self.weight], nn.Tensor.placeholder((x.shape[0], self.outputs), "float32")
        )


class Embedding(Linear):
    """One vector per token. If the embeddings are tied, the same matrix scores the tokens in the end."""

    def __init__(self, config: Config) -> None:
        super().__init__(config.hidden, config.vocabulary)

    def rows(self, tokens: nn.Tensor) -> nn.Tensor:
        """Returns the vectors of tokens: (n, hidden)."""

        def compute(tokens: te.Tensor, matrix: te.Tensor) -> te.Tensor:
            return te.compute(
                (tokens.shape[0], self.inputs),
                lambda i, j: matrix[tokens[i] // self.lanes, j, tokens[i] % self.lanes],
                name="embedding",
            )

        return op.tensor_expr_op(compute, "embedding", [tokens, self.weight])


class Attention(nn.Module):
    """Causal attention in groups of heads. The cache also rotates queries and keys."""

    def __init__(self, config: Config) -> None:
        self.config = config
        width = config.heads * config.head_size
        self.q_proj = Linear(config.hidden, width)
        self.k_proj = Linear(config.hidden, config.key_value_heads * config.head_size)
        self.v_proj = Linear(config.hidden, config.key_value_heads * config.head_size)
        self.o_proj = Linear(width, config.hidden)

    def forward(self, x: nn.Tensor, cache: PagedKVCache, layer: int) -> nn.Tensor:
        heads, size = self.config.heads, self.config.head_size
        qkv = op.concat([self.q_proj(x), self.k_proj(x), self.v_proj(x)], dim=1)
        qkv = op.reshape(qkv, (1, x.shape[0], heads + 2 * self.config.key_value_heads, size))
        seen = cache.attention_with_fused_qkv(layer, qkv, heads, size**-0.5)
        return self.o_proj(op.reshape(seen, (x.shape[0], heads * size)))


class FeedForward(nn.Module):
    """The SwiGLU network."""

    def __init__(self, config: Config) -> None:
        self.gate_proj = Linear(config.hidden, config.inner)
        self.up_proj = Linear(config.hidden, config.inner)
        self.down_proj = Linear(config.inner, config.hidden)

    def forward(self, x: nn.Tensor) -> nn.Tensor:
        return self.down_proj(op.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """Attention and feed-forward network, each added to what came in."""

    def __init__(self, config: Config) -> None:
        self.input_layernorm = nn.RMSNorm(config.hidden, -1, config.epsilon, bias=False)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden, -1, config.epsilon, bias=False)
        self.mlp = FeedForward(config)

    def forward(self, x: nn.Tensor, cache: PagedKVCache, layer: int) -> nn.Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cache, layer)
        return x + self.mlp(self.post_attention_layernorm(x))


class Layers(nn.Module):
    """The modules below `model` in the checkpoint's names."""

    def __init__(self, config: Config) -> None:
        self.embed_tokens = Embedding(config)
        self.layers = nn.ModuleList([Layer(config) for _ in range(config.layers)])
        self.norm = nn.RMSNorm(config.hidden, -1, config.epsilon, bias=False)


class Llama(nn.Module):
    """The model. Modules have the names of the checkpoint's tensors."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.model = Layers(config)
        if not config.tied:
            self.lm_head = Linear(config.hidden, config.vocabulary)

    def forward(self, tokens: nn.Tensor, positions: nn.Tensor, cache: PagedKVCache) -> nn.Tensor:
        x = self.model.embed_tokens.rows(tokens)
        for number, layer in enumerate(self.model.layers):
            x = layer(x, cache, number)
        x = op.take(self.model.norm(x), positions, axis=0)
        return (self.model.embed_tokens if self.config.tied else self.lm_head)(x)

    def create_cache(
        self, sequences: tirx.Var, tokens: tirx.Var, tokens_per_step: tirx.Var, page_size: tirx.Var, slides: tirx.Var
    ) -> PagedKVCache:
        config = self.config
        return TIRPagedKVCache(
            attn_kind="mha",
            max_batch_size=sequences,
            max_total_seq_len=tokens,
            prefill_chunk_size=tokens_per_step,
            page_size=page_size,
            support_sliding_window=slides,
            layer_partition=relax.ShapeExpr([0, config.layers]),
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.key_value_heads,
            qk_head_dim=config.head_size,
            v_head_dim=config.head_size,
            mla_original_qk_head_dim=0,
            mla_original_v_head_dim=0,
            rope_mode=RopeMode.NORMAL,
            rope_scale=1,
            rope_theta=config.theta,
            rope_scaling={},
            rope_ext_factors=relax.prim_value(0),
            rotary_dim=config.head_size,
            enable_disaggregation=False,
            dtype="float32",
            target=tvm.target.Target("llvm"),
        )


def module(config: str) -> tvm.IRModule:
    """Returns the model.

    Args:
        config: the path of config.json, or of its folder.
    """
    path = Path(config)
    model = Llama(Config(path / "config.json" if path.is_dir() else path))
    cache: dict[str, Any] = dict.fromkeys(["sequences", "tokens", "tokens_per_step", "page_size", "slides"], int)
    forward: dict[str, Any] = {
        "tokens": nn.spec.Tensor(["n"], "int32"),
        "positions": nn.spec.Tensor(["m"], "int32"),
        "cache": nn.spec.Object(object_type=PagedKVCache),
    }
    made, parameters = model.export_tvm(
        {
            "create_cache": {**cache, "$": {"param_mode": "none", "effect_mode": "none"}},
            "forward": {**forward, "$": {"param_mode": "packed", "effect_mode": "none"}},
        }
    )
    metadata = {
        "context": model.config.context,
        "parameters": [[name, list(map(int, parameter.shape))] for name, parameter in parameters],
    }
    builder = relax.BlockBuilder(made)
    with builder.function("metadata", []):
        builder.emit_func_output(relax.StringImm(json.dumps(metadata)))
    return builder.get()
