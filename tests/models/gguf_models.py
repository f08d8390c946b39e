"""Small GGUF files with random weights, written as llama.cpp's converter does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np

HIDDEN, INNER, HEADS, KEY_VALUE_HEADS, HEAD, LAYERS = 64, 96, 4, 2, 16, 2

BYTES = [chr(number) for number in [*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324)]]
"""GPT-2's printable characters for bytes."""

MERGES = ["h e", "l l", "Ġ w", "he ll", "hell o", "o r", "Ġw or", "1 2"]
NAMED = ["<|begin|>", "<|end|>", "<|pad|>"]
TOKENS = [*NAMED, *sorted(BYTES), *(merge.replace(" ", "") for merge in MERGES), "<tool>", "[PAD]"]

Change = Callable[[gguf.GGUFWriter], None]


def permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """What convert_hf_to_gguf.py makes of a projection of Q or K for the architecture llama."""
    return (
        weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)
    )


def checkpoint(architecture: str, tied: bool = False, seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights with the names and the order of rows of Hugging Face's hub."""
    random = np.random.RandomState(seed)

    def draw(*shape: int) -> np.ndarray:
        return (random.standard_normal(shape) / (1 if len(shape) == 1 else np.sqrt(shape[-1]))).astype("f4")

    query, key_value = HEADS * HEAD, KEY_VALUE_HEADS * HEAD
    weights = {"model.embed_tokens.weight": draw(len(TOKENS), HIDDEN), "model.norm.weight": draw(HIDDEN)}
    for index in range(LAYERS):
        layer = f"model.layers.{index}."
        for letter, rows in ("q", query), ("k", key_value), ("v", key_value):
            weights[f"{layer}self_attn.{letter}_proj.weight"] = draw(rows, HIDDEN)
            if architecture == "qwen2":
                weights[f"{layer}self_attn.{letter}_proj.bias"] = draw(rows)
            if architecture == "qwen3" and letter != "v":
                weights[f"{layer}self_attn.{letter}_norm.weight"] = draw(HEAD)
        weights[f"{layer}self_attn.o_proj.weight"] = draw(HIDDEN, query)
        weights[f"{layer}mlp.gate_proj.weight"] = draw(INNER, HIDDEN)
        weights[f"{layer}mlp.up_proj.weight"] = draw(INNER, HIDDEN)
        weights[f"{layer}mlp.down_proj.weight"] = draw(HIDDEN, INNER)
        weights[f"{layer}input_layernorm.weight"] = draw(HIDDEN)
        weights[f"{layer}post_attention_layernorm.weight"] = draw(HIDDEN)
    if not tied:
        weights["lm_head.weight"] = draw(len(TOKENS), HIDDEN)
    return weights


_PARTS = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_name(name: str) -> str:
    """GGUF's name of a weight."""
    fixed = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    stem, _, kind = name.rpartition(".")
    if stem in fixed:
        return f"{fixed[stem]}.{kind}"
    index, _, part = stem.removeprefix("model.layers.").partition(".")
    return f"blk.{index}.{_PARTS[part]}.{kind}"


def in_file_order(architecture: str, weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The weights under GGUF's names, with its order of rows."""
    heads = {"q_proj": HEADS, "k_proj": KEY_VALUE_HEADS} if architecture == "llama" else {}
    return {
        gguf_name(name): permuted(weight, heads[part]) if (part := name.split(".")[-2]) in heads else weight
        for name, weight in weights.items()
    }


def write(
    path: Path,
    architecture: str = "llama",
    weights: dict[str, np.ndarray] | None = None,
    quantization: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    values: dict[str, Any] | None = None,
    tensors: dict[str, np.ndarray | None] | None = None,
    change: Change = lambda writer: None,
) -> Path:
    """Writes a model.

    Args:
        path: the file.
        architecture: general.architecture.
        weights: the weights as on the hub; default: those of `checkpoint`.
        quantization: type of all matrices.
        values: metadata to replace or, if None, to leave out.
        tensors: tensors to replace or, if None, to leave out.
        change: called before the file is written.
    """
    writer = gguf.GGUFWriter(path, architecture)
    a = architecture
    metadata: dict[str, Any] = {
        f"{a}.block_count": LAYERS,
        f"{a}.context_length": 256,
        f"{a}.embedding_length": HIDDEN,
        f"{a}.feed_forward_length": INNER,
        f"{a}.attention.head_count": HEADS,
        f"{a}.attention.head_count_kv": KEY_VALUE_HEADS,
        f"{a}.attention.layer_norm_rms_epsilon": 1e-5,
        f"{a}.rope.freq_base": 500000.0,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.token_type": [3] * len(NAMED) + [1] * (len(TOKENS) - len(NAMED) - 2) + [4, 5],
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.chat_template": "{% for m in messages %}{{ m['content'] }}<|end|>{% endfor %}",
        **(values or {}),
    }
    for key, value in metadata.items():
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        elif value is not None:
            writer.add_array(key, value)
    stored: dict[str, np.ndarray | None] = {
        **in_file_order(architecture, checkpoint(architecture) if weights is None else weights),
        **(tensors or {}),
    }
    for name, weight in stored.items():
        if weight is None:
            continue
        kind = quantization if weight.ndim == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quantize(weight, kind), raw_dtype=kind)
    change(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
