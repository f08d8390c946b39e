"""config.json in the spelling of transformers 4 and 5 means the same, and no key that changes the result is dropped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import checkpoint_configs
import pytest

from src.mlc_llm import checkpoint_config
from src.mlc_llm.checkpoint_config import CheckpointError, check, normalise

USED = frozenset(
    "context_window_size head_dim hidden_act hidden_activation hidden_size intermediate_size layer_norm_eps"
    " moe_intermediate_size norm_topk_prob num_attention_heads num_experts num_experts_per_tok num_hidden_layers"
    " num_key_value_heads original_max_position_embeddings prefill_chunk_size query_pre_attn_scalar rms_norm_eps"
    " rope_scaling rope_theta rotary_pct sliding_window use_parallel_residual vocab_size".split()
)
"""What upstream's classes read of the models in checkpoint_configs; tests/mlc_llm has the real ones."""


def load(config: dict[str, Any]) -> dict[str, Any]:
    family = config["model_type"]
    normal = normalise(config, family)
    own = {
        "ministral3": {"rope_parameters"},
        "qwen3_5_text": {"partial_rotary_factor"},
        "gemma3": {"text_config"},
        "phi3": {"partial_rotary_factor"},
        "qwen3": {"attention_bias"},
        "qwen3_moe": {"attention_bias"},
    }
    check(normal, family, USED | own.get(family, set()))
    return normal


def computed(config: dict[str, Any]) -> dict[str, Any]:
    """The keys of a configuration that matter."""
    return {
        key: value
        for key, value in config.items()
        if key not in checkpoint_config.HARMLESS and key not in ("layer_types", "use_sliding_window")
    }


@pytest.mark.parametrize("name", checkpoint_configs.SPELLINGS)
def test_both_spellings_mean_the_same(name: str) -> None:
    four, five = map(load, checkpoint_configs.SPELLINGS[name])
    defaults = {"attention_bias", "partial_rotary_factor", "use_bidirectional_attention"}
    assert {key: value for key, value in computed(five).items() if key not in defaults and value is not None} == {
        key: value for key, value in computed(four).items() if key not in defaults and value is not None
    }
    assert "rope_parameters" not in five and "dtype" not in five
    assert five["rope_theta"] == four["rope_theta"] and five["torch_dtype"] == "bfloat16"


@pytest.mark.parametrize("spelling", [0, 1])
@pytest.mark.parametrize("what", checkpoint_configs.REFUSED)
def test_what_would_change_the_result_is_refused_by_name(
    what: str, spelling: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, change = checkpoint_configs.REFUSED[what]
    config = checkpoint_configs.SPELLINGS[name][spelling] | change
    if spelling and "rope_scaling" in change:
        config["rope_parameters"] = {"rope_theta": 10000.0} | config.pop("rope_scaling")
    (key,) = change.keys() - {"rope_scaling"} or {"rope_parameters" if spelling else "rope_scaling"}
    if spelling and key == "rope_local_base_freq":
        del config["rope_local_base_freq"]
        config["rope_parameters"] = {
            "full_attention": {"rope_theta": 1000000},
            "sliding_attention": {"rope_theta": change[key]},
        }
    with pytest.raises(CheckpointError) as caught:
        load(config)
    message = str(caught.value)
    assert message.startswith(f"{key}: expected ") and "\n" not in message
    assert f'MLC_IGNORE_CONFIG_KEYS={key}, or in a BUILD file: ignore_config_keys = ["{key}"]' in message
    monkeypatch.setenv("MLC_IGNORE_CONFIG_KEYS", f"{key}, another")
    load(config)


LLAMA_3 = checkpoint_configs.LLAMA_3
YARN = {
    "beta_fast": 32,
    "beta_slow": 1,
    "factor": 40,
    "mscale": 0.707,
    "mscale_all_dim": 0.707,
    "original_max_position_embeddings": 4096,
}
DEEPSEEK_2 = checkpoint_configs.COMMON | {
    "hidden_act": "silu",
    "max_position_embeddings": 163840,
    "model_type": "deepseek_v2",
}
PHI_3 = checkpoint_configs.SPELLINGS["phi3"][0]
LONG = PHI_3["rope_scaling"]


def four(name: str, **changes: Any) -> dict[str, Any]:
    """A configuration in the spelling of transformers 4, without a base unless it is given."""
    config = {key: value for key, value in checkpoint_configs.SPELLINGS[name][0].items() if key != "rope_theta"}
    return config | changes


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_theta": 777.0},
        {"rope_scaling": {"rope_theta": 777.0, "rope_type": "default"}},
        {"rope_scaling": {"rope_theta": 777.0, **LLAMA_3}},
        {"rope_parameters": {"rope_theta": 777.0}, "rope_theta": 777, "rope_scaling": {}},
        {"rope_parameters": {"rope_theta": 777.0, **LLAMA_3}, "rope_scaling": {"type": "llama3", **LLAMA_3}},
        {"rope_parameters": {"rope_theta": 777.0, "rope_type": "default", "mrope_section": [2, 3, 3]}},
    ],
)
def test_the_base_is_found_wherever_it_is(rope: dict[str, Any]) -> None:
    normal = load({key: value for key, value in four("llama").items() if key != "rope_scaling"} | rope)
    assert normal["rope_theta"] == 777
    scaling = {**LLAMA_3, "type": "llama3"} if "llama3" in str(rope) else None
    assert normal.get("rope_scaling") == scaling and "rope_parameters" not in normal


