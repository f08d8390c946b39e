"""mlc_llm's registries of model families, conversation templates and quantisations are complete and correct."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import mlc_llm.model
import numpy as np
import pytest
from mlc_llm.conversation_template import ConvTemplateRegistry
from mlc_llm.interface.gen_config import CONV_TEMPLATES
from mlc_llm.loader import LOADER
from mlc_llm.model import MODEL_PRESETS, MODELS
from mlc_llm.protocol.conversation_protocol import Conversation, MessagePlaceholders
from mlc_llm.quantization import QUANTIZATION

import tvm
from tvm import relax

TEMPLATES = ConvTemplateRegistry._conv_templates

# Upstream folders without a family: shared parts, and one that upstream has not registered yet.
NO_FAMILY = {"qwen2_5_vl", "vision"}

# One preset of each family that has presets.
PRESETS = {preset["model_type"]: name for name, preset in reversed(MODEL_PRESETS.items())}

# Families written for an older TVM → the error when TVM 0.26 exports them. All need a change in mlc_llm.
NEEDS_OLDER_TVM = {
    # TVM's script parser became stricter.
    "llava": r"T\.writes must be called at the top of a T\.sblock",
    "rwkv5": r"without a prior DeclBuffer",
    # With any TVM: upstream's loader names a weight that its model does not have.
    "gptj": r"transformer\.h\.0\.self_attn\.c_attn\.weight",
}

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 256,
    "max_position_embeddings": 256,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "vocab_size": 320,
}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def small(config: dict[str, Any]) -> dict[str, Any]:
    """A preset reduced to two layers and a few experts, because the code is the same for each layer."""
    limits = {
        "num_hidden_layers": 2,
        "n_layer": 2,
        "num_layers": 2,
        "num_experts": 8,
        "n_routed_experts": 8,
        "num_local_experts": 8,
    }
    smaller = {}
    for key, value in config.items():
        if isinstance(value, dict):
            smaller[key] = small(value)
        else:
            smaller[key] = min(value, limits[key]) if key in limits and value else value
    return smaller


def test_every_family_that_upstream_packs_is_registered() -> None:
    (folder,) = map(Path, mlc_llm.model.__path__)
    families = {path.parent.name for path in folder.glob("*/__init__.py")}
    registered = {model.model.__module__.split(".")[2] for model in MODELS.values()}
    assert len(families) > len(NO_FAMILY)
    assert families - registered == NO_FAMILY


@pytest.mark.parametrize("name", MODELS)
def test_entry_of_a_family_is_complete(name: str) -> None:
    model = MODELS[name]
    assert model.name == name
    assert callable(model.model) and dataclasses.is_dataclass(model.config)
    assert {"huggingface-safetensor", "huggingface-torch"} <= set(model.source) <= set(LOADER)
    assert "no-quant" in model.quantize and set(model.quantize) <= {
        quantization.kind for quantization in QUANTIZATION.values()
    }
    assert all(map(callable, [*model.source.values(), *model.quantize.values()]))
    assert (model.model_task == "embedding") == (model.embedding_metadata is not None)


@pytest.mark.parametrize("name", MODEL_PRESETS)
def test_preset_is_a_configuration_of_its_family(name: str) -> None:
    preset = MODEL_PRESETS[name]
    config = MODELS[preset["model_type"]].config.from_dict(dict(preset))
    # RWKV has a state instead of a window, which it writes as -1.
    windows = [config.context_window_size, getattr(config, "sliding_window_size", -1)]
    assert max(windows) > 0 or preset["model_type"].startswith("rwkv")
    assert config.prefill_chunk_size > 0
    again = type(config).from_dict(config.asdict()).asdict()
    if preset["model_type"] == "gemma2":
        # Upstream takes the sliding window for the window after it took the chunk from the latter: read again, the
        # chunk is smaller.
        assert again.pop("prefill_chunk_size") * 2 == config.prefill_chunk_size
    assert again == {key: value for key, value in config.asdict().items() if key in again}


def export(name: str) -> tuple[set[str], set[str], tvm.IRModule]:
    """The parameters of a family's reduced preset, those that its loader fills, and its functions."""
    model, quantization = MODELS[name], QUANTIZATION["q0f16"]
    config = model.config.from_dict(small(MODEL_PRESETS[PRESETS[name]]))
    module, _ = model.quantize["no-quant"](config, quantization)
    loaded = set(model.source["huggingface-safetensor"](config, quantization).param_map)
    functions, _ = module.export_tvm(spec=module.get_default_spec())
    return {parameter for parameter, _ in module.named_parameters()}, loaded, functions


