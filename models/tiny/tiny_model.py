#!/usr/bin/env python3
"""Write a tiny Llama model with random weights, in the layout of a Hugging Face checkpoint.

The tests need a real model folder (config, tokenizer, weights), but neither a network nor a big
download. This makes one in a second, from a seed: the same seed gives the same bytes, so the
folder can be a cached build output and its hash can be pinned.

Only NumPy and sentencepiece are needed. The safetensors container and ``tokenizer.json`` are plain
enough to be written directly, which keeps torch, transformers and safetensors out of the build.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece

UNK, BOS, EOS = "<unk>", "<s>", "</s>"
CHAT_SYMBOLS = ("<|im_start|>", "<|im_end|>")
"""The delimiters of the ``chatml`` conversation template, one token each."""

WORDS = (
    "the quick brown fox jumps over lazy dog and then it runs away from a small red house near "
    "river where people talk about time water light music story number question answer help you "
    "are is was were be been have has had do does did will would can could should not what who "
    "when how why hello world please write list count system user assistant one two three four"
).split()


@dataclasses.dataclass(frozen=True)
class TinyConfig:
    """The shape of the model. Query heads share key/value heads, as in any recent Llama."""

    vocab_size: int = 320
    hidden_size: int = 64
    intermediate_size: int = 160
    num_hidden_layers: int = 2
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 16
    max_position_embeddings: int = 512
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0

    def to_json(self) -> dict[str, Any]:
        """The content of ``config.json``."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_act": "silu",
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "bos_token_id": 1,
            "eos_token_id": 2,
            **dataclasses.asdict(self),
        }


def corpus(seed: int, sentences: int = 400) -> Iterator[str]:
    """Yield the made-up sentences on which the tokenizer is trained."""
    random = np.random.RandomState(seed)
    for _ in range(sentences):
        words = [WORDS[i] for i in random.randint(len(WORDS), size=random.randint(4, 12))]
        yield " ".join(words).capitalize() + "."


def train_tokenizer(vocab_size: int, seed: int) -> bytes:
    """Train a byte-fallback BPE tokenizer and return the sentencepiece model."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        # An iterator and a writer instead of files: the trainer records its file names in the
        # model, and the bytes must not depend on the folder.
        sentence_iterator=corpus(seed),
        model_writer=model,
        model_type="bpe",
        vocab_size=vocab_size,
        byte_fallback=True,
        character_coverage=1.0,
        # As in Llama 2, so that tokenizer.json below can say the same thing.
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        user_defined_symbols=list(CHAT_SYMBOLS),
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def added_token(index: int, content: str) -> dict[str, Any]:
    """One entry of ``added_tokens`` in ``tokenizer.json``."""
    return {
        "id": index,
        "content": content,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }


def merges(vocab: dict[str, int]) -> list[str]:
    """Recover the ordered BPE merges from the vocabulary.

    Sentencepiece stores no merges: it joins the neighbours whose union has the best rank. The same
    result comes from listing, for each piece in order of rank, every split into two known pieces.
    """
    found = []
    for piece, rank in vocab.items():
        splits = ((piece[:i], piece[i:]) for i in range(1, len(piece)))
        for left, right in splits:
            if left in vocab and right in vocab:
                found.append((rank, vocab[left], vocab[right], f"{left} {right}"))
    return [pair for *_, pair in sorted(found)]


def tokenizer_json(model: bytes) -> dict[str, Any]:
    """Express a sentencepiece BPE model as the ``tokenizer.json`` of the tokenizers library."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    pieces = [processor.id_to_piece(i) for i in range(processor.get_piece_size())]
    specials = (UNK, BOS, EOS, *CHAT_SYMBOLS)
    mergeable = {piece: i for i, piece in enumerate(pieces) if piece not in specials and not processor.is_byte(i)}
    bos = {"SpecialToken": {"id": BOS, "type_id": 0}}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added_token(pieces.index(name), name) for name in specials],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "\u2581"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [
                bos,
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": BOS, "type_id": 1}},
                {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": {BOS: {"id": BOS, "ids": [1], "tokens": [BOS]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": UNK,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {piece: i for i, piece in enumerate(pieces)},
            "merges": merges(mergeable),
        },
    }


TOKENIZER_CONFIG: dict[str, Any] = {
    "tokenizer_class": "LlamaTokenizer",
    "add_bos_token": True,
    "add_eos_token": False,
    "bos_token": BOS,
    "eos_token": EOS,
    "unk_token": UNK,
    "legacy": True,
}


