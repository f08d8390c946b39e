"""Writes a model with random weights for mlc-llm's engine, from its mlc-chat-config.json and a small tokenizer, so that
gigabytes need not travel.

    random_model.py mlc-chat-config.json TOKENIZER_FOLDER OUTPUT

The weights are those of a Llama in float16 (q0f16), or with groups of 32 weights of four bits (q4f16_1), in the format
of mlc-llm's tensor cache.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

SEED = 20262
_BYTES = 2  # Per float16.

GROUP, PER_WORD = 32, 8
"""Weights of q4f16_1 that share a scale, and that a word of 32 bits has."""

DISTINCT = (1 << 26) - 5
"""Random numbers of a tensor before they repeat: a prime, so that no two rows are the same, nor their logits."""


def weights(model: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every weight, with the names of mlc-llm's Llama.

    Args:
        model: `model_config` of an mlc-chat-config.json.
    """
    hidden, inner, dim = model["hidden_size"], model["intermediate_size"], model["head_dim"]
    heads, kv_heads = model["num_attention_heads"], model["num_key_value_heads"]
    yield "model.embed_tokens", (model["vocab_size"], hidden)
    for layer in range(model["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        yield prefix + "self_attn.qkv_proj", ((heads + 2 * kv_heads) * dim, hidden)
        yield prefix + "self_attn.o_proj", (hidden, heads * dim)
        yield prefix + "mlp.gate_up_proj", (2 * inner, hidden)
        yield prefix + "mlp.down_proj", (hidden, inner)
        yield prefix + "input_layernorm", (hidden,)
        yield prefix + "post_attention_layernorm", (hidden,)
    yield "model.norm", (hidden,)
    if not model["tie_word_embeddings"]:
        yield "lm_head", (model["vocab_size"], hidden)


def parameters(model: dict[str, Any], quantization: str) -> Iterator[tuple[str, tuple[int, ...], str]]:
    """Name, shape and type of every tensor.

    Args:
        model: see `weights`.
        quantization: q0f16 or q4f16_1.
    """
    assert quantization in ("q0f16", "q4f16_1"), quantization
    for name, shape in weights(model):
        if len(shape) == 1 or quantization == "q0f16":
            yield f"{name}.weight", shape, "float16"
        else:
            rows, columns = shape
            yield f"{name}.q_weight", (rows, columns // PER_WORD), "uint32"
            yield f"{name}.q_scale", (rows, columns // GROUP), "float16"


def size(shape: tuple[int, ...], dtype: str) -> int:
    """Bytes of a tensor."""
    return int(np.prod(shape)) * np.dtype(dtype).itemsize


def step_bytes(model: dict[str, Any], quantization: str) -> int:
    """Bytes of the weights that a decoding step reads once: all but the embedding, unless that is the output layer."""
    return sum(
        size(shape, dtype)
        for name, shape, dtype in parameters(model, quantization)
        if model["tie_word_embeddings"] or not name.startswith("model.embed_tokens.")
    )


def products(model: dict[str, Any]) -> int:
    """Multiplications per token of a prompt with weights: all but those of the output layer, which sees one token."""
    return sum(
        int(np.prod(shape)) for name, shape in weights(model) if len(shape) == 2 and name.startswith("model.layers.")
    )


def cache_bytes_of_token(model: dict[str, Any]) -> int:
    """Bytes of one token's keys and values in all layers; every later step reads them once."""
    return 2 * model["num_hidden_layers"] * model["num_key_value_heads"] * model["head_dim"] * _BYTES


def values(shape: tuple[int, ...], dtype: str, random: np.random.Generator) -> np.ndarray:
    """Random content of a tensor. The scale of activations stays the same from layer to layer: variance 1 / fan-in.

    Large ones repeat a part of the numbers, because generating billions takes minutes.
    """
    if len(shape) == 1:
        return np.ones(shape, dtype)
    count = int(np.prod(shape))
    if dtype == "uint32":
        return np.resize(random.integers(0, 1 << 32, min(count, DISTINCT), "uint32"), shape)
    scale = np.float32((3 / shape[1]) ** 0.5)
    return np.resize(((random.random(min(count, DISTINCT), "float32") * 2 - 1) * scale).astype("float16"), shape)


def scales(shape: tuple[int, ...]) -> np.ndarray:
    """The scales of groups of uniformly random weights of four bits, whose deviation is 4.6, for the same variance."""
    return np.full(shape, (1 / (shape[1] * GROUP)) ** 0.5 / 4.6, "float16")


def write_weights(model: dict[str, Any], quantization: str, output: Path) -> None:
    """Writes one shard per parameter and the index tensor-cache.json."""
    random = np.random.default_rng(SEED)
    records, total = [], 0
    for number, (name, shape, dtype) in enumerate(parameters(model, quantization)):
        content = scales(shape) if name.endswith(".q_scale") else values(shape, dtype, random)
        path = f"params_shard_{number}.bin"
        content.tofile(output / path)
        total += content.nbytes
        record = {
            "name": name,
            "shape": shape,
            "dtype": dtype,
            "format": "raw",
            "nbytes": content.nbytes,
            "byteOffset": 0,
        }
        records.append({"dataPath": path, "format": "raw-shard", "nbytes": content.nbytes, "records": [record]})
    bits = 8 * total / sum(int(np.prod(shape)) for _, shape in weights(model))
    metadata = {"ParamSize": len(records), "ParamBytes": float(total), "BitsPerParam": bits}
    (output / "tensor-cache.json").write_text(json.dumps({"metadata": metadata, "records": records}), encoding="utf-8")


def grown_tokenizer(tokenizer: dict[str, Any], size: int) -> dict[str, Any]:
    """A tokenizer.json extended to the model's vocabulary, since the engine looks up every token. No text encodes to
    the new words.
    """
    vocabulary = tokenizer["model"]["vocab"]
    # U+2581 marks the start of a word.
    words = {f"\u2581word{number}": number for number in range(len(vocabulary), size)}
    return {**tokenizer, "model": {**tokenizer["model"], "vocab": {**vocabulary, **words}}}


def write_config(config: Path, output: Path) -> dict[str, Any]:
    """Writes mlc-chat-config.json with the facts that the engine needs about the tokenizer, and returns it."""
    output.mkdir(parents=True, exist_ok=True)
    content = json.loads(config.read_text(encoding="utf-8"))
    # The configuration was generated without a tokenizer. mlc-llm detects this for the tiny model's.
    content["tokenizer_files"] = ["tokenizer.json", "tokenizer_config.json"]
    content["tokenizer_info"] = {
        "token_postproc_method": "byte_fallback",
        "prepend_space_in_encode": True,
        "strip_space_in_decode": True,
    }
    (output / "mlc-chat-config.json").write_text(json.dumps(content, indent=2), encoding="utf-8")
    return content


def write_model(config: Path, tokenizer: Path, output: Path) -> None:
    """Writes the whole model folder."""
    content = write_config(config, output)
    grown = grown_tokenizer(
        json.loads((tokenizer / "tokenizer.json").read_text(encoding="utf-8")), content["vocab_size"]
    )
    (output / "tokenizer.json").write_text(json.dumps(grown), encoding="utf-8")
    shutil.copyfile(tokenizer / "tokenizer_config.json", output / "tokenizer_config.json")
    write_weights(content["model_config"], content["quantization"], output)


def write_variant(config: Path, model: Path, output: Path) -> None:
    """Writes a folder for the same model with another configuration; weights and tokenizer are links into `model`."""
    write_config(config, output)
    for file in model.iterdir():
        if file.name != "mlc-chat-config.json":
            (output / file.name).symlink_to(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("tokenizer", type=Path, help="folder with tokenizer.json and tokenizer_config.json")
    parser.add_argument("output", type=Path)
    options = parser.parse_args()
    write_model(options.config, options.tokenizer, options.output)


if __name__ == "__main__":
    main()
