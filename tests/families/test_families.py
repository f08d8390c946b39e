"""Compiled models of several families agree with NumPy references that share no code with mlc-llm.

Their weights are random (//models/tiny:tiny_family.py), so every mistake shows.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from compiled_model import CompiledModel
from numpy_families import reference
from numpy_llama import Llama, bfloat16

FOLDER = Path(os.environ["MLC_FAMILIES"]).absolute()

CONTEXT = {
    # Of Gemma 3 and Mistral: the window, within which full attention is the same.
    "gemma3": 192,
    "llama3": 512,
    "mistral": 512,
    "mistral_window": 192,
    "phi3": 512,
    # What the short factors are for.
    "phi3_longrope": 192,
    "phi3_longrope_long": 512,
    "qwen2": 512,
    "qwen3": 512,
}
"""Models and how many tokens each takes."""

# Logits are as large as 36. The largest difference seen is 1.4e-4; the wrong references of the last test are off by at
# least 0.9.
TOLERANCE = 1e-3

PIECES = [100, 20, 1, 50]
"""Of a prompt, none longer than the library's chunk of 128."""


@functools.cache
def load(name: str) -> CompiledModel:
    return CompiledModel(FOLDER / f"{name}.so", FOLDER / name)


@functools.cache
def load_reference(name: str) -> Llama:
    return reference(FOLDER / f"{name.removesuffix('_long')}.checkpoint", bfloat16)


@functools.cache
def tokens(name: str) -> list[int]:
    """A prompt nearly as long as a short context. Long factors are for longer ones."""
    length = 300 if name.endswith("_long") else 190
    return np.random.RandomState(1).randint(3, 320, size=length).tolist()


@functools.cache
def expected(name: str) -> np.ndarray:
    """Logits that follow each token."""
    return load_reference(name).logits(tokens(name))


@pytest.fixture(params=CONTEXT)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def compiled(name: str) -> CompiledModel:
    model = load(name)
    model.reset()
    return model


def check(actual: np.ndarray, *right: np.ndarray) -> None:
    np.testing.assert_allclose(actual, np.stack(right), rtol=0, atol=TOLERANCE)
    assert actual.argmax(axis=-1).tolist() == [row.argmax() for row in right]


def test_context(name: str, compiled: CompiledModel) -> None:
    assert compiled.metadata["context_window_size"] == CONTEXT[name]
    assert compiled.metadata["sliding_window_size"] == -1


@pytest.mark.parametrize("length", [1, 17, 60, 128])
def test_prefill(name: str, compiled: CompiledModel, length: int) -> None:
    check(compiled.forward("prefill", {0: tokens(name)[:length]}), expected(name)[length - 1])


def test_chunks_and_decode(name: str, compiled: CompiledModel) -> None:
    """To the end of a short context, or beyond what short factors are for."""
    end = 0
    pieces = [*PIECES, 128] if name.endswith("_long") else PIECES
    for piece in pieces:
        start, end = end, end + piece
        check(compiled.forward("prefill", {0: tokens(name)[start:end]}), expected(name)[end - 1])
    for position in range(end, len(tokens(name))):
        check(compiled.forward("decode", {0: [tokens(name)[position]]}), expected(name)[position])


def test_a_batch_is_the_same_as_each_alone(name: str, compiled: CompiledModel) -> None:
    """Sequences that differ in length and in number of pages."""
    one = tokens(name)
    # Long factors hold for the whole of a long text only.
    other = one if name.endswith("_long") else one[100:]
    second = load_reference(name).logits(other)
    check(
        compiled.forward("batch_prefill", {0: one[:45], 1: other[:7]}),
        expected(name)[44],
        second[6],
    )
    check(
        compiled.forward("batch_prefill", {1: other[7:40], 0: one[45:47]}),
        second[39],
        expected(name)[46],
    )
    check(
        compiled.forward("batch_decode", {0: one[47:48], 1: other[40:41]}),
        expected(name)[47],
        second[40],
    )


def turned_off(model: Llama, monkeypatch: pytest.MonkeyPatch, end: str, value: float) -> None:
    """Replaces weights by one number."""
    for weight in [weight for weight in model.weights if weight.endswith(end)]:
        monkeypatch.setitem(model.weights, weight, np.full_like(model.weights[weight], value))


def rope(model: Llama, monkeypatch: pytest.MonkeyPatch, *path: str, **changes: object) -> None:
    """Changes parameters of the rotary position embedding."""
    parameters = model.config["rope_parameters"]
    for key in path:
        parameters = parameters[key]
    for key, value in changes.items():
        monkeypatch.setitem(parameters, key, value)


MISTAKES: dict[str, Callable[[Llama, pytest.MonkeyPatch], None]] = {
    "gemma3: base of the global layers in all": lambda model, patch: rope(
        model, patch, "sliding_attention", rope_theta=1000000.0
    ),
    "gemma3: no linear scaling": lambda model, patch: rope(model, patch, "full_attention", factor=1.0),
    "gemma3: scores by the size of heads": lambda model, patch: patch.setitem(
        model.config, "query_pre_attn_scalar", 24
    ),
    "gemma3: no norms of queries": lambda model, patch: turned_off(model, patch, "q_norm.weight", 1.0),
    "gemma3: embeddings as they are": lambda model, patch: patch.setattr(
        model, "embedding", functools.partial(Llama.embedding, model)
    ),
    "gemma3: another layer is global": lambda model, patch: patch.setitem(
        model.config, "layer_types", ["sliding_attention"] * 4 + ["full_attention"] + ["sliding_attention"] * 2
    ),
    "llama3: no scaling": lambda model, patch: rope(model, patch, factor=1.0),
    "mistral: size of heads": lambda model, patch: patch.setattr(model, "scale", lambda _size: 16**-0.5),
    "mistral_window: a shorter window": lambda model, patch: patch.setitem(model.config, "sliding_window", 100),
    "phi3: base": lambda model, patch: rope(model, patch, rope_theta=10000.0),
    "phi3_longrope: long factors": lambda model, patch: rope(
        model, patch, short_factor=model.config["rope_parameters"]["long_factor"]
    ),
    "phi3_longrope: no factor of attention": lambda model, patch: patch.setitem(
        model.config, "max_position_embeddings", 192
    ),
    "phi3_longrope_long: short factors": lambda model, patch: rope(
        model, patch, long_factor=model.config["rope_parameters"]["short_factor"]
    ),
    "qwen2: no bias": lambda model, patch: turned_off(model, patch, "_proj.bias", 0.0),
    "qwen3: no norms of keys": lambda model, patch: turned_off(model, patch, "k_norm.weight", 1.0),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_tolerance_tells_wrong_from_right(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = mistake.partition(":")[0]
    right = expected(name)
    model = load_reference(name)
    MISTAKES[mistake](model, monkeypatch)
    assert np.abs(model.logits(tokens(name)) - right).max() > 10 * TOLERANCE