def tensor_shapes(config: TinyConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the name and the shape of every weight, in the order in which they are drawn."""
    hidden, inner = config.hidden_size, config.intermediate_size
    query = config.num_attention_heads * config.head_dim
    key_value = config.num_key_value_heads * config.head_dim
    yield "model.embed_tokens.weight", (config.vocab_size, hidden)
    for layer in range(config.num_hidden_layers):
        prefix = f"model.layers.{layer}."
        yield prefix + "input_layernorm.weight", (hidden,)
        yield prefix + "self_attn.q_proj.weight", (query, hidden)
        yield prefix + "self_attn.k_proj.weight", (key_value, hidden)
        yield prefix + "self_attn.v_proj.weight", (key_value, hidden)
        yield prefix + "self_attn.o_proj.weight", (hidden, query)
        yield prefix + "post_attention_layernorm.weight", (hidden,)
        yield prefix + "mlp.gate_proj.weight", (inner, hidden)
        yield prefix + "mlp.up_proj.weight", (inner, hidden)
        yield prefix + "mlp.down_proj.weight", (hidden, inner)
    yield "model.norm.weight", (hidden,)
    yield "lm_head.weight", (config.vocab_size, hidden)


def random_weight(random: np.random.RandomState, name: str, shape: tuple[int, ...], norm: float = 1.0) -> np.ndarray:
    """Draw one weight, as bfloat16 bit patterns. The weights of norms lie around `norm`.

    ``RandomState`` has a stream that NumPy promises never to change, and uniform numbers need no
    libm, so that the bytes are the same everywhere. bfloat16 is what weight conversion stores for
    float32 models: a test may then compare with the original weights, exactly.
    """
    noise = random.random_sample(shape) * 2.0 - 1.0
    if name.endswith(".bias"):
        values = noise
    elif len(shape) == 1:  # A norm: around one, so that activations keep their size.
        values = norm + 0.2 * noise
    elif name == "model.embed_tokens.weight":
        values = noise
    else:  # Variance 3 / fan-in: activations keep their size, attention is far from uniform.
        values = noise * 3.0 / np.sqrt(shape[1])
    return (values.astype("<f4").view("<u4") >> 16).astype("<u2")


def safetensors(tensors: Iterable[tuple[str, np.ndarray]]) -> bytes:
    """Pack bfloat16 bit patterns into the safetensors format."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    blobs: list[bytes] = []
    offset = 0
    for name, tensor in tensors:
        blob = tensor.tobytes()
        header[name] = {
            "dtype": "BF16",
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + len(blob)],
        }
        offset += len(blob)
        blobs.append(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # The format wants the data aligned to eight bytes.
    return b"".join([struct.pack("<Q", len(text)), text, *blobs])


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON with stable formatting."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_checkpoint(
    folder: Path, config: dict[str, Any], shapes: Iterable[tuple[str, tuple[int, ...]]], seed: int, norm: float = 1.0
) -> None:
    """Write the whole folder of a model.

    Args:
        folder: where to write.
        config: the content of config.json.
        shapes: names and shapes of the weights, in the order in which they are drawn.
        seed: of weights and tokenizer.
        norm: the number around which the weights of norms lie.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = train_tokenizer(config["vocab_size"], seed)
    random = np.random.RandomState(seed)
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", {"bos_token_id": 1, "eos_token_id": 2, "max_length": 64})
    write_json(folder / "tokenizer_config.json", TOKENIZER_CONFIG)
    write_json(folder / "tokenizer.json", tokenizer_json(model))
    (folder / "tokenizer.model").write_bytes(model)
    weights = ((name, random_weight(random, name, shape, norm)) for name, shape in shapes)
    (folder / "model.safetensors").write_bytes(safetensors(weights))


def write_model(folder: Path, config: TinyConfig, seed: int) -> None:
    """Write the folder of the tiny Llama."""
    write_checkpoint(folder, config.to_json(), tensor_shapes(config), seed)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="the folder to write")
    parser.add_argument("--seed", type=int, default=0)
    for field in dataclasses.fields(TinyConfig):
        parser.add_argument("--" + field.name.replace("_", "-"), type=type(field.default), default=field.default)
    arguments = vars(parser.parse_args())
    folder, seed = arguments.pop("folder"), arguments.pop("seed")
    write_model(folder, TinyConfig(**arguments), seed)


if __name__ == "__main__":
    main()
