"""Reads a checkpoint's config.json in the spelling of transformers 4 and 5, and refuses what mlc-llm would ignore.

Upstream takes the keys that it knows and drops the others. transformers 5 renamed some of them (`rope_parameters` for
`rope_theta` and `rope_scaling`, `dtype` for `torch_dtype`), so a model from there got upstream's default: another
model, which answers fluently and wrongly.

Each key now has one of these outcomes:

    used       a field of upstream's configuration, or read by it
    checked    upstream's code computes with one value; any other is refused (COMPUTED, FAMILIES)
    harmless   it does not change the logits (HARMLESS)
    unset      null
    refused    everything else

To accept a refused key, name it in MLC_IGNORE_CONFIG_KEYS, separated by commas; in a BUILD file,
`mlc_model(ignore_config_keys = [...])`.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import functools
import json
import logging
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Set
from pathlib import Path
from types import TracebackType
from typing import Any

logger = logging.getLogger(__name__)

IGNORE = "MLC_IGNORE_CONFIG_KEYS"

GELU = ("gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_python")
"""The exact function and its approximations, which differ by less than the rounding of a bfloat16."""

SILU = ("silu", "swish")

HARMLESS = frozenset(
    # Where it comes from, and how files store it.
    "architectures auto_map custom_pipelines dtype is_llama_config model_type name_or_path task_specific_params"
    " tokenizer_class torch_dtype transformers.js_config transformers_version unsloth_fixed unsloth_version bf16 fp16"
    " fp32"
    # Tokens and sampling, which mlc-chat-config.json and the conversation template have.
    " bos_token_id decoder_start_token_id eos_token_id forced_bos_token_id forced_eos_token_id pad_token_id prefix"
    " sep_token_id bad_words_ids begin_suppress_tokens suppress_tokens do_sample diversity_penalty early_stopping"
    " encoder_no_repeat_ngram_size exponential_decay_length_penalty length_penalty max_length min_length"
    " no_repeat_ngram_size num_beam_groups num_beams num_return_sequences remove_invalid_values repetition_penalty"
    " temperature top_k top_p typical_p suppress_token_ids"
    # Training.
    " attention_dropout attn_pdrop classifier_dropout embd_pdrop embedding_dropout embd_layer_norm_eps hidden_dropout"
    " hidden_dropout_prob attention_probs_dropout_prob initializer_range layer_norm_epsilon_init residual_dropout"
    " resid_pdrop router_aux_loss_coef router_jitter_noise router_z_loss_coef aux_loss_alpha seq_aux"
    " gradient_checkpointing pretraining_tp initializer_factor attn_dropout_prob emb_dropout_prob rope_theta_init"
    # What transformers returns, and how fast it computes.
    " chunk_size_feed_forward id2label label2id num_labels output_attentions output_hidden_states output_router_logits"
    " output_scores problem_type return_dict return_dict_in_generate torchscript use_bfloat16 use_cache use_flash_attn"
    " use_flash_attention use_cache_quantization use_cache_kernel use_dynamic_ntk_config attn_implementation"
    " cache_implementation reorder_and_upcast_attn attention_softmax_in_fp32 scale_attention_softmax_in_fp32"
    " fused_dense fused_mlp fused_rmsnorm use_fused_rope use_fused_mlp use_fused_cross_entropy flash_attn flash_rotary"
    " finetuning_task is_decoder bias_dropout_fusion"
    # Heads for classification.
    " summary_activation summary_first_dropout summary_proj_to_labels summary_type summary_use_proj n_special"
    " predict_special_tokens"
    # Limits, and the switch of a window that use_sliding_window turns on.
    " max_position_embeddings max_sequence_length model_max_length max_window_layers n_ctx n_positions seq_length"
    " context_length"
    # Parts for images, which no text passes through.
    " boi_token_index eoi_token_index image_token_id image_token_index mm_tokens_per_image vision_config"
    " vision_end_token_id vision_start_token_id video_token_id projector_hidden_act multimodal_projector_bias"
    " spatial_merge_size vision_feature_layer vision_feature_select_strategy image_seq_length embd_layer".split()
)

COMPUTED: dict[str, tuple[Any, ...]] = {
    "add_cross_attention": (False,),
    "attention_bias": (False,),
    "attn_logit_softcapping": (),
    "clip_qkv": (),
    "apply_residual_connection_post_layernorm": (False,),
    "cross_attention_hidden_size": (),
    "embedding_multiplier": (1,),
    "final_logit_softcapping": (),
    "fp32_residual_connection": (False,),
    "full_attn_mod": (1,),
    "interpolate_factor": (1,),
    "is_causal": (True,),
    "is_encoder_decoder": (False,),
    "lm_head_bias": (False,),
    "logit_scale": (1,),
    "logits_scaling": (1,),
    "mlp_bias": (False,),
    "mlp_only_layers": ([],),
    "partial_rotary_factor": (1,),
    "position_embedding_type": ("absolute",),
    "pruned_heads": ({},),
    "qk_layernorm": (False,),
    "residual_multiplier": (1,),
    "rope_interleaved": (False,),
    "rope_local_base_freq": (10000,),
    # Of the families that read no base, those that rotate at all use this one.
    "rope_theta": (10000,),
    "rotary_pct": (1,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "scale_attn_weights": (True,),
    "tf_legacy_loss": (False,),
    # Where upstream always has an output layer and a file lacks it, the check of the tensors says so.
    "tie_encoder_decoder": (False,),
    "tie_word_embeddings": (True, False),
    "use_bidirectional_attention": (False,),
    "use_mrope": (False,),
    "use_qk_norm": (False,),
    "use_sliding_window": (False,),
}
"""What a family computes if it does not read the key. null, which means that a feature is off, is always right."""

_SILU = {"hidden_act": SILU}
_GELU = {"activation_function": GELU, "hidden_act": GELU, "hidden_activation": GELU}
_GEMMA = {**_GELU, "attention_bias": (False,), "tie_word_embeddings": (True,)}
_QWEN_MOE = {"decoder_sparse_step": (1,), "tie_word_embeddings": (True, False)}

FAMILIES: dict[str, dict[str, tuple[Any, ...]]] = {
    "baichuan": _SILU,
    "chatglm": {**_SILU, "original_rope": (True,)},
    "cohere": {**_SILU, "tie_word_embeddings": (True,)},
    "deepseek": {"scoring_func": ("softmax",)},
    "deepseek_v2": _SILU,
    "deepseek_v3": _SILU,
    "gemma": _GEMMA,
    # Upstream reads it and does not use it.
    "gemma2": {**_GEMMA, "attn_logit_softcapping": ()},
    "gemma3": _GEMMA | {"sliding_window_pattern": (6,)},
    "gemma3_text": _GEMMA | {"sliding_window_pattern": (6,)},
    "gpt2": _GELU,
    "gpt_bigcode": _GELU | {"multi_query": (True,), "num_key_value_heads": (1,)},
    "gpt_neox": _GELU | {"attention_bias": (True,)},
    "gptj": {"rotary": (True,)},
    "internlm": _SILU,
    "internlm2": _SILU,
    "llama": _SILU,
    "llava": _SILU,
    "mistral": _SILU,
    "mixtral": _SILU,
    "nemotron": {"hidden_act": ("relu2",)},
    "orion": _SILU,
    "phi": _GELU,
    "phi-msft": _GELU,
    "phi3": _SILU,
    "phi3_v": _SILU,
    "qwen": {**_SILU, "no_bias": (True,)},
    # Its query, key and value always have a bias, its output never.
    "qwen2_moe": {**_QWEN_MOE, "qkv_bias": (True,)},
    "qwen3_moe": _QWEN_MOE,
    "stablelm": {**_SILU, "use_parallel_residual": (False,)},
    "starcoder2": {**_GELU, "mlp_type": ("default",), "norm_type": ("layer_norm",)},
}
"""What a family computes, whether or not it reads the key."""

ROPE_SCALINGS: dict[str, tuple[str, ...]] = {
    "deepseek_v2": ("yarn",),
    "deepseek_v3": ("yarn",),
    # Of the layers without a window, as in transformers.
    "gemma3": ("linear",),
    "gemma3_text": ("linear",),
    "gptj": ("gptj",),
    "llama": ("llama3",),
    "llama4": ("llama3", "llama4"),
    "ministral3": ("yarn",),
    "mixtral": ("llama3",),
    "nemotron": ("llama3",),
    "olmo": ("llama3",),
    "olmo2": ("llama3",),
    "phi3": ("longrope",),
    "phi3_v": ("longrope",),
}
"""The kinds of rotary scaling that a family computes, other than none."""

GEMMA_3 = ("gemma3", "gemma3_text")

ROPE_KEYS: dict[str, tuple[str, ...]] = {
    "default": (),
    # It begins to scale after max_position_embeddings, where the context ends here.
    "dynamic": ("factor",),
    "gptj": (),
    "llama3": ("factor", "high_freq_factor", "low_freq_factor", "original_max_position_embeddings"),
    "llama4": ("factor", "high_freq_factor", "low_freq_factor", "original_max_position_embeddings"),
    "linear": ("factor",),
    "longrope": ("long_factor", "short_factor"),
    "yarn": ("beta_fast", "beta_slow", "factor", "mscale", "mscale_all_dim", "original_max_position_embeddings"),
}
"""The keys of each kind of rotary scaling, none of which may be missing or 0."""

ROPE_THETA = {"cohere": 500000, "mixtral": 1000000, "qwen3_5": 10000, "qwen3_5_text": 10000}
"""The base that transformers takes if config.json has none, of families of which upstream takes another."""

ROPE_HARMLESS = ("mrope_interleaved", "mrope_section")
"""How the positions of images are rotated; those of text are equal in all sections."""

NESTED = ("text_config",)


class CheckpointError(ValueError):
    """A checkpoint cannot be converted. The message is one line: the file, what was expected and found, the remedy.

    Names from files are in it, so characters that end a line or that a terminal would obey are escaped.
    """

    def __init__(self, message: str) -> None:
        super().__init__("".join(each if each.isprintable() else ascii(each)[1:-1] for each in message))


def normalise(config: Mapping[str, Any], family: str) -> dict[str, Any]:
    """Returns a configuration in the spelling that upstream reads, that of transformers 4.

    Args:
        config: the content of config.json.
        family: its model_type.

    Raises:
        CheckpointError: the rotary embedding is one that upstream would take for another. Names no file.
    """
    result = dict(config)
    for key in NESTED:
        if result.get(key) is not None:
            result[key] = normalise(_object(key, result[key]), family)
    # Some upstream families have a field of this name for something else.
    if "dtype" in result:
        result.setdefault("torch_dtype", result.pop("dtype"))
    if family == "qwen3_moe":
        _move("num_local_experts", result, result, "num_experts")
    _move("_sliding_window_pattern", result, result, "sliding_window_pattern")
    # transformers computes them from other keys if they are null.
    if result.get("head_dim", 0) is None:
        del result["head_dim"]
    if result.get("num_key_value_heads", 0) is None:
        result["num_key_value_heads"] = result.get("num_attention_heads")
    _normalise_rope(result, family)
    if result.get("rope_theta", 0) is None:
        del result["rope_theta"]
    if family in ROPE_THETA and "position_embedding_base" not in result:
        result.setdefault("rope_theta", ROPE_THETA[family])
    _limit_to_window(result, family)
    if family in GEMMA_3:
        # Upstream does not take them from there.
        for key in ("context_window_size", "prefill_chunk_size"):
            if key in result.get("text_config", {}):
                result[key] = result["text_config"][key]
    return result


def _normalise_rope(config: dict[str, Any], family: str) -> None:
    """Replaces rope_parameters by rope_theta, rope_scaling and the others, and checks the scaling with all its keys."""
    if family == "gpt_neox":
        _move("rotary_emb_base", config, config, "rope_theta")
    given = {name: config.pop(name) for name in ("rope_parameters", "rope_scaling") if name in config}
    try:
        if family == "ministral3" and "text_config" not in config and not any(given.values()):
            raise CheckpointError("rope_parameters: expected an object, found none")
        # Like transformers, this takes an empty one for none.
        scalings = [_rope_scaling(name, value, config, family) for name, value in given.items() if value]
        if scalings[1:] and scalings[0] != scalings[1]:
            raise CheckpointError("rope_parameters: expected the same as rope_scaling, found another")
    except CheckpointError as error:
        if not ignored_keys() & {"rope_scaling", *given}:
            raise CheckpointError(
                f"{error}; {_accept([name for name in given if given[name]] or ['rope_parameters'])}"
            ) from None
        scalings = []
    if given:
        config["rope_scaling"] = scalings[0] if scalings else None
    if family == "gpt_neox":
        _move("partial_rotary_factor", config, config, "rotary_pct")
    if family == "ministral3":
        config["rope_parameters"] = config.pop("rope_scaling", None)


def _rope_scaling(name: str, parameters: Any, config: dict[str, Any], family: str) -> dict[str, Any] | None:
    """Moves the base and the part that rotates into the configuration, and returns the scaling, None if there is none.

    Args:
        name: the key in config.json.
        parameters: its value.
        config: a configuration, which is changed.
        family: its model_type.

    Raises:
        CheckpointError: upstream would compute another rotation.
    """
    scaling = _object(name, parameters)
    if family in GEMMA_3 and name == "rope_parameters":
        if not set(scaling) <= {"full_attention", "sliding_attention"}:
            raise CheckpointError(f"{name}: expected full_attention and sliding_attention, {_found(sorted(scaling))}")
        local = _object(f"{name}.sliding_attention", scaling.get("sliding_attention") or {})
        _move("rope_theta", local, config, "rope_local_base_freq")
        _check_scaling(
            f"{name}.sliding_attention", local, {"rope_theta": config.get("rope_local_base_freq")}, family, ()
        )
        scaling = _object(f"{name}.full_attention", scaling.get("full_attention") or {})
    _move("rope_theta", scaling, config)
    _move("partial_rotary_factor", scaling, config)
    if family in ("phi3", "phi3_v"):
        _move("original_max_position_embeddings", scaling, config)
    first = scaling.get("original_max_position_embeddings")
    if family == "ministral3" and first and scaling.pop("llama_4_scaling_beta", None):
        _limit_context(config, first, f"mlc-llm does not scale {family}'s queries beyond their first training")
    kind = _check_scaling(name, scaling, config, family, ROPE_SCALINGS.get(family, ()))
    if kind in ("default", "dynamic"):
        return None
    if family == "ministral3":
        # Upstream multiplies the attention's scale by it, as DeepSeek does. This family does not.
        del scaling["mscale_all_dim"]
    if kind == "longrope":
        _limit_to_short_factors(config, scaling)
    # Upstream's families read one or the other.
    return {**scaling, "rope_type": kind, "type": kind}


def _object(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise CheckpointError(f"{name}: expected an object, {_found(value)}")
    return dict(value)


def _move(key: str, source: dict[str, Any], config: dict[str, Any], name: str | None = None) -> None:
    """Moves a key into a configuration, unless that has another value: the key is then refused where it is."""
    name = name or key
    if source.get(key) is not None and config.get(name) in (None, source[key]):
        config[name] = source.pop(key)


def _check_scaling(
    name: str, scaling: dict[str, Any], config: Mapping[str, Any], family: str, supported: tuple[str, ...]
) -> str:
    """Takes the kind out of a scaling and returns it, after a check that upstream computes it as all its keys say."""
    kinds = [scaling.pop(key) for key in ("rope_type", "type") if scaling.get(key)] or ["default"]
    kinds = ["longrope" if kind == "su" else kind for kind in kinds]
    kind = kinds[0]
    if kinds[-1] != kind:
        raise CheckpointError(f"{name}: expected one kind, {_found(kinds)}")
    if kind not in (*supported, "default", "dynamic"):
        raise CheckpointError(
            f"{name}: expected {' or '.join(['null', *supported])}, which is what mlc-llm computes for {family},"
            f" {_found(kind)}"
        )
    if missing := [key for key in ROPE_KEYS[kind] if not scaling.get(key)]:
        raise CheckpointError(f"{name}: expected the keys of {kind}, found no {', '.join(missing)}")
    computed = _computed_rotation(kind, scaling, config)
    for key, value in scaling.items():
        if value is None or key in ROPE_HARMLESS:
            continue
        if key in computed:
            if not isinstance(value, (int, float)) or not math.isclose(value, computed[key], rel_tol=1e-4):
                raise CheckpointError(
                    f"{name}.{key}: expected {computed[key]}, which is what mlc-llm computes, {_found(value)}"
                )
        elif key not in ROPE_KEYS[kind]:
            raise CheckpointError(f"{name}.{key}: expected a key that mlc-llm knows for {kind}, {_found(value)}")
    return kind


def _computed_rotation(kind: str, scaling: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what upstream computes in place of keys that it does not read from the scaling."""
    outside = ("max_position_embeddings", "original_max_position_embeddings", "partial_rotary_factor", "rope_theta")
    values = {"partial_rotary_factor": 1, **{key: config[key] for key in outside if config.get(key)}}
    if kind == "yarn":
        # transformers multiplies cosines and sines by attention_factor, or if it is null, by what follows from both
        # mscale and mscale_all_dim: 1 if they are equal. Upstream does not multiply them.
        values |= {"attention_factor": 1, "mscale": scaling["mscale_all_dim"]}
    if kind == "longrope" and {"max_position_embeddings", "original_max_position_embeddings"} <= values.keys():
        first = values["original_max_position_embeddings"]
        factor = values["max_position_embeddings"] / first
        values |= {"factor": factor, "attention_factor": math.sqrt(1 + math.log(max(factor, 1)) / math.log(first))}
    return values