@pytest.mark.parametrize("name", [name for name in PRESETS if name not in NEEDS_OLDER_TVM])
def test_family_exports_and_its_loader_fills_every_parameter(name: str) -> None:
    parameters, loaded, functions = export(name)
    assert loaded == parameters
    names = {variable.name_hint for variable in functions.functions}
    assert ("prefill" in names) if MODELS[name].model_task == "embedding" else {"prefill", "decode"} & names


@pytest.mark.parametrize("name", NEEDS_OLDER_TVM)
def test_family_is_refused_by_this_tvm(name: str) -> None:
    """Move a family that starts to work to the test above."""
    with pytest.raises(Exception, match=NEEDS_OLDER_TVM[name]):
        export(name)


def test_llama_needs_six_numbers_and_keeps_unknown_fields() -> None:
    config = MODELS["llama"].config.from_dict({**LLAMA, "unknown_key": 1})
    assert (config.head_dim, config.context_window_size, config.tensor_parallel_shards) == (32, 256, 1)
    assert config.kwargs == {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "unknown_key": 1}
    assert "unknown_key" not in config.asdict()


@pytest.mark.parametrize("missing", ["hidden_size", "num_attention_heads", "vocab_size"])
def test_a_configuration_without_a_needed_number_is_refused_by_its_name(missing: str) -> None:
    with pytest.raises(TypeError, match=missing):
        MODELS["llama"].config.from_dict({key: value for key, value in LLAMA.items() if key != missing})


@pytest.mark.parametrize("name", [name for name, each in QUANTIZATION.items() if each.kind in MODELS["llama"].quantize])
def test_every_quantisation_of_llama_fills_every_parameter(name: str) -> None:
    """The checkpoint's weights fill all parameters before quantisation, and those fill all of the compiled model."""
    quantization = dataclasses.replace(QUANTIZATION[name])
    model = MODELS["llama"]
    config = model.config.from_dict(dict(LLAMA))
    module, quantize_map = model.quantize[quantization.kind](config, quantization)
    source = "awq" if quantization.kind == "awq" else "huggingface-safetensor"
    loaded = set(model.source[source](config, quantization).param_map)
    made = {each for parameters in quantize_map.param_map.values() for each in parameters}
    parameters = {parameter for parameter, _ in module.named_parameters()}
    assert set(quantize_map.param_map) <= loaded
    assert loaded - set(quantize_map.param_map) | made == parameters
    if quantization.kind == "group-quant":
        assert {"model.layers.0.self_attn.qkv_proj.q_weight", "model.layers.1.mlp.down_proj.q_scale"} <= parameters


def test_templates_that_the_command_offers_are_registered() -> None:
    """Except one: upstream removed the template llama_default but not its name, so gen_config fails in validation."""
    assert set(CONV_TEMPLATES) - set(TEMPLATES) == {"llama_default"}
    assert set(TEMPLATES) <= set(CONV_TEMPLATES)


