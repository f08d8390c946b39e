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
from models.llama.generate import Model

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