def _limit_to_short_factors(config: dict[str, Any], scaling: Mapping[str, Any]) -> None:
    """Limits the context to that of the first training, unless it is given.

    transformers takes the long factors for texts that are longer, of which keys in a cache may have been rotated with
    the short ones. rotation.py has one set of factors for a compiled model.
    """
    original = config.setdefault(
        "original_max_position_embeddings", scaling.get("original_max_position_embeddings", 4096)
    )
    if "context_window_size" not in config and original < config.get("max_position_embeddings", 0):
        logger.warning(
            "rope_scaling: the context is limited to %d tokens, for which LongRoPE's short factors are; with a larger"
            " context_window_size the model is compiled with the long ones",
            original,
        )
        config["context_window_size"] = original


def _window(config: Mapping[str, Any], family: str) -> int | None:
    """Returns the sliding window of a model, None if it has none or if upstream limits the context to it itself."""
    if family == "gemma2" or config.get("use_sliding_window") is False or "sliding_window" in ignored_keys():
        return None
    return config.get("sliding_window") or None


def _limit_to_window(config: dict[str, Any], family: str) -> None:
    """Limits the context to the sliding window, within which it is equal to full attention, which is computed.

    Upstream's families for Mistral would keep the first four tokens beyond the window, as no other engine does, and one
    token too many. Gemma 3: see rotation.py.
    """
    window = _window(config, family)
    if family in GEMMA_3 and "num_hidden_layers" in config:
        # Upstream's value for none. Its cache would slide, and its context would be 8192 tokens.
        config["sliding_window"] = -1
        if window:
            config["context_window_size"] = min(window, config.get("max_position_embeddings", window))
            config["prefill_chunk_size"] = min(config["context_window_size"], 2048)
            _warn_of_limit(_full_attention(family), window)
        return
    if family == "gemma2" or config.get("sliding_window") is None:
        return
    del config["sliding_window"]
    if not window:
        return
    config.pop("use_sliding_window", None)
    config.pop("layer_types", None)
    _limit_context(config, window, _full_attention(family))


