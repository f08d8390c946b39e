"""A seed always gives the same checkpoint of the tiny model, and both tokenizer libraries agree about it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors
import sentencepiece
import tokenizers

from models.tiny import tiny_model

CONFIG = tiny_model.TinyConfig()

TEXTS = [
    "",
    "hello world",
    "The quick brown fox jumps over the lazy dog.",
    "  two   spaces\tand\n\nlines  ",
    "naïve café 日本語 🙂 e\u0301",
    "user\nwhat is the time?\n",
    "\x00\x7f\u2581",
    "x" * 200,
]


def write(folder: Path, *options: str, hash_seed: str = "0") -> dict[str, bytes]:
    """The files that the program writes in a separate process, as in the build."""
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": hash_seed, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, tiny_model.__file__, folder, *options], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    tiny_model.write_model(folder, CONFIG, seed=0)
    return folder


@pytest.fixture(scope="module")
def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_same_seed_same_bytes(files: dict[str, bytes], tmp_path: Path) -> None:
    """In another process, with another hash seed, in another folder."""
    assert write(tmp_path / "elsewhere", hash_seed="1") == files


def test_the_build_has_the_same_checkpoint(files: dict[str, bytes]) -> None:
    built = Path(os.environ["MLC_TINY_CHECKPOINT"])
    assert {path.name: path.read_bytes() for path in built.iterdir()} == files


def test_another_seed_differs(files: dict[str, bytes], tmp_path: Path) -> None:
    other = write(tmp_path / "other", "--seed", "1")
    assert {name for name in files if other[name] != files[name]} == {
        "model.safetensors",
        "tokenizer.json",
        "tokenizer.model",
    }


def test_no_file_names_the_folder(files: dict[str, bytes], folder: Path) -> None:
    assert not [
        name for name, content in files.items() if str(folder).encode() in content or folder.name.encode() in content
    ]


@pytest.mark.parametrize("text", TEXTS)
def test_both_tokenizer_libraries_agree(folder: Path, text: str) -> None:
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = pieces.encode(text)
    assert tokenizer.encode(text, add_special_tokens=False).ids == ids
    assert tokenizer.encode(text).ids == [pieces.bos_id(), *ids]


def test_both_tokenizer_libraries_have_one_vocabulary(folder: Path) -> None:
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert pieces.get_piece_size() == tokenizer.get_vocab_size() == CONFIG.vocab_size
    assert [tokenizer.id_to_token(i) for i in range(CONFIG.vocab_size)] == [
        pieces.id_to_piece(i) for i in range(CONFIG.vocab_size)
    ]
    assert [pieces.piece_to_id(name) for name in (tiny_model.UNK, tiny_model.BOS, tiny_model.EOS)] == [0, 1, 2]


@pytest.mark.parametrize("symbol", tiny_model.CHAT_SYMBOLS)
def test_a_delimiter_of_the_chat_template_is_one_token(folder: Path, symbol: str) -> None:
    """Both agree on its id. As with Llama 2, only tokenizers splits it off before it prepends a space to the text."""
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    number = pieces.piece_to_id(symbol)
    assert number == tokenizer.token_to_id(symbol) > 2
    assert tokenizer.encode(f"{symbol}user", add_special_tokens=False).ids == [number, *pieces.encode("user")]
    assert number in pieces.encode(f"{symbol}user")


def test_the_weights_file_is_valid_and_has_the_configured_shapes(files: dict[str, bytes]) -> None:
    tensors = dict(safetensors.deserialize(files["model.safetensors"]))
    expected = dict(tiny_model.tensor_shapes(CONFIG))
    assert {name: tuple(tensor["shape"]) for name, tensor in tensors.items()} == expected
    assert {tensor["dtype"] for tensor in tensors.values()} == {"BF16"}


def test_weights_are_random_and_keep_activations_finite(files: dict[str, bytes]) -> None:
    for name, tensor in safetensors.deserialize(files["model.safetensors"]):
        values = np.frombuffer(tensor["data"], ml_dtypes.bfloat16).astype(np.float64).reshape(tensor["shape"])
        assert np.isfinite(values).all() and len(np.unique(values)) > values.size**0.5, name
        if values.ndim == 1:
            assert np.abs(values - 1).max() <= 0.21, name
        elif name != "model.embed_tokens.weight":
            assert 0.8 < values.std() * (values.shape[1] / 3) ** 0.5 < 1.2, name


def test_the_configuration_matches_the_weights(files: dict[str, bytes]) -> None:
    config = json.loads(files["config.json"])
    assert config["model_type"] == "llama" and config["architectures"] == ["LlamaForCausalLM"]
    assert config["hidden_size"] == config["num_attention_heads"] * config["head_dim"]
    assert config["num_attention_heads"] % config["num_key_value_heads"] == 0
    assert dict(tiny_model.tensor_shapes(CONFIG))["lm_head.weight"] == (config["vocab_size"], config["hidden_size"])


def test_options_choose_the_shape(tmp_path: Path) -> None:
    made = write(tmp_path / "model", "--num-hidden-layers", "1", "--hidden-size", "32")
    names = {name for name, _ in safetensors.deserialize(made["model.safetensors"])}
    assert {name.split(".")[2] for name in names if ".layers." in name} == {"0"}
    assert json.loads(made["config.json"])["hidden_size"] == 32
