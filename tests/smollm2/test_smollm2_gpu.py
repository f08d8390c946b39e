"""SmolLM2 on a GPU: it computes what a NumPy reference does with the same stored weights, and answers."""

from __future__ import annotations

import numpy as np
import pytest
import tokenizers
from compiled_model import CompiledModel
from numpy_llama import Llama, log_softmax, q4f16_1
from smollm2_model import ANSWER, CHECKPOINT, QUESTION, TEXT, place

from mlc_llm import MLCEngine

POSITIONS = 200

# ‖found − expected‖ / ‖expected‖ of the logits at a position. float16 has 11 bits, and 30 layers propagate its errors:
# 1.4e-2 is the largest of 200 positions on an H200. The wrong references of the third test are off by at least 1e-1.
TOLERANCE = 3e-2


@pytest.fixture(scope="module")
def tokens() -> list[int]:
    tokenizer = tokenizers.Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json"))
    return tokenizer.encode(TEXT).ids[: POSITIONS + 1]


@pytest.fixture(scope="module")
def reference() -> Llama:
    return Llama(CHECKPOINT, q4f16_1)


@pytest.fixture(scope="module")
def expected(reference: Llama, tokens: list[int]) -> np.ndarray:
    """Logits that follow each of the first 200 tokens."""
    return reference.logits(tokens[:POSITIONS])


@pytest.fixture(scope="module")
def compiled() -> CompiledModel:
    return CompiledModel(place("MLC_SMOLLM2_LIBRARY"), place("MLC_SMOLLM2_WEIGHTS"), context=1024, device="cuda")


def error(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """The relative error at each position."""
    return np.linalg.norm(found - expected, axis=-1) / np.linalg.norm(expected, axis=-1)


def perplexity(logits: np.ndarray, tokens: list[int]) -> float:
    return float(np.exp(-log_softmax(logits.astype("float64"))[np.arange(POSITIONS), tokens[1:]].mean()))


def test_prompt_of_200_tokens(compiled: CompiledModel, tokens: list[int], expected: np.ndarray) -> None:
    compiled.reset()
    found = compiled.forward("prefill", {0: tokens[:POSITIONS]})[0]
    print(f"error of the prompt: {error(found, expected[-1]):.2e}")
    assert error(found, expected[-1]) < TOLERANCE
    assert found.argmax() == expected[-1].argmax()


def test_token_by_token(compiled: CompiledModel, tokens: list[int], expected: np.ndarray) -> None:
    compiled.reset()
    found = np.concatenate([compiled.forward("decode", {0: [token]}) for token in tokens[:POSITIONS]])
    print(f"largest error: {error(found, expected).max():.2e}")
    print(f"perplexity: {perplexity(found, tokens):.4f}, of the reference {perplexity(expected, tokens):.4f}")
    assert error(found, expected).max() < TOLERANCE
    assert perplexity(found, tokens) == pytest.approx(perplexity(expected, tokens), rel=0.01)


@pytest.mark.parametrize("wrong", ["position", "rows", "weights"])
def test_the_tolerance_tells_wrong_from_right(
    reference: Llama, tokens: list[int], expected: np.ndarray, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if wrong == "position":
        monkeypatch.setitem(reference.config, "rope_theta", 120000.0)
    elif wrong == "rows":
        name = "model.layers.15.self_attn.q_proj.weight"
        weight = reference.weights[name].reshape(9, 2, 32, 576).swapaxes(1, 2).reshape(-1, 576)
        monkeypatch.setitem(reference.weights, name, weight)
    else:
        monkeypatch.setattr(reference, "weights", Llama(CHECKPOINT).weights)
    errors = error(reference.logits(tokens[:POSITIONS]), expected)
    print(f"{wrong}: {errors.max():.2e}")
    assert errors.max() > 3 * TOLERANCE


def test_answer() -> None:
    engine = MLCEngine(str(place("MLC_SMOLLM2_WEIGHTS")), model_lib=str(place("MLC_SMOLLM2_LIBRARY")), device="cuda")
    try:
        answer = engine.chat.completions.create(
            messages=[{"role": "user", "content": QUESTION}], temperature=0.0, max_tokens=20
        )
    finally:
        engine.terminate()
    assert answer.choices[0].message.content == ANSWER