def _limit_context(config: dict[str, Any], tokens: int, why: str) -> None:
    most = [config[key] for key in ("context_window_size", "max_position_embeddings") if config.get(key, 0) > 0]
    if tokens < min(most, default=tokens + 1):
        _warn_of_limit(why, tokens)
        config["context_window_size"] = tokens


def _full_attention(family: str) -> str:
    return f"sliding_window: mlc-llm computes full attention for {family}"


def _warn_of_limit(why: str, tokens: int) -> None:
    logger.warning("%s, so the context is limited to %d tokens", why, tokens)


def ignored_keys() -> set[str]:
    """Returns the keys of config.json that the user accepts to be ignored."""
    return {key.strip() for key in os.environ.get(IGNORE, "").split(",")} - {""}


def check(config: Mapping[str, Any], family: str, used: Set[str]) -> None:
    """Refuses keys that would change the result and that upstream does not use.

    Args:
        config: a configuration that `normalise` returned.
        family: its model_type.
        used: the keys that upstream's code reads.

    Raises:
        CheckpointError: there are some. Names all of them, and no file.
    """
    problems = {}
    sections = [("", config, used)]
    sections += [(f"{key}.", config[key], used - {*NESTED}) for key in NESTED if key in used and config.get(key)]
    for where, section, known in sections:
        for key, value in section.items():
            if (problem := _problem(key, value, section, family, known)) and key not in ignored_keys():
                problems[where + key] = problem
    if problems:
        names = sorted({name.rpartition(".")[2] for name in problems})
        raise CheckpointError(
            "; ".join(f"{name}: {problem}" for name, problem in problems.items()) + f"; {_accept(names)}"
        )