@pytest.mark.parametrize("name", TEMPLATES)
def test_template_renders_a_conversation_in_order(name: str) -> None:
    conversation = TEMPLATES[name].model_copy(deep=True)
    conversation.messages = [
        ("user", "QUESTION-1"),
        ("assistant", "ANSWER-1"),
        ("user", "QUESTION-2"),
        ("assistant", None),
    ]
    (prompt,) = conversation.as_prompt()
    assert re.findall(r"(?:QUESTION|ANSWER)-\d", prompt) == ["QUESTION-1", "ANSWER-1", "QUESTION-2"]
    assert prompt.endswith(conversation.roles["assistant"] + conversation.role_empty_sep)
    assert conversation.system_message in prompt
    assert not [each.value for each in MessagePlaceholders if each.value in prompt]


@pytest.mark.parametrize("name", TEMPLATES)
def test_template_comes_back_from_json(name: str) -> None:
    conversation = TEMPLATES[name].model_copy(deep=True)
    conversation.messages = [("user", 'quotes " and \\ and \n and 🙂'), ("assistant", None)]
    assert conversation.name == name
    assert Conversation.from_json_dict(json.loads(json.dumps(conversation.to_json_dict()))) == conversation
    assert Conversation.model_validate_json(conversation.model_dump_json(by_alias=True)) == conversation


@pytest.mark.parametrize("name", TEMPLATES)
def test_template_says_when_to_stop(name: str) -> None:
    """Upstream gives one template the stop string "", which the engine refuses: "Stop string cannot be empty"."""
    assert TEMPLATES[name].stop_str or TEMPLATES[name].stop_token_ids
    assert ("" in TEMPLATES[name].stop_str) == (name == "stablelm")


def test_a_template_is_registered_once() -> None:
    with pytest.raises(ValueError, match="has been registered"):
        ConvTemplateRegistry.register_conv_template(TEMPLATES["chatml"])
    with pytest.raises(ValueError, match="non-None name"):
        ConvTemplateRegistry.register_conv_template(Conversation(roles={"user": "", "assistant": ""}, seps=[""]))
    assert ConvTemplateRegistry.get_conv_template("absent") is None


def test_a_role_that_the_template_lacks_is_refused() -> None:
    conversation = TEMPLATES["chatml"].model_copy(deep=True)
    conversation.messages = [("narrator", "once upon a time")]
    with pytest.raises(ValueError, match='Role "narrator" is not a supported role'):
        conversation.as_prompt()


def test_no_template_lets_a_message_speak_for_the_template() -> None:
    """Placeholders in a user's message are not expanded and stay text."""
    conversation = TEMPLATES["chatml"].model_copy(deep=True)
    conversation.messages = [("user", "{system_message} {user_message}"), ("assistant", None)]
    assert "user\n{system_message} {user_message}<|im_end|>" in conversation.as_prompt()[0]


BITS = {"int3": 3, "int4": 4, "int8": 8, "float8_e4m3fn": 8, "float8_e5m2": 8}

DTYPES = {"f16": "float16", "bf16": "bfloat16", "f32": "float32"}


@pytest.mark.parametrize("name", QUANTIZATION)
def test_quantisation_matches_its_name(name: str) -> None:
    quantization = QUANTIZATION[name]
    assert quantization.name == name
    dtype = re.search(r"(?<![a-z])b?f(16|32)(?![0-9])", name)
    assert dtype and quantization.model_dtype == DTYPES[dtype[0]]
    named = re.match(r"q(\d)", name)
    if named and named[1] == "0":
        assert quantization.kind == "no-quant"
    elif named:
        assert BITS[quantization.quantize_dtype] == int(named[1])
        assert quantization.max_int_value == 2 ** (int(named[1]) - 1) - 1
        assert quantization.num_elem_per_storage == np.dtype(quantization.storage_dtype).itemsize * 8 // int(named[1])
    else:
        assert BITS[quantization.weight_dtype] == 8 and quantization.kind in ("per-tensor-quant", "block-scale-quant")
        float8 = re.search(r"e4m3|e5m2", name)
        assert float8 and float8[0] in quantization.weight_dtype
    if quantization.kind in ("group-quant", "awq"):
        assert quantization.group_size == quantization.num_elem_per_storage * quantization.num_storage_per_group


