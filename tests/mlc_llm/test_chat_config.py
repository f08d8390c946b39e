"""mlc-chat-config.json survives reading and writing, has upstream's defaults, and its errors name the wrong field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pydantic
import pytest
import tiny_model_files
from mlc_llm.model import MODELS
from mlc_llm.protocol.mlc_chat_config import MLC_CHAT_SYSTEM_DEFAULT, MLCChatConfig
from mlc_llm.quantization import QUANTIZATION

FILE = tiny_model_files.WEIGHTS / "mlc-chat-config.json"

REQUIRED = {
    "attention_sink_size",
    "context_window_size",
    "conv_template",
    "model_config",
    "model_type",
    "prefill_chunk_size",
    "quantization",
    "sliding_window_size",
    "tensor_parallel_shards",
    "vocab_size",
}


@pytest.fixture
def content() -> dict[str, Any]:
    """The content of the built model's file."""
    return json.loads(FILE.read_text())


def load(content: dict[str, Any]) -> MLCChatConfig:
    return MLCChatConfig.model_validate(content)


def test_the_builds_file_is_written_back_byte_for_byte() -> None:
    text = FILE.read_text()
    assert json.dumps(load(json.loads(text)).model_dump(by_alias=True), indent=2) == text


def test_load_dump_load_is_load(content: dict[str, Any], tmp_path: Path) -> None:
    content["conv_template"]["stop_str"] = ["\n", "🙂"]
    config = load(content | {"temperature": 0.25, "eos_token_id": [2, 7]})
    file = tmp_path / "mlc-chat-config.json"
    file.write_text(config.model_dump_json(by_alias=True))
    assert load(json.loads(file.read_text())) == config
    assert (config.temperature, config.eos_token_id, config.conv_template.stop_str) == (0.25, [2, 7], ["\n", "🙂"])


def test_the_fields_are_known_to_the_registries(content: dict[str, Any]) -> None:
    assert content["model_type"] in MODELS and content["quantization"] in QUANTIZATION
    config = MODELS[content["model_type"]].config.from_dict(content["model_config"])
    assert config.asdict() == content["model_config"]


def test_sizes_within_and_outside_of_the_model_configuration_agree(content: dict[str, Any]) -> None:
    for name in ("context_window_size", "prefill_chunk_size", "tensor_parallel_shards", "vocab_size"):
        assert content[name] == content["model_config"][name]


def test_it_names_no_folder_of_the_build() -> None:
    assert "/" not in FILE.read_text()


def test_the_tokenizer_files_that_it_names_exist(content: dict[str, Any]) -> None:
    assert content["tokenizer_files"]
    assert all((FILE.parent / name).is_file() for name in content["tokenizer_files"])


@pytest.mark.parametrize("name", sorted(REQUIRED))
def test_a_missing_field_is_refused_by_its_name(content: dict[str, Any], name: str) -> None:
    del content[name]
    with pytest.raises(
        pydantic.ValidationError, match=rf"(?s)1 validation error for MLCChatConfig\n{name}\n  Field required"
    ):
        load(content)


def test_all_other_fields_have_defaults(content: dict[str, Any]) -> None:
    config = load({name: content[name] for name in REQUIRED})
    assert config.get_system_defaults_for_missing_fields() == MLC_CHAT_SYSTEM_DEFAULT
    assert (config.version, config.field_model_task, config.pipeline_parallel_stages) == ("0.1.0", "chat", 1)
    assert (config.tokenizer_files, config.tokenizer_info, config.embedding_metadata) == ([], {}, None)


@pytest.mark.parametrize("name", MLC_CHAT_SYSTEM_DEFAULT)
def test_a_default_replaces_only_its_missing_field(content: dict[str, Any], name: str) -> None:
    content[name] = None
    assert load(content).get_system_defaults_for_missing_fields() == {name: MLC_CHAT_SYSTEM_DEFAULT[name]}


def test_an_unknown_field_is_ignored(content: dict[str, Any]) -> None:
    """Upstream can thus read files of later versions, but does not notice a misspelled field."""
    assert load(content | {"temprature": 0.5}).model_dump(by_alias=True) == content


@pytest.mark.parametrize(
    ("name", "wrong", "reason"),
    [
        ("vocab_size", "many", "valid integer"),
        ("vocab_size", 0.5, "valid integer"),
        ("context_window_size", None, "valid integer"),
        ("quantization", 4, "valid string"),
        ("model_config", [], "valid dictionary"),
        ("tokenizer_files", "tokenizer.json", "valid list"),
        ("temperature", "hot", "valid number"),
        ("model_task", "sing", "'chat' or 'embedding'"),
        ("conv_template", "chatml", "valid dictionary or instance of Conversation"),
    ],
)
def test_a_wrong_value_is_refused_by_the_fields_name(
    content: dict[str, Any], name: str, wrong: Any, reason: str
) -> None:
    with pytest.raises(
        pydantic.ValidationError, match=rf"1 validation error for MLCChatConfig\n{name}\n  Input should be .*{reason}"
    ):
        load(content | {name: wrong})


@pytest.mark.parametrize(
    ("name", "wrong", "reason"),
    [
        ("seps", [], "seps should have size 1 or 2"),
        ("seps", ["a", "b", "c"], "seps should have size 1 or 2"),
        ("roles", None, "valid dictionary"),
    ],
)
def test_a_wrong_value_within_the_template_is_refused_too(
    content: dict[str, Any], name: str, wrong: Any, reason: str
) -> None:
    content["conv_template"][name] = wrong
    with pytest.raises(pydantic.ValidationError, match=rf"(?s)conv_template.*{reason}"):
        load(content)
