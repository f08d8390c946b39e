"""mlc-llm's own configurations are equal for both spellings of config.json, and drop no key that changes the result."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import checkpoint_configs
import pytest
import tiny_model_files
from mlc_llm._mlc_bazel.checkpoint_config import CheckpointError
from mlc_llm.model import MODEL_PRESETS, MODELS

INEXACT = {
    # Attention without soft-capping.
    "gemma2": "attn_logit_softcapping",
    # Logits without a factor, which only changes probabilities.
    "cohere": "logit_scale",
    # Logits of prompts that are longer than those of training.
    "qwen": "use_dynamic_ntk",
}
"""Families of which upstream computes every model inexactly, and a key that says so."""

# Upstream's own key, in some presets only.
OWN = {"model_preset_tag", "sliding_window_size"}


@pytest.fixture
def load(tmp_path: Path) -> Any:
    def call(config: dict[str, Any]) -> dict[str, Any]:
        path = tmp_path / "config.json"
        path.write_text(json.dumps(config))
        return MODELS[config["model_type"]].config.from_file(path).asdict()

    return call


def without_kwargs(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration without what upstream did not read, also of nested ones."""
    return {
        key: without_kwargs(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if key != "kwargs"
    }


@pytest.mark.parametrize("name", checkpoint_configs.SPELLINGS)
def test_both_spellings_give_one_configuration(load: Any, name: str) -> None:
    four, five = (without_kwargs(load(config)) for config in checkpoint_configs.SPELLINGS[name])
    assert four == five
    base = checkpoint_configs.SPELLINGS[name][0].get("rope_theta", 20000)
    fields = five.get("text_config", five)
    assert fields.get("position_embedding_base", fields.get("rope_theta")) == base != 0


@pytest.mark.parametrize("what", checkpoint_configs.REFUSED)
def test_what_would_change_the_result_is_refused(load: Any, what: str, tmp_path: Path) -> None:
    name, change = checkpoint_configs.REFUSED[what]
    with pytest.raises(CheckpointError) as caught:
        load(checkpoint_configs.SPELLINGS[name][0] | change)
    assert str(caught.value).startswith(f"{tmp_path}/config.json: {next(iter(change))}: expected ")


SMALL = checkpoint_configs.shape(hidden_act="silu", tie_word_embeddings=False)
MIXTRAL = SMALL | {"model_type": "mixtral", "num_experts_per_tok": 2, "num_local_experts": 4}
MINISTRAL_3 = SMALL | {"model_type": "ministral3"}
QWEN_3_5 = SMALL | {"attention_bias": False, "model_type": "qwen3_5_text"}
YARN = {
    **{"beta_fast": 32.0, "beta_slow": 1.0, "factor": 16.0, "mscale": 1.0, "mscale_all_dim": 1.0},
    **{"original_max_position_embeddings": 1024, "rope_theta": 777.0, "rope_type": "yarn"},
}


@pytest.mark.parametrize(
    ("config", "base"),
    [
        (MIXTRAL, 1000000),
        (MIXTRAL | {"rope_scaling": {"rope_theta": 777.0, "type": "default"}}, 777),
        (MINISTRAL_3 | {"rope_parameters": YARN}, 777),
        (MINISTRAL_3 | {"rope_parameters": {"rope_theta": 777.0, "rope_type": "default"}}, 777),
        ({"model_type": "ministral3", "text_config": MINISTRAL_3 | {"rope_parameters": YARN}}, 777),
        (QWEN_3_5, 10000),
        (QWEN_3_5 | checkpoint_configs.rope(777.0, mrope_section=[2, 3, 3], partial_rotary_factor=0.25), 777),
        ({"model_type": "qwen3_5", "text_config": QWEN_3_5 | checkpoint_configs.rope(777.0)}, 777),
    ],
)
def test_upstream_gets_the_base(load: Any, config: dict[str, Any], base: float) -> None:
    found = load(config)
    assert (found.get("position_embedding_base") or found["rope_theta"]) == base
    beta = {"rope_parameters": {**YARN, "llama_4_scaling_beta": 0.1}}
    assert load(MINISTRAL_3 | beta)["context_window_size"] == 1024


@pytest.mark.parametrize(
    ("config", "key"),
    [
        (MINISTRAL_3, "rope_parameters"),
        (MINISTRAL_3 | {"rope_parameters": {**YARN, "attention_factor": 9.0}}, "rope_parameters.attention_factor"),
        (QWEN_3_5 | {"rope_parameters": YARN}, "rope_parameters"),
        (checkpoint_configs.LLAMA | {"text_config": {"rope_theta": 5.0}}, "text_config"),
        (checkpoint_configs.LLAMA | {"position_embedding_base": 10000, "rope_theta": 777.0}, "rope_theta"),
    ],
)
def test_what_upstream_would_not_compute_is_refused(load: Any, config: dict[str, Any], key: str) -> None:
    with pytest.raises(CheckpointError, match=rf"/config\.json: {key}: expected "):
        load(config)


# The window, and the length of the first training.
@pytest.mark.parametrize(
    ("name", "context"),
    [
        ("gemma3", 512),
        ("gemma3 with linear scaling", 512),
        ("mistral", 4096),
        ("mistral with a window", 1024),
        ("phi3", 4096),
        ("qwen2", 4096),
    ],
)
def test_the_context_ends_where_another_model_would_begin(load: Any, name: str, context: int) -> None:
    for config in checkpoint_configs.SPELLINGS[name]:
        found = load(config)
        assert found["context_window_size"] == context
        assert found.get("sliding_window_size", -1) == -1


def test_the_context_of_a_nested_model_ends_there_too(load: Any) -> None:
    """Checkpoints of Gemma 3 that also see have their text model in text_config."""
    for text in checkpoint_configs.SPELLINGS["gemma3 with linear scaling"]:
        found = load({"model_type": "gemma3", "text_config": text, "vocab_size": 32000})
        assert (found["context_window_size"], found["prefill_chunk_size"]) == (512, 512)
        assert found["sliding_window_size"] == -1
        assert found["text_config"]["rope_scaling"]["factor"] == 8.0


def test_who_accepts_full_attention_gets_the_whole_context(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLC_IGNORE_CONFIG_KEYS", "sliding_window,layer_types")
    for config in checkpoint_configs.SPELLINGS["mistral with a window"]:
        assert load(config)["context_window_size"] == 4096


# llava's preset asks the hub for its language model.
@pytest.mark.parametrize("name", sorted(name for name in MODEL_PRESETS if MODEL_PRESETS[name]["model_type"] != "llava"))
def test_no_real_model_is_refused_without_a_reason(load: Any, name: str) -> None:
    """Upstream's presets are config.json files of the hub."""
    config = {key: value for key, value in MODEL_PRESETS[name].items() if key not in OWN}
    if config["model_type"] not in INEXACT:
        assert load(config)
        return
    with pytest.raises(CheckpointError, match=INEXACT[config["model_type"]]):
        load(config)


def checkpoint(folder: Path, **changes: Any) -> Path:
    """The tiny model's checkpoint with another configuration; a key that is None is left out."""
    shutil.copytree(tiny_model_files.CHECKPOINT, folder, copy_function=lambda a, b: Path(b).symlink_to(a))
    folder.chmod(0o755)  # Bazel's are read-only.
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.unlink()
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return folder


def mlc_llm(home: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mlc_llm", *map(str, arguments)],
        env=tiny_model_files.child_environment(home),
        capture_output=True,
        text=True,
    )


def test_gen_config_uses_rope_parameters(tmp_path: Path) -> None:
    """Without this module it took the base 10000."""
    folder = checkpoint(
        tmp_path / "checkpoint",
        rope_parameters={"rope_theta": 500000.0, "rope_type": "default"},
        rope_theta=None,
        torch_dtype=None,
        dtype="bfloat16",
    )
    done = mlc_llm(
        tmp_path, "gen_config", folder, "--quantization", "q0f32", "--conv-template", "chatml", "--output", tmp_path
    )
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "mlc-chat-config.json").read_text())
    assert written["model_config"]["position_embedding_base"] == 500000.0