NESTED = {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4}}


@pytest.mark.parametrize(
    ("config", "start"),
    [
        # A base or a kind that upstream would not see.
        (four("llama", rope_scaling="yarn"), 'rope_scaling: expected an object, found "yarn"'),
        (four("llama", rope_scaling=[{"rope_type": "yarn"}]), 'rope_scaling: expected an object, found [{"rope_type"'),
        (four("llama", rope_parameters=[{"rope_theta": 777.0}]), "rope_parameters: expected an object, found [{"),
        (four("qwen2", rope_parameters=NESTED), "rope_parameters.full_attention: expected a key that mlc-llm knows"),
        (four("qwen2", rope_parameters={"main": {"rope_theta": 5.0}}), "rope_parameters.main: expected a key"),
        (four("qwen2", rope_theta=1e4, rope_parameters={"rope_theta": 1e6}), "rope_parameters.rope_theta: expected 10"),
        (four("llama", rope_parameters={"rope_type": "default"}), "rope_parameters: expected the same as rope_scaling"),
        (four("qwen2", rope_scaling={"rope_type": "default", "type": "yarn"}), "rope_scaling: expected one kind, fou"),
        (four("qwen2", rope_scaling={"factor": 8.0}), "rope_scaling.factor: expected a key that mlc-llm knows for def"),
        (four("gemma3", rope_parameters={"rope_theta": 5.0}), "rope_parameters: expected full_attention and sliding"),
        (
            four("gemma3", rope_parameters={**NESTED, "chunked_attention": {"rope_theta": 5.0}}),
            "rope_parameters: expected full_attention and sliding_attention, found",
        ),
        (
            four("gemma3", rope_parameters={**NESTED, "sliding_attention": {"partial_rotary_factor": 0.5}}),
            "rope_parameters.sliding_attention.partial_rotary_factor: expected 1, ",
        ),
        (
            four("gemma3", rope_parameters={**NESTED, "sliding_attention": "yarn"}),
            'rope_parameters.sliding_attention: expected an object, found "yarn"',
        ),
        (
            four("gemma3", rope_parameters={**NESTED, "sliding_attention": {"rope_theta": 20000}}),
            "rope_parameters.sliding_attention.rope_theta: expected 10000, ",
        ),
        # A key of a scaling that upstream does not read.
        (four("llama", rope_scaling={**LLAMA_3, "attention_factor": 3}), "rope_scaling.attention_factor: expected a k"),
        (
            four("llama", rope_scaling={"rope_type": "llama3", "factor": 8}),
            "rope_scaling: expected the keys of llama3,",
        ),
        (four("phi3", rope_scaling={**LONG, "short_mscale": 1.2}), "rope_scaling.short_mscale: expected a key that ml"),
        (four("phi3", rope_scaling={**LONG, "attention_factor": 3.0}), "rope_scaling.attention_factor: expected 1.190"),
        (four("phi3", rope_scaling={**LONG, "factor": 4.0}), "rope_scaling.factor: expected 32.0, which is what mlc-l"),
        (
            four("phi3", rope_scaling={**LONG, "original_max_position_embeddings": 8192}),
            "rope_scaling.original_max_position_embeddings: expected 4096, which is what mlc-llm computes, found 8192",
        ),
        (
            DEEPSEEK_2 | {"rope_scaling": {**YARN, "type": "yarn", "mscale_all_dim": 0.3}},
            "rope_scaling.mscale: expected 0.3, which is what mlc-llm computes, found 0.707",
        ),
        (
            DEEPSEEK_2 | {"rope_scaling": {**YARN, "type": "yarn", "attention_factor": 7}},
            "rope_scaling.attention_factor: expected 1, which is what mlc-llm computes, found 7",
        ),
        (
            DEEPSEEK_2 | {"rope_scaling": {**YARN, "type": "yarn", "mscale": 0, "mscale_all_dim": None}},
            "rope_scaling: expected the keys of yarn, found no mscale, mscale_all_dim",
        ),
    ],
)
def test_each_value_of_the_rotation_is_used_or_refused(
    config: dict[str, Any], start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CheckpointError) as caught:
        load(config)
    assert str(caught.value).startswith(start)
    name = "rope_parameters" if "rope_parameters" in config else "rope_scaling"
    assert "; mlc-llm would compute another model. If you accept that: MLC_IGNORE_CONFIG_KEYS=" in str(caught.value)
    monkeypatch.setenv("MLC_IGNORE_CONFIG_KEYS", name)
    assert load(config).get("rope_scaling") is None