def _accept(keys: list[str]) -> str:
    return (
        f"mlc-llm would compute another model. If you accept that: {IGNORE}={','.join(keys)}, or in a BUILD file:"
        f" ignore_config_keys = {json.dumps(keys)}"
    )


def _found(value: Any) -> str:
    return f"found {json.dumps(value)[:100]}"


def _problem(key: str, value: Any, section: Mapping[str, Any], family: str, used: Set[str]) -> str | None:
    """Returns what is wrong with a key, or None."""
    found = _found(value)
    if value is None:
        return None
    if key == "layer_types":
        expected = _layer_types(family, section)
        return None if expected is None or value == expected else f"expected {_pattern(expected)}, {found}"
    if key == "quantization_config" and key not in used:
        # Whether the tensors are what `--source-format awq` expects, the check of the tensors says.
        method = value.get("quant_method") if isinstance(value, Mapping) else None
        return None if method == "awq" else f"expected weights that are not quantized, found {json.dumps(method)}"
    computed = FAMILIES.get(family, {}).get(key)
    if computed is None and key not in used:
        computed = COMPUTED.get(key)
        if key == "rope_theta" and "position_embedding_base" in section:
            computed = (section["position_embedding_base"],)
    if computed is not None:
        options = " or ".join(map(json.dumps, computed or (None,)))
        return None if value in computed else f"expected {options}, which is what mlc-llm computes, {found}"
    if key in used or key in HARMLESS or key.startswith("_"):
        return None
    if (key, value) in (
        ("layer_norm_epsilon", section.get("norm_epsilon")),
        ("attention_hidden_size", section.get("hidden_size")),
    ):
        return None  # The same number under its former name.
    return f"expected a key that mlc-llm knows for {family}, {found}"