GROUPS = [name for name, quantization in QUANTIZATION.items() if quantization.kind == "group-quant"]


def test_a_group_that_does_not_fill_whole_words_is_refused() -> None:
    with pytest.raises(ValueError, match="Group size should be divisible"):
        dataclasses.replace(QUANTIZATION["q4f16_1"], group_size=33)


def numpy_dtype(name: str) -> np.dtype:
    return np.dtype(getattr(ml_dtypes, name, name))


def unpack(words: np.ndarray, bits: int, columns: int) -> np.ndarray:
    """The numbers in rows of 32-bit words, lowest bits first, as integers of (rows, columns)."""
    per_word = 32 // bits
    shifts = (np.arange(per_word) * bits).astype(np.uint32)
    return (
        ((words[:, :, None] >> shifts) & np.uint32(2**bits - 1)).reshape(len(words), -1)[:, :columns].astype(np.int64)
    )


# One for each pair of types.
COMPUTED = {QUANTIZATION[name].quantize_dtype + QUANTIZATION[name].model_dtype: name for name in GROUPS}


@pytest.mark.parametrize("name", COMPUTED.values())
def test_quantised_weights_are_near_the_weights(name: str) -> None:
    """Each number is within half a step. A group's step is its largest number divided by the largest integer. The last
    group is not full.
    """
    quantization = dataclasses.replace(QUANTIZATION[name])
    bits, limit, group = BITS[quantization.quantize_dtype], quantization.max_int_value, quantization.group_size
    dtype = numpy_dtype(quantization.model_dtype)
    rows, columns = 6, 2 * group + 7
    weight = np.random.RandomState(0).uniform(-1, 1, (rows, columns)).astype(dtype)
    weight[1] *= dtype.type(0.01)
    words, scale = (array.numpy() for array in quantization.quantize_weight(tvm.runtime.tensor(weight)))

    groups = -(-columns // group)
    assert (words.shape, words.dtype) == ((rows, groups * quantization.num_storage_per_group), np.uint32)
    assert (scale.shape, scale.dtype) == ((rows, groups), dtype)
    exact = weight.astype(np.float64)
    padded = np.pad(exact, ((0, 0), (0, groups * group - columns))).reshape(rows, groups, group)
    precision = float(ml_dtypes.finfo(dtype).eps)
    np.testing.assert_allclose(scale.astype(np.float64), np.abs(padded).max(axis=2) / limit, rtol=2 * precision)

    # A group of 40 numbers of 3 bits fills 4 words of 10: no number lies across two words.
    integers = unpack(words, bits, columns)
    assert integers.min() >= 0 and integers.max() <= 2 * limit
    step = np.repeat(scale.astype(np.float64), group, axis=1)[:, :columns]
    dequantised = (integers - limit) * step
    assert (np.abs(dequantised - exact) <= step * (0.5 + 2 * limit * precision)).all()
    if quantization.model_dtype == "float32":
        np.testing.assert_array_equal(integers, np.clip(np.round(exact / step + limit), 0, 2 * limit))

    # The compiled model computes the same from them.
    builder = relax.BlockBuilder()
    arguments = [
        relax.Var("words", relax.TensorType(words.shape, "uint32")),
        relax.Var("scale", relax.TensorType(scale.shape, dtype.name)),
    ]
    with builder.function("main", arguments):
        shape = [tvm.tirx.IntImm("int64", size) for size in (rows, columns)]
        builder.emit_func_output(builder.emit_te(quantization._dequantize, *arguments, axis=1, out_shape=shape))
    machine = relax.VirtualMachine(relax.build(builder.finalize(), target="llvm"), tvm.cpu())
    computed = machine["main"](tvm.runtime.tensor(words), tvm.runtime.tensor(scale)).numpy()
    np.testing.assert_allclose(computed.astype(np.float64), dequantised, rtol=2 * precision, atol=0)
