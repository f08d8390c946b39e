"""Writes a model with random weights for mlc-llm's engine, from its mlc-chat-config.json and a small tokenizer, so that
gigabytes need not travel.

    random_model.py mlc-chat-config.json TOKENIZER_FOLDER OUTPUT

The weights are those of an unquantised Llama with tied embeddings (q0f16), in the format of mlc-llm's tensor cache.
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


def parameters(model: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every weight, with the names of mlc-llm's Llama.

    Args:
        model: `model_config` of an mlc-chat-config.json.
    """
    assert model["tie_word_embeddings"], "expected a model whose embedding is also its output layer"
    hidden, inner, dim = model["hidden_size"], model["intermediate_size"], model["head_dim"]
    heads, kv_heads = model["num_attention_heads"], model["num_key_value_heads"]
    yield "model.embed_tokens.weight", (model["vocab_size"], hidden)
    for layer in range(model["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        yield prefix + "self_attn.qkv_proj.weight", ((heads + 2 * kv_heads) * dim, hidden)
        yield prefix + "self_attn.o_proj.weight", (hidden, heads * dim)
        yield prefix + "mlp.gate_up_proj.weight", (2 * inner, hidden)
        yield prefix + "mlp.down_proj.weight", (hidden, inner)
        yield prefix + "input_layernorm.weight", (hidden,)
        yield prefix + "post_attention_layernorm.weight", (hidden,)
    yield "model.norm.weight", (hidden,)


def weight_bytes(model: dict[str, Any]) -> int:
    """Bytes of all weights. A decoding step reads each once, since the embedding is the output layer."""
    return sum(int(np.prod(shape)) * _BYTES for _, shape in parameters(model))


def cache_bytes_of_token(model: dict[str, Any]) -> int:
    """Bytes of one token's keys and values in all layers; every later step reads them once."""
    return 2 * model["num_hidden_layers"] * model["num_key_value_heads"] * model["head_dim"] * _BYTES


def write_weights(model: dict[str, Any], output: Path) -> None:
    """Writes one shard per parameter and the index tensor-cache.json. The scale of activations stays the same from
    layer to layer.
    """
    random = np.random.default_rng(SEED)
    records = []
    for number, (name, shape) in enumerate(parameters(model)):
        if len(shape) == 1:
            values = np.ones(shape, "float16")
        else:
            scale = np.float32((3 / shape[1]) ** 0.5)  # Variance 1 / fan-in.
            values = ((random.random(shape, dtype="float32") * 2 - 1) * scale).astype("float16")
        path = f"params_shard_{number}.bin"
        values.tofile(output / path)
        record = {
            "name": name,
            "shape": shape,
            "dtype": "float16",
            "format": "raw",
            "nbytes": values.nbytes,
            "byteOffset": 0,
        }
        records.append({"dataPath": path, "format": "raw-shard", "nbytes": values.nbytes, "records": [record]})
    metadata = {"ParamSize": len(records), "ParamBytes": float(weight_bytes(model)), "BitsPerParam": 16.0}
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
    write_weights(content["model_config"], output)


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