@pytest.mark.parametrize(
    "config",
    [
        DEEPSEEK_2 | {"rope_scaling": {**YARN, "type": "yarn", "attention_factor": None}},
        DEEPSEEK_2 | {"rope_parameters": {**YARN, "rope_type": "yarn", "rope_theta": 10000, "attention_factor": 1.0}},
        PHI_3 | {"rope_scaling": {**LONG, "type": "su"}},
        PHI_3 | {"rope_scaling": {**LONG, "factor": 32.0, "attention_factor": 1.1902}},
        four("gemma3", rope_parameters={"full_attention": None, "sliding_attention": None}),
    ],
)
def test_a_scaling_that_upstream_computes_passes(config: dict[str, Any]) -> None:
    load(config)


MINISTRAL_3 = checkpoint_configs.shape(
    hidden_act="silu",
    max_position_embeddings=262144,
    model_type="ministral3",
    rope_parameters={
        **YARN,
        "factor": 16.0,
        "llama_4_scaling_beta": 0.1,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 16384,
        "rope_theta": 777.0,
        "rope_type": "yarn",
        "type": "yarn",
    },
)


def test_ministral_3_ends_where_its_queries_would_be_scaled() -> None:
    """Upstream scales none, and would scale attention by mscale_all_dim, as transformers does not."""
    normal = load(MINISTRAL_3)
    assert normal["context_window_size"] == 16384 and normal["rope_theta"] == 777
    assert normal["rope_parameters"]["factor"] == 16
    assert not {"llama_4_scaling_beta", "mscale_all_dim"} & normal["rope_parameters"].keys()
    unscaled = MINISTRAL_3 | {"rope_parameters": {**MINISTRAL_3["rope_parameters"], "llama_4_scaling_beta": 0}}
    assert "context_window_size" not in load(unscaled)
    assert load(MINISTRAL_3 | {"rope_parameters": {"rope_theta": 777.0}})["rope_parameters"] is None