def _layer_types(family: str, config: Mapping[str, Any]) -> list[str] | None:
    """Returns the attention of each layer that upstream computes, None if any is right."""
    if family in ("gemma2", "qwen3_5", "qwen3_5_text"):
        return None  # Gemma 2's context is at most its window; Qwen 3.5 derives it from full_attention_interval.
    layers = config.get("num_hidden_layers") or 0
    if family in GEMMA_3:
        return [f"{'sliding' if (layer + 1) % 6 else 'full'}_attention" for layer in range(layers)]
    return ["full_attention"] * layers


def _pattern(layers: list[str]) -> str:
    return f"{len(layers)} layers with {'every sixth' if len(set(layers)) > 1 else 'only'} {(layers or [''])[-1]}"


_used: contextvars.ContextVar[set[str] | None] = contextvars.ContextVar("used", default=None)
"""The keys that upstream reads while a config.json is loaded."""


class _Read(dict):
    """Keys without a field in upstream's classes. Notes those that are read."""

    def _note(self, key: Any) -> None:
        if (used := _used.get()) is not None:
            used.add(key)

    def __contains__(self, key: Any) -> bool:
        self._note(key)
        return super().__contains__(key)

    def __getitem__(self, key: Any) -> Any:
        self._note(key)
        return super().__getitem__(key)

    def get(self, key: Any, *default: Any) -> Any:
        self._note(key)
        return super().get(key, *default)

    def pop(self, key: Any, *default: Any) -> Any:
        self._note(key)
        return super().pop(key, *default)


