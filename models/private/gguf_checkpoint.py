"""Turns a GGUF file into a checkpoint in the layout of Hugging Face's hub: configuration, float32 weights, tokenizer.

    gguf_checkpoint MODEL.gguf FOLDER

It needs little memory: weights are dequantized and written a few rows at a time.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.private.gguf_file import GgufError, GgufFile
from models.private.gguf_tokenizer import WITHOUT_EFFECT, tokenizer_files

MAX_LAYERS = 1 << 12
MAX_SIZE = 1 << 31


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What sets an architecture apart (general.architecture)."""

    name: str
    """Hugging Face's name of the class."""
    permuted: bool = False
    """Whether GGUF has the two halves of each head of Q and K interleaved."""
    qkv_bias: bool = False
    qk_norm: bool = False


ARCHITECTURES = {
    "llama": Architecture("LlamaForCausalLM", permuted=True),
    "qwen2": Architecture("Qwen2ForCausalLM", qkv_bias=True),
    "qwen3": Architecture("Qwen3ForCausalLM", qk_norm=True),
}

HISTORY = ("rope.scaling.finetuned", "tensor_data_layout")
"""Keys of an architecture that only say how the model came to be."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """Sizes of a model."""

    layers: int
    hidden: int
    inner: int
    heads: int
    key_value_heads: int
    head: int
    vocabulary: int
    context: int


@dataclasses.dataclass(frozen=True)
class Weight:
    """A tensor of the checkpoint, and where it comes from."""

    source: str
    """GGUF's name."""
    shape: tuple[int, ...]
    heads: int = 0
    """Heads whose rows are interleaved, or 0."""