@pytest.mark.parametrize(("context", "accepted"), [(256, True), (257, False)])
def test_gen_config_refuses_a_context_beyond_the_window(tmp_path: Path, context: int, accepted: bool) -> None:
    folder = checkpoint(tmp_path / "checkpoint", model_type="mistral", sliding_window=256)
    options = ["--quantization", "q0f32", "--conv-template", "chatml", "--context-window-size", str(context)]
    done = mlc_llm(tmp_path, "gen_config", folder, *options, "--output", tmp_path)
    assert (done.returncode == 0) == accepted, done.stderr
    if accepted:
        assert json.loads((tmp_path / "mlc-chat-config.json").read_text())["context_window_size"] == context
    else:
        assert "Traceback" not in done.stderr
        assert "context_window_size: expected at most 256, the sliding_window" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("command", ["compile", "convert_weight", "gen_config"])
def test_every_command_refuses_in_one_line(tmp_path: Path, command: str) -> None:
    folder = checkpoint(tmp_path / "checkpoint", attention_bias=True)
    options: list[str | Path] = ["--quantization", "q0f32", "--output", tmp_path / "out"]
    if command == "gen_config":
        options += ["--conv-template", "chatml"]
    else:
        options += ["--device", "cpu"]
    done = mlc_llm(tmp_path, command, folder / "config.json", *options)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert "attention_bias: expected false, which is what mlc-llm computes, found true" in done.stderr.splitlines()[-1]