@contextlib.contextmanager
def _noting() -> Iterator[set[str]]:
    used: set[str] = set()
    token = _used.set(used)
    try:
        yield used
    finally:
        _used.reset(token)


def load(config_class: Any, path: Path) -> Any:
    """Returns upstream's configuration of a checkpoint.

    Args:
        config_class: upstream's class, such as LlamaConfig.
        path: config.json.

    Raises:
        CheckpointError: it is not JSON, lacks a key, or has one that would change the result and that upstream ignores.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: expected JSON, found: {error}; copy the file again") from None
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {type(config).__name__}; copy the file again")
    try:
        return read(config_class, config)
    except (CheckpointError, RecursionError) as error:
        raise CheckpointError(f"{path}: {error}") from None


def read(config_class: Any, config: Mapping[str, Any]) -> Any:
    """Returns upstream's configuration, like `load`. Its errors name no file."""
    family = str(config.get("model_type") or config_class.__module__.split(".")[-2])
    try:
        normal = normalise(config, family)
        with _noting() as used:
            result = config_class.from_dict(_Read(normal))
        if window := _window(config.get("text_config") or config, family):
            result.most_tokens = window
        # Presets of upstream's have keys of its own.
        if "model_preset_tag" not in config:
            check(normal, family, used)
    except TypeError as error:
        if "required positional argument" not in str(error):
            raise
        missing = str(error).partition(": ")[2]
        raise CheckpointError(
            f"expected the keys of a {family} model, found none named {missing}; copy the file again"
        ) from None
    return result