def read_shape(file: GgufFile, architecture: str) -> Shape:
    """Returns the sizes of a model.

    Raises:
        GgufError: one is missing or does not fit the others.
    """

    def size(key: str, default: int | None = None, limit: int = MAX_SIZE) -> int:
        return file.positive(f"{architecture}.{key}", int, default, limit)

    def equal(key: str, expected: int) -> None:
        if (found := size(key, expected)) != expected:
            raise GgufError(f"{architecture}.{key}: expected {expected}, found {found}, which is unsupported")

    hidden, heads = size("embedding_length"), size("attention.head_count")
    key_value_heads = size("attention.head_count_kv", heads)
    if heads % key_value_heads:
        raise GgufError(
            f"{architecture}.attention.head_count_kv: expected a divisor of {heads} heads, found {key_value_heads}"
        )
    # The default is llama.cpp's.
    head = size("attention.key_length", max(1, hidden // heads))
    if head % 2:
        raise GgufError(f"{architecture}.attention.key_length: expected an even number, found {head}")
    equal("attention.value_length", head)
    equal("rope.dimension_count", head)
    if file.get(f"{architecture}.expert_count", int, 0):
        raise GgufError(f"{architecture}.expert_count: expected 0, found a mixture of experts, which is unsupported")
    embedding = file.tensors.get("token_embd.weight")
    vocabulary = int(embedding.shape[-1]) if embedding else len(file.items("tokenizer.ggml.tokens", str))
    equal("vocab_size", vocabulary)
    return Shape(
        layers=size("block_count", limit=MAX_LAYERS),
        hidden=hidden,
        inner=size("feed_forward_length"),
        heads=heads,
        key_value_heads=key_value_heads,
        head=head,
        vocabulary=vocabulary,
        context=size("context_length"),
    )


def weights(architecture: Architecture, shape: Shape, tied: bool) -> Iterator[tuple[str, Weight]]:
    """Yields the checkpoint's tensors by name."""
    hidden, inner = shape.hidden, shape.inner
    query, key_value = shape.heads * shape.head, shape.key_value_heads * shape.head
    yield "model.embed_tokens.weight", Weight("token_embd.weight", (shape.vocabulary, hidden))
    for index in range(shape.layers):
        source, name = f"blk.{index}.", f"model.layers.{index}."
        yield name + "input_layernorm.weight", Weight(source + "attn_norm.weight", (hidden,))
        for letter, rows, heads in [
            ("q", query, shape.heads),
            ("k", key_value, shape.key_value_heads),
            ("v", key_value, 0),
        ]:
            interleaved = heads if architecture.permuted else 0
            projection = name + f"self_attn.{letter}_proj."
            yield projection + "weight", Weight(source + f"attn_{letter}.weight", (rows, hidden), interleaved)
            if architecture.qkv_bias:
                yield projection + "bias", Weight(source + f"attn_{letter}.bias", (rows,))
            if architecture.qk_norm and heads:
                norm = Weight(source + f"attn_{letter}_norm.weight", (shape.head,))
                yield name + f"self_attn.{letter}_norm.weight", norm
        yield name + "self_attn.o_proj.weight", Weight(source + "attn_output.weight", (hidden, query))
        yield name + "post_attention_layernorm.weight", Weight(source + "ffn_norm.weight", (hidden,))
        yield name + "mlp.gate_proj.weight", Weight(source + "ffn_gate.weight", (inner, hidden))
        yield name + "mlp.up_proj.weight", Weight(source + "ffn_up.weight", (inner, hidden))
        yield name + "mlp.down_proj.weight", Weight(source + "ffn_down.weight", (hidden, inner))
    yield "model.norm.weight", Weight("output_norm.weight", (hidden,))
    if not tied:
        yield "lm_head.weight", Weight("output.weight", (shape.vocabulary, hidden))


def check_tensors(file: GgufFile, expected: dict[str, Weight], others: set[str]) -> None:
    """Checks that the file has exactly the tensors of its architecture.

    Args:
        file: the model.
        expected: what the checkpoint needs.
        others: tensors that are used otherwise.

    Raises:
        GgufError: one is missing, has another shape, or is not of this architecture.
    """
    for weight in expected.values():
        tensor = file.tensors.get(weight.source)
        if tensor is None:
            raise GgufError(f"tensor {weight.source}: expected shape {list(weight.shape)}, found no such tensor")
        found = tuple(int(size) for size in reversed(tensor.shape))
        if found != weight.shape:
            raise GgufError(f"tensor {weight.source}: expected shape {list(weight.shape)}, found {list(found)}")
    unknown = sorted(file.tensors.keys() - {weight.source for weight in expected.values()} - others)
    if unknown:
        raise GgufError(
            f"tensor {ascii(unknown[0])[1:-1][:200]}: expected only tensors of the architecture"
            f" {file.get('general.architecture', str)}, found {len(unknown)} that would be lost"
        )


def llama3_factors(head: int, theta: float, factor: float) -> npt.NDArray[np.float32]:
    """Divisors of the rotary frequencies of Llama 3.1 and later: (head / 2,).

    High frequencies are kept, low ones divided by `factor`, those between changed gradually.
    """
    wavelengths = 2 * math.pi * theta ** (np.arange(0, head, 2) / head)
    smooth = np.clip((_LLAMA3["original"] / wavelengths - _LLAMA3["low"]) / (_LLAMA3["high"] - _LLAMA3["low"]), 0, 1)
    return np.asarray(1 / ((1 - smooth) / factor + smooth), "f4")


_LLAMA3 = {"low": 1.0, "high": 4.0, "original": 8192}
"""Parameters of all of Meta's models, which GGUF does not name."""


def rope_scaling(file: GgufFile, architecture: str, head: int, theta: float) -> dict[str, Any] | None:
    """Returns rope_scaling of config.json.

    Raises:
        GgufError: the file scales rotary frequencies in an unsupported way.
    """
    key = f"{architecture}.rope.scaling.type"
    kind = file.get(key, str, "none")
    if "rope_freqs.weight" in file.tensors:
        if kind != "none":
            raise GgufError(f"{key}: expected none next to the tensor rope_freqs.weight, found {ascii(kind)[:60]}")
        found = np.concatenate([part.ravel() for part in file.values("rope_freqs.weight")])
        factor = float(found.max())
        if (
            found.shape != (head // 2,)
            or found.min() < 1
            or not np.allclose(found, llama3_factors(head, theta, factor), rtol=1e-4)
        ):
            raise GgufError(
                "tensor rope_freqs.weight: expected the factors of Llama 3.1 and later, found others, which are"
                " unsupported"
            )
        if factor == 1.0:
            return None
        return {
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": _LLAMA3["low"],
            "high_freq_factor": _LLAMA3["high"],
            "original_max_position_embeddings": _LLAMA3["original"],
        }
    if kind == "linear":
        return {"rope_type": "linear", "factor": file.positive(f"{architecture}.rope.scaling.factor", float)}
    if kind == "yarn":
        return {
            "rope_type": "yarn",
            "factor": file.positive(f"{architecture}.rope.scaling.factor", float),
            "original_max_position_embeddings": file.positive(
                f"{architecture}.rope.scaling.original_context_length", int, limit=MAX_SIZE
            ),
        }
    if kind != "none":
        raise GgufError(f"{key}: expected none, linear or yarn, found {ascii(kind)[:60]}, which is unsupported")
    return None


def read_architecture(file: GgufFile) -> tuple[str, Architecture]:
    """Returns GGUF's name of the architecture, and what is special about it.

    Raises:
        GgufError: it is unsupported, or the file has no whole model.
    """
    kind = file.get("general.type", str, "model")
    if kind != "model":
        raise GgufError(f"general.type: expected model, found {ascii(kind)[:60]}, which is unsupported")
    name = file.get("general.architecture", str)
    if name not in ARCHITECTURES:
        raise GgufError(
            f"general.architecture: expected one of {', '.join(ARCHITECTURES)}, found {ascii(name)[:60]}; take the"
            " model in the format of Hugging Face's hub"
        )
    return name, ARCHITECTURES[name]


def read_config(file: GgufFile, name: str, shape: Shape, tied: bool, generation: dict[str, Any]) -> dict[str, Any]:
    """Returns config.json.

    Raises:
        GgufError: a value is missing or unsupported.
    """
    theta = file.positive(f"{name}.rope.freq_base", float, 10000.0)
    scaling = rope_scaling(file, name, shape.head, theta)
    return {
        "architectures": [ARCHITECTURES[name].name],
        "model_type": name,
        # Qwen 2 always has biases and no such key.
        **({} if ARCHITECTURES[name].qkv_bias else {"attention_bias": False}),
        "bos_token_id": generation.get("bos_token_id"),
        "eos_token_id": generation.get("eos_token_id"),
        "head_dim": shape.head,
        "hidden_act": "silu",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.inner,
        "max_position_embeddings": shape.context,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.key_value_heads,
        "rms_norm_eps": file.positive(f"{name}.attention.layer_norm_rms_epsilon", float),
        "rope_scaling": scaling,
        "rope_theta": theta,
        "tie_word_embeddings": tied,
        "torch_dtype": "float32",
        "vocab_size": shape.vocabulary,
    }


def check_keys(file: GgufFile, name: str) -> None:
    """Checks that no key was left out that can change what the model computes. Call it when all others are read.

    Raises:
        GgufError: one was, and is unsupported.
    """
    known = {*WITHOUT_EFFECT, *(f"{name}.{key}" for key in HISTORY)}
    for prefix in (f"{name}.", "tokenizer.", "adapter."):
        for key in file.unused(prefix):
            if key not in known:
                raise GgufError(
                    f"{ascii(key)[1:-1][:200]}: expected only keys whose effect is known, found this one, which is"
                    " unsupported"
                )


def row_order(rows: int, heads: int) -> npt.NDArray[np.intp]:
    """Returns where the file has the rows of a projection of Q or K.

    A head's rotary embedding turns pairs of rows. In GGUF they are neighbors; on the hub the second of each pair is in
    the head's second half.
    """
    return np.arange(rows).reshape(heads, -1, 2).swapaxes(1, 2).ravel()


def write_safetensors(path: Path, file: GgufFile, tensors: dict[str, Weight]) -> None:
    """Writes weights as float32: the length of a header, the header, and the data."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, weight in tensors.items():
        size = 4 * math.prod(weight.shape)
        header[name] = {"dtype": "F32", "shape": list(weight.shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as output:
        output.write(struct.pack("<Q", len(text)) + text)
        for weight in tensors.values():
            order = row_order(weight.shape[0], weight.heads) if weight.heads else None
            for values in file.values(weight.source, order):
                output.write(values.data)


def convert(source: Path, folder: Path) -> None:
    """Writes the checkpoint of a GGUF file into a folder.

    Raises:
        GgufError: the file is damaged or unsupported.
        OSError: a file cannot be read or written.
    """
    file = GgufFile(source)
    name, architecture = read_architecture(file)
    shape = read_shape(file, name)
    tied = "output.weight" not in file.tensors
    tensors = dict(weights(architecture, shape, tied))
    check_tensors(file, tensors, {"rope_freqs.weight"} if name == "llama" else set())
    files = tokenizer_files(file, shape.vocabulary, shape.context)
    files["config.json"] = read_config(file, name, shape, tied, files["generation_config.json"])
    check_keys(file, name)
    folder.mkdir(parents=True, exist_ok=True)
    for path, content in files.items():
        text = json.dumps(content, ensure_ascii=False, indent=2) + "\n"
        (folder / path).write_text(text, encoding="utf-8", newline="\n")
    write_safetensors(folder / "model.safetensors", file, tensors)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="the GGUF file")
    parser.add_argument("folder", type=Path, help="the folder to write")
    options = parser.parse_args()
    try:
        convert(options.file, options.folder)
    except GgufError as error:
        print(f"gguf_checkpoint: {options.file}: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"gguf_checkpoint: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
