"""The example //models/llama refuses what it does not implement, and is right for a model of another shape.

That one has an untied last matrix, bfloat16 weights and random values; //tests/runtime:real_model has a real one.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from numpy_llama import Llama

from models.llama import llama
from models.llama.generate import Chat, Model

CHECKPOINT = Path(os.environ["MLC_TINY_CHECKPOINT"])
LIBRARY = Path(os.environ["MLC_TINY_LLAMA"])
CONFIG: dict[str, Any] = json.loads((CHECKPOINT / "config.json").read_text(encoding="utf-8"))


def test_logits() -> None:
    tokens = np.random.default_rng(5).integers(3, CONFIG["vocab_size"], 40).tolist()
    model = Model(LIBRARY, CHECKPOINT, tokens_per_step=17)
    # The tolerance of tests/mlc_llm/test_logits.py.
    np.testing.assert_allclose(model.forward(tokens, every=True), Llama(CHECKPOINT).logits(tokens), rtol=0, atol=3e-4)


def config(folder: Path, **values: Any) -> llama.Config:
    (folder / "config.json").write_text(json.dumps({**CONFIG, **values}), encoding="utf-8")
    return llama.Config(folder / "config.json")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("attention_bias", True, "False"),
        ("hidden_act", "gelu", "'silu'"),
        ("model_type", "qwen2", "'llama'"),
        ("quantization_config", {"bits": 8}, "None"),
        ("rope_scaling", {"rope_type": "llama3"}, "None"),
    ],
)
def test_another_model_is_refused(key: str, value: Any, expected: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError) as error:
        config(tmp_path, **{key: value})
    assert str(error.value) == f"{tmp_path}/config.json: {key}: expected {expected}, found {value!r}"


def test_positions_as_transformers_5_writes_them(tmp_path: Path) -> None:
    assert config(tmp_path, rope_parameters={"rope_type": "default", "rope_theta": 5e5}).theta == 5e5
    with pytest.raises(ValueError, match=r"rope_type: expected 'default', found 'yarn'"):
        config(tmp_path, rope_parameters={"rope_type": "yarn", "rope_theta": 5e5})


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    shutil.copy(CHECKPOINT / "config.json", tmp_path)
    name = "model.embed_tokens.weight"
    safetensors.numpy.save_file({name: np.zeros((4, 8), "float32")}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=rf"{name}: expected the shape \(\d+, \d+\), found \(4, 8\)"):
        Model(LIBRARY, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=rf"expected a tensor {name} in \*.safetensors, found none"):
        Model(LIBRARY, tmp_path)


def chat(
    folder: Path, template: Any, ends: dict[str, Any] | None = None, files: dict[str, str] | None = None, **values: Any
) -> Chat:
    """A chat with the tiny model's tokenizer and another template.

    Args:
        folder: where to write the files.
        template: chat_template of tokenizer_config.json.
        ends: generation_config.json.
        files: further files.
        values: further values of tokenizer_config.json.
    """
    shutil.copyfile(CHECKPOINT / "tokenizer.json", folder / "tokenizer.json")
    contents = {
        "generation_config.json": json.dumps(ends or {"eos_token_id": 2}),
        "tokenizer_config.json": json.dumps({"chat_template": template, **values}),
        **(files or {}),
    }
    for name, content in contents.items():
        (folder / name).write_text(content, encoding="utf-8")
    return Chat(folder)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ bos_token }}{{ messages[0]['content'] }}", "<s>Hi"),
        # Without a value, as transformers has it, and not "None".
        ("{{ eos_token }}{{ messages[0].role }}", "user"),
        # Llama 3.1's.
        ("{% if strftime_now is defined %}{{ strftime_now('%%') }}{% endif %}", "%"),
        ("{{ messages | tojson }}", '[{"role": "user", "content": "Hi"}]'),
        ("{{ 'é<' | tojson }}", '"é<"'),
        ("{% generation %}{{ 1 }}{% endgeneration %}.", "1."),
        ("{% for m in [1, 2, 3] %}{% if m == 2 %}{% continue %}{% endif %}{{ m }}{% endfor %}", "13"),
        ("{% for m in [1, 2, 3] %}{% if m == 2 %}{% break %}{% endif %}{{ m }}{% endfor %}", "1"),
        ("{% if tools is not none or documents is not none %}{{ raise_exception('tools') }}{% endif %}x", "x"),
        ([{"name": "tool_use", "template": "tool"}, {"name": "default", "template": "one"}], "one"),
    ],
)
def test_chat_templates_have_what_transformers_gives_them(template: Any, text: str, tmp_path: Path) -> None:
    assert chat(tmp_path, template, bos_token={"content": "<s>"}, eos_token=None).text("Hi") == text


def test_a_chat_template_in_its_own_file(tmp_path: Path) -> None:
    assert chat(tmp_path, None, files={"chat_template.jinja": "<{{ messages[0].content }}>"}).text("Hi") == "<Hi>"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ raise_exception('Roles must alternate') }}", "TemplateError: Roles must alternate"),
        ("{% if %}", "TemplateSyntaxError: "),
        ("{{ never() }}", "UndefinedError: 'never' is undefined"),
        ("{{ messages[0].content + 1 }}", "TypeError: "),
        ("{{ raise_exception('two\n lines') }}", "TemplateError: two lines"),
        ("{{ 1 / 0 }}", "ZeroDivisionError: "),
        ("{{ messages.append(1) }}", "SecurityError: "),
    ],
)
def test_a_chat_template_that_fails(template: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError) as error:
        chat(tmp_path, template).tokens("Hi")
    assert str(error.value).startswith(f"{tmp_path}: the chat template fails: {expected}")


@pytest.mark.parametrize("template", [None, 5, [], ["x"], [{"name": "tool_use", "template": "x"}]])
def test_no_chat_template(template: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected a chat template in chat_template\.jinja, or the default one in"):
        chat(tmp_path, template)


@pytest.mark.parametrize(("question", "template"), [("\udcff", "{{ messages[0].content }}"), ("Hi", "{{ '\udcff' }}")])
def test_a_prompt_that_is_not_unicode(question: str, template: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError) as error:
        chat(tmp_path, template).tokens(question)
    assert str(error.value) == r"expected a prompt in UTF-8, found '\udcff' in it"


@pytest.mark.parametrize("ends", [{"bos_token_id": 1}, {"eos_token_id": "</s>"}, {"eos_token_id": [2, None]}])
def test_no_end_of_an_answer(ends: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected eos_token_id, a token or a list of them, in generation_config"):
        chat(tmp_path, "x", ends)


def test_the_end_of_an_answer_is_in_either_file(tmp_path: Path) -> None:
    files = {"config.json": json.dumps({"eos_token_id": 7})}
    assert chat(tmp_path, "x", {"bos_token_id": 1}, files).ends == [7]
    assert chat(tmp_path, "x", {"eos_token_id": [5, 6]}, files).ends == [5, 6]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tokenizer.json", "a tokenizer"),
        ("tokenizer_config.json", "a JSON object"),
        ("generation_config.json", "a JSON object"),
    ],
)
def test_damaged_files(name: str, expected: str, tmp_path: Path) -> None:
    chat(tmp_path, "x")
    for content in ("{", "[" * 100_000, "\udcff", "[]"):
        (tmp_path / name).write_bytes(content.encode(errors="surrogateescape"))
        with pytest.raises(ValueError) as error:
            Chat(tmp_path)
        assert str(error.value).startswith(f"{tmp_path / name}: expected {expected}")