def _limit_overrides(upstream: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Wraps ModelConfigOverride.apply: `--context-window-size` may not go beyond a sliding window."""

    @functools.wraps(upstream)
    def apply(self: Any, config: Any) -> Any:
        most, given = getattr(config, "most_tokens", None), self.context_window_size
        if most and given and given > most:
            raise CheckpointError(
                f"context_window_size: expected at most {most}, the sliding_window of the model, because mlc-llm"
                f" computes full attention, found {given}; {_accept(['sliding_window'])}"
            )
        return upstream(self, config)

    return apply


def _change_overrides(module: Any) -> None:
    module.ModelConfigOverride.apply = _limit_overrides(module.ModelConfigOverride.apply)


def _change_compiler(module: Any) -> None:
    upstream = module.compile

    @functools.wraps(upstream)
    def compile_model(config: dict[str, Any], quantization: Any, model_type: Any, *rest: Any, **options: Any) -> Any:
        # Without this key, it is a config.json and not what gen_config wrote.
        if "model_config" not in config:
            config = {key: value for key, value in config.items() if key != "quantization"}
            config["model_config"] = read(model_type.config, config).asdict()
            config = {key: config[key] for key in ("model_config", "active_vocab_size") if key in config}
        return upstream(config, quantization, model_type, *rest, **options)

    module.compile = compile_model


def install() -> None:
    """Makes upstream's commands read config.json with this module. Imports mlc_llm."""
    from mlc_llm.support import config

    from .after_import import after_import

    @classmethod  # type: ignore[misc]
    def from_file(cls: Any, source: Path) -> Any:
        return load(cls, source)

    @classmethod  # type: ignore[misc]
    def from_dict(cls: Any, source: dict[str, Any]) -> Any:
        names = {field.name for field in dataclasses.fields(cls)}
        if (used := _used.get()) is not None:
            used |= names
        fields = {key: value for key, value in source.items() if key in names}
        return cls(**fields, kwargs=_Read({key: value for key, value in source.items() if key not in names}))

    after_import("mlc_llm.interface.compile", _change_compiler)
    after_import("mlc_llm.interface.compiler_flags", _change_overrides)
    config.ConfigBase.from_file = from_file
    config.ConfigBase.from_dict = from_dict
    sys.excepthook = in_a_line(sys.excepthook)


def in_a_line(
    upstream: Callable[[type[BaseException], BaseException, TracebackType | None], Any],
    refusal: type[Exception] = CheckpointError,
) -> Callable[[type[BaseException], BaseException, TracebackType | None], None]:
    """Wraps `sys.excepthook`: a checkpoint that is refused is no error of the program, so there is no traceback."""

    def excepthook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if isinstance(error, refusal):
            print(f"mlc_llm: {error}", file=sys.stderr)
        else:
            upstream(kind, error, traceback)

    return excepthook