@pytest.mark.parametrize("family", ["ministral3", "qwen3_5", "qwen3_5_text"])
@pytest.mark.parametrize("kind", ["linear", "yarn"])
def test_families_of_transformers_5_compute_no_other_kind(family: str, kind: str) -> None:
    rope = {"rope_parameters": {"factor": 4.0, "rope_theta": 777.0, "rope_type": kind}}
    with pytest.raises(CheckpointError, match="^rope_parameters: expected (null|the keys of yarn)"):
        load(MINISTRAL_3 | {"model_type": family} | rope)


def test_qwen_3_5_rotates_a_part_of_text_in_one_section() -> None:
    rope = {"mrope_interleaved": True, "mrope_section": [11, 11, 10], "partial_rotary_factor": 0.25, "rope_theta": 777}
    normal = load(MINISTRAL_3 | {"model_type": "qwen3_5_text", "rope_parameters": {**rope, "rope_type": "default"}})
    assert normal["rope_theta"] == 777 and normal["partial_rotary_factor"] == 0.25


@pytest.mark.parametrize("missing", [{}, {"rope_theta": None}])
def test_a_missing_base_is_that_of_transformers(missing: dict[str, Any]) -> None:
    mixtral = {key: value for key, value in four("mistral").items() if key != "sliding_window"}
    assert load(mixtral | {"model_type": "mixtral"} | missing)["rope_theta"] == 1000000
    assert load(mixtral | {"model_type": "mixtral", "rope_theta": 5})["rope_theta"] == 5
    # Upstream's own default is right.
    assert "rope_theta" not in load(mixtral | missing)
    with pytest.raises(CheckpointError, match="^rope_parameters: expected an object, found none"):
        load({key: value for key, value in MINISTRAL_3.items() if key != "rope_parameters"} | missing)


@pytest.mark.parametrize("nested", [{"rope_theta": 5.0}, {}])
def test_a_nested_configuration_that_upstream_does_not_read_is_refused(nested: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=r"^text_config: expected a key that mlc-llm knows for llama, found \{"):
        load(four("llama") | {"text_config": nested})
    text = checkpoint_configs.SPELLINGS["gemma3"][1]
    with pytest.raises(CheckpointError, match=r"^text_config\.text_config: expected a key that mlc-llm knows"):
        load({"model_type": "gemma3", "text_config": text | {"text_config": nested}})
    with pytest.raises(CheckpointError, match="^text_config: expected an object, found 5"):
        load({"model_type": "gemma3", "text_config": 5})


@pytest.mark.parametrize(
    ("name", "change"),
    [("gpt_neox", {"rope_theta": 777}), ("qwen3_moe", {"num_local_experts": 4})],
)
def test_two_values_under_two_names_are_refused(name: str, change: dict[str, Any]) -> None:
    with pytest.raises(
        CheckpointError, match="^(rotary_emb_base|num_local_experts): expected a key that mlc-llm knows"
    ):
        load(checkpoint_configs.SPELLINGS[name][0] | change)


def test_names_of_keys_are_shown_in_printable_characters() -> None:
    with pytest.raises(CheckpointError) as caught:
        load(checkpoint_configs.SPELLINGS["llama"][1] | {"a\n\x1b[31m": 2})
    assert str(caught.value).startswith(r"a\n\x1b[31m: expected a key") and str(caught.value).isprintable()


def test_all_refused_keys_are_named_at_once() -> None:
    config = checkpoint_configs.SPELLINGS["llama"][1] | {"mlp_bias": True, "alpha": 2, "beta": 3}
    with pytest.raises(
        CheckpointError, match=r"mlp_bias: .*; alpha: .*; beta: .* = \[\"alpha\", \"beta\", \"mlp_bias\"\]"
    ):
        load(config)


