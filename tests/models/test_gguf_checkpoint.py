"""gguf_checkpoint turns GGUF files into checkpoints of Hugging Face's layout, and refuses what it does not know."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import gguf_models
import numpy as np
import pytest
import tokenizers
from gguf_models import HEAD, HEADS, KEY_VALUE_HEADS, NAMED, TOKENS
from numpy_llama import Llama, read_safetensors, rotate

from models.private import gguf_checkpoint, gguf_file

Q4_0, Q8_0, F16, BF16 = (getattr(gguf.GGMLQuantizationType, name) for name in ("Q4_0", "Q8_0", "F16", "BF16"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.gguf"


def convert(path: Path) -> Path:
    folder = path.parent / "checkpoint"
    gguf_checkpoint.convert(path, folder)
    return folder


def read(folder: Path, name: str = "config.json") -> dict[str, Any]:
    return json.loads((folder / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_weights_come_back_exactly(path: Path, architecture: str, tied: bool) -> None:
    weights = gguf_models.checkpoint(architecture, tied)
    folder = convert(gguf_models.write(path, architecture, weights))
    found = read_safetensors(folder / "model.safetensors")
    assert found.keys() == weights.keys()
    for name, weight in weights.items():
        np.testing.assert_array_equal(found[name], weight, err_msg=name)
    assert read(folder)["tie_word_embeddings"] is tied


@pytest.mark.parametrize("kind", [F16, BF16, Q8_0, Q4_0], ids=lambda kind: kind.name)
def test_quantized_weights_have_the_values_of_their_type(path: Path, kind: gguf.GGMLQuantizationType) -> None:
    weights = gguf_models.checkpoint("llama")
    found = read_safetensors(convert(gguf_models.write(path, weights=weights, quantization=kind)) / "model.safetensors")
    for name, weight in weights.items():
        expected = gguf.dequantize(gguf.quantize(weight, kind), kind) if weight.ndim == 2 else weight
        np.testing.assert_array_equal(found[name], expected, err_msg=name)


def test_large_tensors_are_written_in_pieces(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = convert(gguf_models.write(path))
    whole = (folder / "model.safetensors").read_bytes()
    monkeypatch.setattr(gguf_file, "CHUNK", 5 * gguf_models.HIDDEN)
    assert (convert(path) / "model.safetensors").read_bytes() == whole


def test_the_order_of_rows_is_that_of_the_rotary_embedding(path: Path) -> None:
    """llama.cpp turns neighbors of a head in the file's order; the hub's code turns its halves in the hub's order."""
    weights = gguf_models.checkpoint("llama")
    found = read_safetensors(convert(gguf_models.write(path, weights=weights)) / "model.safetensors")
    stored = gguf_models.in_file_order("llama", weights)
    x = np.random.RandomState(5).standard_normal((7, gguf_models.HIDDEN))
    theta = 500000.0
    angle = np.arange(7)[:, None, None] * theta ** (-np.arange(HEAD // 2) / (HEAD // 2))
    scores = []
    for turn, query, key in (
        (
            lambda y: _turn_neighbors(y, angle),
            stored["blk.0.attn_q.weight"],
            stored["blk.0.attn_k.weight"],
        ),
        (
            lambda y: rotate(y, theta),
            found["model.layers.0.self_attn.q_proj.weight"],
            found["model.layers.0.self_attn.k_proj.weight"],
        ),
    ):
        q, k = (turn((x @ weight.T).reshape(7, -1, HEAD)) for weight in (query, key))
        scores.append(np.einsum("qhd,khd->hqk", q, k.repeat(HEADS // KEY_VALUE_HEADS, axis=1)))
    np.testing.assert_allclose(scores[1], scores[0], atol=1e-12)


def _turn_neighbors(x: np.ndarray, angle: np.ndarray) -> np.ndarray:
    first, second = x[..., ::2], x[..., 1::2]
    turned = first * np.cos(angle) - second * np.sin(angle), second * np.cos(angle) + first * np.sin(angle)
    return np.stack(turned, axis=-1).reshape(x.shape)


def test_a_converted_model_computes_what_the_original_does(path: Path) -> None:
    """The whole forward pass, with the configuration that was written."""
    weights = gguf_models.checkpoint("llama")
    model = Llama(convert(gguf_models.write(path, weights=weights)))
    converted = model.logits([5, 9, 3, 7])
    model.weights = {name: weight.astype("float64") for name, weight in weights.items()}
    model.config |= {"rope_theta": 500000.0, "rms_norm_eps": 1e-5}
    np.testing.assert_array_equal(converted, model.logits([5, 9, 3, 7]))


@pytest.mark.parametrize(
    ("architecture", "name"),
    [("llama", "LlamaForCausalLM"), ("qwen2", "Qwen2ForCausalLM"), ("qwen3", "Qwen3ForCausalLM")],
)
def test_configuration(path: Path, architecture: str, name: str) -> None:
    config = read(convert(gguf_models.write(path, architecture)))
    assert config == {
        "architectures": [name],
        "model_type": architecture,
        **({} if architecture == "qwen2" else {"attention_bias": False}),
        "bos_token_id": 0,
        "eos_token_id": 1,
        "head_dim": 16,
        "hidden_act": "silu",
        "hidden_size": 64,
        "intermediate_size": 96,
        "max_position_embeddings": 256,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        # Not 9.999999747378752e-06, which the file's float32 is.
        "rms_norm_eps": 1e-05,
        "rope_scaling": None,
        "rope_theta": 500000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "vocab_size": len(TOKENS),
    }


def llama3_factors(factor: float, theta: float) -> np.ndarray:
    """As transformers computes them (_compute_llama3_parameters), one frequency at a time."""
    factors = []
    for index in range(HEAD // 2):
        frequency = theta ** (-2 * index / HEAD)
        length = 2 * np.pi / frequency
        if length < 8192 / 4:
            factors.append(1.0)
        elif length > 8192:
            factors.append(factor)
        else:
            smooth = (8192 / length - 1) / (4 - 1)
            factors.append(frequency / ((1 - smooth) * frequency / factor + smooth * frequency))
    return np.array(factors, "f4")


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_rotary_factors_of_llama_3_1(path: Path, factor: float) -> None:
    tensors: dict[str, np.ndarray | None] = {"rope_freqs.weight": llama3_factors(factor, 500000.0)}
    folder = convert(gguf_models.write(path, tensors=tensors))
    assert read(folder)["rope_scaling"] == {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    assert "rope_freqs" not in str(read_safetensors(folder / "model.safetensors").keys())


def test_scaled_rotary_embedding(path: Path) -> None:
    scaling = {
        "qwen2.rope.scaling.type": "yarn",
        "qwen2.rope.scaling.factor": 4.0,
        "qwen2.rope.scaling.original_context_length": 64,
    }
    assert read(convert(gguf_models.write(path, "qwen2", values=scaling)))["rope_scaling"] == {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 64,
    }


def test_same_bytes_every_time(path: Path, tmp_path: Path) -> None:
    gguf_models.write(path, "qwen3")
    runs = []
    for index in range(2):
        folder = tmp_path / f"run{index}"
        environment = {"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": str(index), "PYTHONDONTWRITEBYTECODE": "1"}
        subprocess.run([sys.executable, gguf_checkpoint.__file__, path, folder], check=True, env=environment)
        runs.append({file.name: file.read_bytes() for file in folder.iterdir()})
    assert runs[0] == runs[1] and len(runs[0]) == 5


def test_memory_does_not_grow_with_the_model(path: Path, tmp_path: Path) -> None:
    """A tensor of 100 MB as float32, of which the process holds pieces of 16 MB."""
    inner = 1 << 18
    tensors: dict[str, np.ndarray | None] = {}
    for index in range(gguf_models.LAYERS):
        for part, shape in ("gate", (inner, 96)), ("up", (inner, 96)), ("down", (96, inner)):
            tensors[f"blk.{index}.ffn_{part}.weight"] = np.ones(shape, "f4")
    weights = {
        name: np.resize(weight, [96 if size == 64 else size for size in weight.shape])
        for name, weight in gguf_models.checkpoint("llama").items()
    }
    values = {"llama.embedding_length": 96, "llama.feed_forward_length": inner}
    values |= {"llama.attention.key_length": 16, "llama.attention.value_length": 16}
    for name in [name for name in weights if "self_attn" in name]:
        rows = {"q": 64, "k": 32, "v": 32, "o": 96}[name.split(".")[4][0]]
        weights[name] = np.ones((rows, 64 if rows == 96 else 96), "f4")
    gguf_models.write(path, weights=weights, tensors=tensors, values=values, quantization=Q8_0)
    program = (
        "import resource, sys; from pathlib import Path; from models.private import gguf_checkpoint;"
        f"resource.setrlimit(resource.RLIMIT_DATA, ({LIMIT}, {LIMIT}));"
        "gguf_checkpoint.convert(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    environment = {"PYTHONPATH": ":".join(sys.path), "OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, "-c", program, path, tmp_path / "made"], check=True, env=environment)
    assert (tmp_path / "made/model.safetensors").stat().st_size > 2 * 3 * 4 * 96 * inner


LIMIT = 160 << 20
"""Bytes of memory, without maps of files. Python and NumPy use 60 MiB of them."""


# Tokenizers.


def load(folder: Path) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))


def test_byte_level_tokenizer(path: Path) -> None:
    folder = convert(gguf_models.write(path))
    tokenizer = load(folder)
    assert tokenizer.encode("hello world 12<|end|>\n").tokens == [
        *["hello", "Ġwor", "l", "d", "Ġ", "1", "2", "<|end|>", "Ċ"],
    ]
    # Without [PAD], which only fills up the matrix.
    assert tokenizer.get_vocab_size() == len(TOKENS) - 1
    assert [tokenizer.id_to_token(number) for number in range(len(TOKENS) - 1)] == TOKENS[:-1]
    text = "naïve 日本語 🙂\t\x00 it's <tool>"
    assert tokenizer.decode(tokenizer.encode(text).ids) == text
    # Tokens of the format are dropped from answers, tokens that users may write are not.
    assert tokenizer.decode(tokenizer.encode("<|end|><tool>").ids) == "<tool>"
    config = read(folder, "tokenizer_config.json")
    assert config == {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": False,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 256,
        "bos_token": "<|begin|>",
        "eos_token": "<|end|>",
        "pad_token": "<|pad|>",
        "chat_template": "{% for m in messages %}{{ m['content'] }}<|end|>{% endfor %}",
    }
    assert read(folder, "generation_config.json") == {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}


@pytest.mark.parametrize(
    ("pre", "words"),
    [
        ("gpt-2", ["it", "'s", "Ġ1234", "Ġ", "Ġx", "!!", "Ċ", "Ċ", "IT", "'", "S"]),
        ("smollm", ["it", "'s", "Ġ", "1", "2", "3", "4", "Ġ", "Ġx", "!!", "Ċ", "Ċ", "IT", "'", "S"]),
        ("llama-bpe", ["it", "'s", "Ġ", "123", "4", "Ġ", "Ġx", "!!ĊĊ", "IT", "'S"]),
        ("qwen2", ["it", "'s", "Ġ", "1", "2", "3", "4", "Ġ", "Ġx", "!!ĊĊ", "IT", "'S"]),
    ],
)
def test_pre_tokenizers_split_as_their_models_do(path: Path, pre: str, words: list[str]) -> None:
    tokenizer = load(convert(gguf_models.write(path, values={"tokenizer.ggml.pre": pre})))
    found = [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str("it's 1234  x!!\n\nIT'S")]
    assert found == words
    composed = tokenizer.normalizer.normalize_str("e\u0301") if tokenizer.normalizer else "e\u0301"
    assert composed == ("\u00e9" if pre == "qwen2" else "e\u0301")


def test_llama_3_starts_texts_and_takes_words_that_are_tokens(path: Path) -> None:
    values = {"tokenizer.ggml.pre": "llama-bpe", "tokenizer.ggml.merges": ["h e"], "tokenizer.ggml.eot_token_id": 2}
    folder = convert(gguf_models.write(path, values=values))
    assert load(folder).encode("hello").tokens == ["<|begin|>", "hello"]
    assert load(folder).encode("hello", add_special_tokens=False).tokens == ["hello"]
    # An answer may end with either.
    assert read(folder, "generation_config.json")["eos_token_id"] == [1, 2]
    values |= {"tokenizer.ggml.add_bos_token": False, "tokenizer.ggml.add_eos_token": True}
    path.unlink()
    assert load(convert(gguf_models.write(path, values=values))).encode("he").tokens == ["he", "<|end|>"]


def test_every_token_that_ends_an_answer_is_kept(path: Path) -> None:
    """Llama 3.1 ends a call of a tool with <|eom_id|>: without it the answer runs on to the limit."""
    values: dict[str, Any] = {"tokenizer.ggml.eot_token_id": 3, "tokenizer.ggml.eom_token_id": 2}
    values |= {"tokenizer.ggml.eog_token_ids": [4, 1, 3]}
    folder = convert(gguf_models.write(path, values=values))
    assert read(folder, "generation_config.json")["eos_token_id"] == [1, 3, 2, 4]
    assert read(folder)["eos_token_id"] == [1, 3, 2, 4]


def test_keys_without_an_effect_are_allowed(path: Path) -> None:
    plain = convert(gguf_models.write(path))
    expected = {file.name: file.read_bytes() for file in plain.iterdir()}
    path.unlink()
    values = {"general.type": "model", "llama.rope.scaling.finetuned": False, "tokenizer.ggml.fim_pre_token_id": 3}
    values |= {"tokenizer.ggml.add_sep_token": False, "tokenizer.ggml.scores": [0.0], "general.url": "x"}
    folder = convert(gguf_models.write(path, values=values))
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == expected


def test_all_chat_templates_are_kept(path: Path) -> None:
    values = {
        "tokenizer.chat_template": "a",
        "tokenizer.chat_template.tool_use": "b",
        "tokenizer.chat_templates": ["x"],
    }
    config = read(convert(gguf_models.write(path, values=values)), "tokenizer_config.json")
    assert config["chat_template"] == [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}]


def sentencepiece_values() -> dict[str, Any]:
    pieces = ["\u2581", "h", "e", "l", "o", "he", "ll", "llo", "hello", "\u2581hello", "el", "w"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{number:02X}>" for number in range(256)), *pieces]
    types = [2, 3, 3, *([6] * 256), *([1] * len(pieces))]
    scores = [0.0] * 259 + [-100.0] * 5 + [-1.0, -2.0, -3.0, -4.0, -5.0, -50.0, -100.0]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.merges": None,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.padding_token_id": None,
        "tokenizer.ggml.unknown_token_id": 0,
    }


def write_sentencepiece(path: Path, **values: Any) -> Path:
    metadata = {**sentencepiece_values(), **{f"tokenizer.ggml.{key}": value for key, value in values.items()}}
    size = len(metadata["tokenizer.ggml.tokens"])
    embedding = np.zeros((size, gguf_models.HIDDEN), "f4")
    tensors: dict[str, np.ndarray | None] = {"token_embd.weight": embedding, "output.weight": embedding}
    return gguf_models.write(path, values=metadata, tensors=tensors)


def test_sentencepiece_tokenizer(path: Path) -> None:
    tokenizer = load(convert(write_sentencepiece(path)))
    assert tokenizer.encode("hello").tokens == ["<s>", "\u2581hello"]
    assert tokenizer.encode("ll hello").tokens == ["<s>", "\u2581", "ll", "\u2581hello"]
    assert tokenizer.encode("é</s>w").tokens == ["<s>", "\u2581", "<0xC3>", "<0xA9>", "</s>", "\u2581", "w"]
    assert tokenizer.decode(tokenizer.encode("hello  w é").ids) == "hello  w é"


def test_sentencepiece_tokenizer_without_a_space_in_front(path: Path) -> None:
    tokenizer = load(convert(write_sentencepiece(path, add_space_prefix=False, add_bos_token=False)))
    assert tokenizer.encode("hello").tokens == ["hello"]
    assert tokenizer.decode(tokenizer.encode(" hello").ids) == " hello"


# What is refused.


def message(path: Path) -> str:
    """The one line about a file."""
    with pytest.raises(gguf_file.GgufError) as error:
        convert(path)
    line = str(error.value)
    assert "\n" not in line and len(line) < 700
    assert not (path.parent / "checkpoint").exists(), "refused only after something was written"
    return line


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"llama.block_count": None}, "llama.block_count: expected int, found nothing"),
        ({"llama.block_count": "two"}, "llama.block_count: expected int, found str 'two'"),
        ({"llama.block_count": 2**31}, "llama.block_count: expected a positive number below 4096, found 2147483648"),
        ({"llama.block_count": 3}, "tensor blk.2.attn_norm.weight: expected shape [64], found no such tensor"),
        ({"llama.block_count": 1}, "tensor blk.1.attn_k.weight: expected only tensors of the architecture llama"),
        ({"llama.attention.head_count": 0}, "llama.attention.head_count: expected a positive number"),
        ({"llama.attention.head_count": [4, 2]}, "llama.attention.head_count: expected int, found list [4, 2]"),
        ({"llama.attention.head_count_kv": 3}, "head_count_kv: expected a divisor of 4 heads, found 3"),
        ({"llama.attention.key_length": 15}, "llama.attention.key_length: expected an even number, found 15"),
        ({"llama.attention.value_length": 8}, "llama.attention.value_length: expected 16, found 8"),
        ({"llama.rope.dimension_count": 8}, "llama.rope.dimension_count: expected 16, found 8"),
        ({"llama.rope.freq_base": float("nan")}, "llama.rope.freq_base: expected a finite float32, found nan"),
        ({"llama.rope.freq_base": 0.0}, "llama.rope.freq_base: expected a positive number, found 0.0"),
        ({"llama.rope.freq_base": -1.0}, "llama.rope.freq_base: expected a positive number, found -1.0"),
        ({"llama.context_length": 0}, "llama.context_length: expected a positive number below 2147483648, found 0"),
        ({"llama.attention.layer_norm_rms_epsilon": -1.0}, "rms_epsilon: expected a positive number, found -1.0"),
        (
            {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 0.0},
            "llama.rope.scaling.factor: expected a positive number, found 0.0",
        ),
        (
            {
                "llama.rope.scaling.type": "yarn",
                "llama.rope.scaling.factor": 4.0,
                "llama.rope.scaling.original_context_length": 0,
            },
            "original_context_length: expected a positive number below 2147483648, found 0",
        ),
        ({"llama.rope.scaling.type": "longrope"}, "llama.rope.scaling.type: expected none, linear or yarn, found 'l"),
        ({"llama.rope.scaling.attn_factor": 2.0}, "llama.rope.scaling.attn_factor: expected only keys whose effect"),
        ({"llama.attention.sliding_window": 128}, "llama.attention.sliding_window: expected only keys whose effect"),
        (
            {"llama.embedding_length": 128},
            "token_embd.weight: expected shape [142, 128], found [142, 64]".replace("142", str(len(TOKENS))),
        ),
        ({"llama.vocab_size": 99}, f"llama.vocab_size: expected {len(TOKENS)}, found 99"),
        ({"llama.expert_count": 8}, "llama.expert_count: expected 0, found a mixture of experts"),
        ({"split.count": 3}, "split.count: expected one file, found one of 3; join them with llama-gguf-split --merge"),
        ({"tokenizer.ggml.model": "t5"}, "tokenizer.ggml.model: expected gpt2 or llama, found 't5'; take the model"),
        ({"tokenizer.ggml.pre": "tekken"}, "tokenizer.ggml.pre: expected one of gpt-2, llama-bpe, qwen2, smollm"),
        ({"tokenizer.ggml.pre": None}, "tokenizer.ggml.pre: expected str, found nothing"),
        ({"tokenizer.ggml.tokens": None}, "tokenizer.ggml.tokens: expected a list of str, found None"),
        ({"tokenizer.ggml.tokens": TOKENS[:-1]}, "tokenizer.ggml.token_type: expected"),
        ({"tokenizer.ggml.tokens": [*TOKENS[:-2], "h", "i"]}, "expected different tokens, found 'h' twice"),
        ({"tokenizer.ggml.merges": ["h e", "x y"]}, "tokenizer.ggml.merges: expected two tokens that make a third"),
        ({"tokenizer.ggml.merges": ["he"]}, "tokenizer.ggml.merges: expected two tokens that make a third, found 'he'"),
        ({"tokenizer.ggml.eos_token_id": 9999}, "tokenizer.ggml.eos_token_id: expected one of"),
        ({"tokenizer.ggml.eom_token_id": 9999}, "tokenizer.ggml.eom_token_id: expected one of"),
        ({"tokenizer.ggml.eog_token_ids": [1, -1]}, "tokenizer.ggml.eog_token_ids: expected one of"),
        (
            {"tokenizer.ggml.bos_token_id": None, "tokenizer.ggml.add_bos_token": True},
            "tokenizer.ggml.bos_token_id: expected a token to add to texts, found none",
        ),
        (
            {"tokenizer.ggml.token_type": [1] * (len(TOKENS) - 1) + [99]},
            "token_type: expected types from 1 to 6, found 99",
        ),
        ({"tokenizer.ggml.token_type": [0] * len(TOKENS)}, "token_type: expected types from 1 to 6, found 0"),
        ({"tokenizer.ggml.remove_extra_whitespaces": True}, "remove_extra_whitespaces: expected False, found True"),
        ({"tokenizer.ggml.add_sep_token": True}, "tokenizer.ggml.add_sep_token: expected False, found True"),
        ({"tokenizer.ggml.normalizer.lowercase": True}, "normalizer.lowercase: expected False, found True"),
        ({"tokenizer.ggml.precompiled_charsmap": [1, 2]}, "tokenizer.ggml.precompiled_charsmap: expected only keys"),
        ({"tokenizer.ggml.of_next_year": 1}, "tokenizer.ggml.of_next_year: expected only keys whose effect is known"),
        ({"general.type": "adapter"}, "general.type: expected model, found 'adapter'"),
        ({"adapter.type": "lora"}, "adapter.type: expected only keys whose effect is known"),
        ({"tokenizer.ggml.add_space_prefix": True}, "add_space_prefix: expected False for a byte-level tokenizer"),
        ({"general.alignment": 3}, "Invalid alignment"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_unsupported_values(path: Path, values: dict[str, Any], expected: str) -> None:
    assert expected in message(gguf_models.write(path, values=values))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            lambda w: w.add_uint64("llama.context_length", 2**63),
            "llama.context_length: expected a positive number below",
        ),
        (lambda w: w.add_int32("llama.context_length", -5), "llama.context_length: expected a positive number below"),
        # They are finite, but not as float32.
        (lambda w: w.add_float64("llama.rope.freq_base", 1e300), "freq_base: expected a finite float32"),
        (lambda w: w.add_float64("llama.rope.freq_base", 1e-300), "freq_base: expected a positive number, found 0.0"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_numbers_of_other_types(path: Path, change: gguf_models.Change, expected: str) -> None:
    values = dict.fromkeys(["llama.context_length", "llama.rope.freq_base"])
    given = {"llama.context_length": 256} if "freq_base" in expected else {}
    assert expected in message(gguf_models.write(path, values={**values, **given}, change=change))


def test_unsupported_architecture(path: Path) -> None:
    assert message(gguf_models.write(path, "mamba")) == (
        "general.architecture: expected one of llama, qwen2, qwen3, found 'mamba'; take the model in the format of"
        " Hugging Face's hub"
    )


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        ({"blk.1.ffn_up.weight": None}, "tensor blk.1.ffn_up.weight: expected shape [96, 64], found no such tensor"),
        ({"rope_freqs.weight": np.zeros(8, "f4")}, "tensor rope_freqs.weight: expected the factors of Llama"),
        ({"rope_freqs.weight": np.full(8, -1, "f4")}, "tensor rope_freqs.weight: expected the factors of Llama"),
        ({"blk.0.attn_q.weight": np.zeros((32, 64), "f4")}, "attn_q.weight: expected shape [64, 64], found [32, 64]"),
        ({"blk.0.attn_q.bias": np.zeros(64, "f4")}, "tensor blk.0.attn_q.bias: expected only tensors of the archi"),
        ({"rope_freqs.weight": np.arange(1, 9, dtype="f4")}, "tensor rope_freqs.weight: expected the factors of Llama"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
@pytest.mark.filterwarnings("error")
def test_unsupported_tensors(path: Path, tensors: dict[str, np.ndarray | None], expected: str) -> None:
    assert expected in message(gguf_models.write(path, tensors=tensors))


@pytest.mark.parametrize("kind", ["linear", "yarn"])
def test_rotary_factors_next_to_another_scaling(path: Path, kind: str) -> None:
    """llama.cpp applies both, for which the hub's format has no name."""
    values: dict[str, Any] = {"llama.rope.scaling.type": kind, "llama.rope.scaling.factor": 4.0}
    values |= {"llama.rope.scaling.original_context_length": 64} if kind == "yarn" else {}
    tensors: dict[str, np.ndarray | None] = {"rope_freqs.weight": llama3_factors(8.0, 500000.0)}
    assert message(gguf_models.write(path, values=values, tensors=tensors)) == (
        f"llama.rope.scaling.type: expected none next to the tensor rope_freqs.weight, found '{kind}'"
    )


def test_weights_that_are_no_numbers(path: Path) -> None:
    weight = np.full((64, 64), np.nan, "f4")
    gguf_models.write(path, tensors={"blk.1.attn_output.weight": weight})
    with pytest.raises(gguf_file.GgufError, match="tensor blk.1.attn_output.weight: expected finite numbers"):
        convert(path)


def test_sentencepiece_without_bytes(path: Path) -> None:
    values = sentencepiece_values()
    types = [1 if kind == 6 else kind for kind in values["tokenizer.ggml.token_type"]]
    assert "unknown token 0 and 0 bytes" in message(write_sentencepiece(path, token_type=types))


def test_sentencepiece_with_scores_that_are_no_numbers(path: Path) -> None:
    scores = [*sentencepiece_values()["tokenizer.ggml.scores"][:-1], float("nan")]
    assert message(write_sentencepiece(path, scores=scores)) == (
        "tokenizer.ggml.scores: expected finite numbers, found others"
    )


class Damage:
    """The positions of fields in a model's file."""

    def __init__(self, path: Path) -> None:
        self.path, self.content = path, bytearray(gguf_models.write(path).read_bytes())

    def tensor(self, name: str) -> int:
        """The position after a tensor's name: dimensions, their sizes, type, offset."""
        return self.content.index(struct.pack("<Q", len(name)) + name.encode()) + 8 + len(name)

    def value(self, key: str) -> int:
        """The position after a key and its type."""
        return self.content.index(struct.pack("<Q", len(key)) + key.encode()) + 8 + len(key) + 4

    def put(self, position: int, form: str, *numbers: int) -> None:
        struct.pack_into(form, self.content, position, *numbers)
        self.path.write_bytes(self.content)

    def shift(self, name: str, distance: int) -> None:
        """Moves a tensor's data to other bytes of the file."""
        position = self.tensor(name) + 24
        self.put(position, "<Q", struct.unpack_from("<Q", self.content, position)[0] + distance)


NAME = "blk.0.attn_q.weight"


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda d: d.put(0, "<I", 0), "expected a GGUF file, found a damaged one or another format (GGUF magic"),
        (lambda d: d.put(4, "<I", 1), "file appears to be version 1"),
        (lambda d: d.put(4, ">I", 3), "expected little-endian numbers, found big-endian ones"),
        (lambda d: d.put(8, "<Q", 2**63), "found the end of the file"),
        (lambda d: d.put(16, "<Q", 2**64 - 1), "found the end of the file"),
        (lambda d: d.put(24, "<Q", 2**60), "expected 1152921504606846976 bytes at offset 32, found the end"),
        (lambda d: d.put(d.value("tokenizer.ggml.token_type") - 4, "<I", 77), "(77) is not a valid GGUFValueType"),
        # As if the zeros after the header were another tensor.
        (
            lambda d: d.put(d.tensor(NAME) - len(NAME) - 8, "<QI", 0, 0),
            "expected the name of a tensor at offset 4766, found an empty one",
        ),
        # As many bytes as the file has not: without a check an endless loop.
        (lambda d: d.put(d.value("tokenizer.ggml.token_type"), "<IQ", 0, 2**62), "found the end of the file"),
        (lambda d: d.put(d.value("tokenizer.ggml.tokens") + 4, "<Q", 2**62), "found the end of the file"),
        (lambda d: d.put(d.tensor(NAME), "<I", 2**31), "found the end of the file"),
        (lambda d: d.put(d.tensor(NAME), "<I", 0), f"tensor {NAME}: expected one of"),
        (lambda d: d.put(d.tensor(NAME) + 4, "<QQ", 2**33, 2**33), f"tensor {NAME}: expected its data in the file"),
        (lambda d: d.put(d.tensor(NAME) + 4, "<Q", 0), f"tensor {NAME}: expected one or two dimensions"),
        (lambda d: d.put(d.tensor(NAME) + 20, "<I", 999), f"tensor {NAME}: expected one of BF16, F16, F32,"),
        (lambda d: d.put(d.tensor(NAME) + 20, "<I", 28), "found F64; take a file with another quantization"),
        (lambda d: d.put(d.tensor(NAME) + 24, "<Q", 2**64 - 32), f"tensor {NAME}: expected its data in the file"),
        (lambda d: d.put(d.tensor(NAME) + 24, "<Q", len(d.content) - 32), "expected its data in the file"),
        # At the place of another tensor, misaligned, and with unused bytes in front.
        (lambda d: d.put(d.tensor(NAME) + 24, "<Q", 0), f"tensor {NAME}: expected its data at offset 69120, after"),
        (lambda d: d.shift(NAME, 4), f"tensor {NAME}: expected its data at offset 69120, after the tensor before it"),
        (lambda d: d.shift(NAME, 32), "before it, found 69152: the file is damaged"),
        (lambda d: d.path.write_bytes(d.content[:-1]), "found the end of the file"),
        (lambda d: d.path.write_bytes(d.content[: d.value("tokenizer.ggml.tokens") + 99]), "found the end of the file"),
        (lambda d: d.path.write_bytes(b"GG"), "found the end of the file"),
        (lambda d: d.path.write_bytes(b""), "expected a GGUF file, found a damaged one"),
    ],
)
def test_damaged_files(path: Path, damage: Callable[[Damage], None], expected: str) -> None:
    damage(Damage(path))
    assert expected in message(path)


def test_nested_lists(path: Path) -> None:
    """Lists in lists in lists, deeper than Python's stack."""
    nested = struct.pack("<IQ", 9, 1) * 100_000
    path.write_bytes(b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"x" + struct.pack("<I", 9) + nested)
    assert "found a damaged one" in message(path)


def test_too_many_values(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_file, "MAX_VALUES", 500)
    assert message(gguf_models.write(path)) == "expected at most 500 values in the header, found more"


@pytest.mark.parametrize(
    ("prepare", "line"),
    [
        (lambda path: gguf_models.write(path, "mamba"), "gguf_checkpoint: {path}: general.architecture: expected"),
        (
            lambda path: path.parent.mkdir(exist_ok=True),
            "gguf_checkpoint: [Errno 2] No such file or directory: '{path}'",
        ),
    ],
    ids=["unsupported", "missing"],
)
def test_the_program_reports_an_error_in_one_line(path: Path, prepare: Callable[[Path], object], line: str) -> None:
    prepare(path)
    environment = {"PYTHONPATH": ":".join(sys.path), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, gguf_checkpoint.__file__, path, path.parent / "made"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith(line.format(path=path)) and done.stderr.count("\n") == 1
    assert NAMED[0] not in done.stderr
