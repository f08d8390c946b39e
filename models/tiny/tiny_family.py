"""Writes a small model with random weights, like that of tiny_model.py, of another family or with another option.

    tiny_family gemma3 FOLDER

Sizes that a mistake could confuse differ: the heads together are not as wide as the model where the family allows that,
and heads of queries share those of keys. config.json is spelled as transformers 5 does.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from models.tiny import tiny_model

CONTEXT = 512

COMMON: dict[str, Any] = {
    "bos_token_id": 1,
    "dtype": "bfloat16",
    "eos_token_id": 2,
    "hidden_size": 64,
    "intermediate_size": 112,
    "max_position_embeddings": CONTEXT,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "vocab_size": 320,
}


def rope(theta: float, **others: Any) -> dict[str, Any]:
    """Parameters of the rotary position embedding."""
    return {"rope_theta": theta, "rope_type": "default", **others}


_MISTRAL = {
    "architectures": ["MistralForCausalLM"],
    "head_dim": 24,
    "hidden_act": "silu",
    "model_type": "mistral",
    "rope_parameters": rope(20000.0),
    "sliding_window": None,
}

_PHI_3 = {
    "architectures": ["Phi3ForCausalLM"],
    "hidden_act": "silu",
    "model_type": "phi3",
    "original_max_position_embeddings": CONTEXT,
    "pad_token_id": 0,
    "rope_parameters": rope(20000.0, partial_rotary_factor=1.0),
    "sliding_window": None,
}

# The heads' size in these follows from the others.
FAMILIES: dict[str, dict[str, Any]] = {
    "gemma3": {
        "architectures": ["Gemma3ForCausalLM"],
        "attention_bias": False,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
        "head_dim": 24,
        "hidden_activation": "gelu_pytorch_tanh",
        # The sixth sees everything, the others a window.
        "layer_types": ["sliding_attention"] * 5 + ["full_attention", "sliding_attention"],
        "model_type": "gemma3_text",
        "num_hidden_layers": 7,
        "query_pre_attn_scalar": 20,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {
            "full_attention": rope(1000000.0, rope_type="linear", factor=8.0),
            "sliding_attention": rope(10000.0),
        },
        "sliding_window": 192,
        "tie_word_embeddings": True,
    },
    "llama3": {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "head_dim": 24,
        "hidden_act": "silu",
        "mlp_bias": False,
        "model_type": "llama",
        # Of the twelve frequencies, some are kept, some divided and some in between.
        "rope_parameters": rope(
            50000.0,
            rope_type="llama3",
            factor=8.0,
            high_freq_factor=4.0,
            low_freq_factor=1.0,
            original_max_position_embeddings=128,
        ),
        "tie_word_embeddings": True,
    },
    "mistral": _MISTRAL,
    "mistral_window": {**_MISTRAL, "sliding_window": 192},
    "phi3": _PHI_3,
    # Like Phi-4-mini.
    "phi3_longrope": {
        **_PHI_3,
        "original_max_position_embeddings": 192,
        "rope_parameters": rope(
            20000.0,
            rope_type="longrope",
            long_factor=[1.0, 1.5, 2.5, 4.0, 6.0, 8.0],
            original_max_position_embeddings=192,
            partial_rotary_factor=0.75,
            short_factor=[1.0, 1.0, 1.25, 1.5, 1.75, 2.0],
        ),
        "tie_word_embeddings": True,
    },
    "qwen2": {
        "architectures": ["Qwen2ForCausalLM"],
        "hidden_act": "silu",
        "model_type": "qwen2",
        "rope_parameters": rope(50000.0),
        "sliding_window": None,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
    },
    "qwen3": {
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": False,
        "head_dim": 24,
        "hidden_act": "silu",
        "model_type": "qwen3",
        "rope_parameters": rope(50000.0),
        "sliding_window": None,
        "use_sliding_window": False,
    },
}


def tensor_shapes(config: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yields the name and the shape of every weight, in the order in which they are drawn."""
    family = config["model_type"]
    hidden, inner, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    size = config.get("head_dim") or hidden // config["num_attention_heads"]
    query, key_value = config["num_attention_heads"] * size, config["num_key_value_heads"] * size
    yield "model.embed_tokens.weight", (vocabulary, hidden)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        norms = ["input", "post_attention"]
        if family == "gemma3_text":
            norms += ["pre_feedforward", "post_feedforward"]
        for norm in norms:
            yield f"{prefix}{norm}_layernorm.weight", (hidden,)
        if family == "phi3":
            yield prefix + "self_attn.qkv_proj.weight", (query + 2 * key_value, hidden)
            yield prefix + "mlp.gate_up_proj.weight", (2 * inner, hidden)
        else:
            for letter, rows in ("q", query), ("k", key_value), ("v", key_value):
                yield f"{prefix}self_attn.{letter}_proj.weight", (rows, hidden)
                if family == "qwen2":
                    yield f"{prefix}self_attn.{letter}_proj.bias", (rows,)
            for part in "gate", "up":
                yield f"{prefix}mlp.{part}_proj.weight", (inner, hidden)
        if family in ("gemma3_text", "qwen3"):
            for letter in "qk":
                yield f"{prefix}self_attn.{letter}_norm.weight", (size,)
        yield prefix + "self_attn.o_proj.weight", (hidden, query)
        yield prefix + "mlp.down_proj.weight", (hidden, inner)
    yield "model.norm.weight", (hidden,)
    if not config["tie_word_embeddings"]:
        yield "lm_head.weight", (vocabulary, hidden)


def write_family(folder: Path, name: str) -> None:
    """Writes the model of FAMILIES with this name."""
    config = {**COMMON, **FAMILIES[name]}
    # Norms of Gemma multiply by one more than the weight.
    norm = 0.0 if config["model_type"] == "gemma3_text" else 1.0
    tiny_model.write_checkpoint(folder, config, tensor_shapes(config), seed=0, norm=norm)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", choices=sorted(FAMILIES), help="the model to write")
    parser.add_argument("folder", type=Path, help="the folder to write")
    options = parser.parse_args()
    write_family(options.folder, options.family)


if __name__ == "__main__":
    main()