@pytest.mark.parametrize(
    "harmless",
    [
        {"alpha": None},
        {"_name_or_path": "somewhere"},
        {"pretraining_tp": 2},
        # Of Qwen 2.5.
        {"use_mrope": False},
        {"rope_interleaved": False, "is_llama_config": True, "transformers.js_config": {"dtype": "q4"}},
        {"layer_types": ["full_attention"] * 6},
        {"partial_rotary_factor": 1.0, "embedding_multiplier": 1.0, "logits_scaling": 1},
        {"quantization_config": {"quant_method": "awq", "bits": 4}},
        {"rope_scaling": {"rope_type": "default"}},
        # It starts to scale where the context ends.
        {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
    ],
)
def test_a_key_that_changes_nothing_passes(harmless: dict[str, Any]) -> None:
    load(checkpoint_configs.SPELLINGS["llama"][0] | harmless)


@pytest.mark.parametrize("window", [{"sliding_window": 2047}, {"sliding_window": 2047, "use_sliding_window": True}])
def test_a_window_limits_the_context_of_a_family_without_windows(window: dict[str, Any]) -> None:
    config = checkpoint_configs.SPELLINGS["qwen2"][1] | {"layer_types": ["sliding_attention"] * 6} | window
    if "use_sliding_window" not in window:
        del config["use_sliding_window"]
    normal = load(config)
    assert normal["context_window_size"] == 2047 and "sliding_window" not in normal


def test_a_window_that_is_off_or_wider_than_the_context_changes_nothing() -> None:
    assert "context_window_size" not in load(checkpoint_configs.SPELLINGS["qwen2"][0] | {"sliding_window": 16})
    assert "context_window_size" not in load(checkpoint_configs.SPELLINGS["phi3"][0] | {"rope_scaling": None})


def test_null_stands_for_what_transformers_computes() -> None:
    normal = load(checkpoint_configs.SPELLINGS["llama"][1] | {"head_dim": None, "num_key_value_heads": None})
    assert "head_dim" not in normal and normal["num_key_value_heads"] == normal["num_attention_heads"]


def test_a_nested_configuration_is_read_like_the_outer_one() -> None:
    text = checkpoint_configs.SPELLINGS["gemma3"][1] | {"model_type": "gemma3_text"}
    outer = {"model_type": "gemma3", "text_config": text, "vision_config": {"hidden_act": "gelu"}}
    assert load(outer)["text_config"]["rope_theta"] == 1000000
    with pytest.raises(CheckpointError, match=r"text_config\.attn_logit_softcapping: expected null"):
        load(outer | {"text_config": text | {"attn_logit_softcapping": 50.0}})


class LlamaConfig:
    """Stands in for upstream's class: one field, and a key that it reads only to convert it."""

    @classmethod
    def from_dict(cls, source: dict[str, Any]) -> dict[str, Any]:
        fields = dict(source)
        others = checkpoint_config._Read({key: value for key, value in fields.items() if key != "width"})
        return {"width": fields["width"], "base": others.pop("rope_theta", 10000)}


def test_keys_that_upstream_reads_are_used(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "llama", "rope_parameters": {"rope_theta": 500000.0}, "width": 3}))
    with pytest.raises(CheckpointError, match="width: expected a key that mlc-llm knows for llama, found 3"):
        checkpoint_config.load(LlamaConfig, path)  # install() makes upstream's fields known.
    path.write_text(json.dumps({"model_type": "llama", "rope_theta": 500000.0, "width": None}))
    assert checkpoint_config.load(LlamaConfig, path) == {"width": None, "base": 500000.0}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "expected JSON, found: "),
        ("[]", "expected a JSON object, found list"),
        ("[" * 100_000, "expected JSON, found: "),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, text: str, found: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(CheckpointError) as caught:
        checkpoint_config.load(LlamaConfig, path)
    assert str(caught.value).startswith(f"{path}: {found}") and str(caught.value).endswith("; copy the file again")


def test_a_deep_file_is_refused(tmp_path: Path) -> None:
    """At some depth the file can be read, and not what it contains."""
    path = tmp_path / "config.json"
    for depth in range(700, 1000, 5):
        for key in ("deep", "text_config"):
            nested = '{"text_config": ' * depth + "{}" + "}" * depth
            path.write_text(f'{{"model_type": "llama", "width": 3, "{key}": {nested}}}')
            with pytest.raises(CheckpointError, match=r"/config\.json: "):
                checkpoint_config.load(LlamaConfig, path)
