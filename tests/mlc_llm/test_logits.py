"""The compiled model agrees with a NumPy reference with the same weights, alone and through the engine."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest
from compiled_model import CompiledModel
from mlc_llm.protocol.generation_config import GenerationConfig
from mlc_llm.tokenizers import TextStreamer
from numpy_llama import Llama, log_softmax
from tiny_model_files import CHECKPOINT, LIBRARY, WEIGHTS, chatml

from mlc_llm import MLCEngine

# In float32 the rotary angle at position 511 is off by 511 * 2**-24 = 3e-5. Logits are as large as 8, and two layers
# propagate the error: the largest seen is 1.2e-4 at the end of the context, and 2e-5 in the first 100 positions. The
# wrong references of the last test are off by at least 8e-3.
TOLERANCE = 3e-4

CHUNK = 128  # The longest piece of a prompt that the library accepts.


@pytest.fixture(scope="module")
def loaded() -> CompiledModel:
    return CompiledModel(LIBRARY, WEIGHTS)


@pytest.fixture
def compiled(loaded: CompiledModel) -> CompiledModel:
    loaded.reset()
    return loaded


@pytest.fixture(scope="module")
def reference() -> Llama:
    return Llama(CHECKPOINT)


def random_tokens(length: int, seed: int = 1) -> list[int]:
    """Random tokens, without the special tokens 0 to 2."""
    return np.random.RandomState(seed).randint(3, 320, size=length).tolist()


def check(actual: np.ndarray, *expected: np.ndarray) -> None:
    np.testing.assert_allclose(actual, np.stack(expected), rtol=0, atol=TOLERANCE)
    assert actual.argmax(axis=-1).tolist() == [row.argmax() for row in expected]


# Lengths around a page, a kernel's tile and a chunk.
@pytest.mark.parametrize("length", [1, 2, 7, 15, 16, 17, 31, 33, 45, 64, 65, 127, CHUNK])
def test_prefill(compiled: CompiledModel, reference: Llama, length: int) -> None:
    tokens = random_tokens(length)
    check(compiled.forward("prefill", {0: tokens}), reference.next_logits(tokens))


def test_decode(compiled: CompiledModel, reference: Llama) -> None:
    """Steps that cross the end of a page."""
    tokens = random_tokens(28)
    compiled.forward("prefill", {0: tokens})
    for _ in range(6):
        tokens.append(int(reference.next_logits(tokens).argmax()))
        check(compiled.forward("decode", {0: tokens[-1:]}), reference.next_logits(tokens))


@pytest.mark.parametrize(
    "pieces", [[20, 25], [1, 1, 44], [16, 16, 16], [CHUNK, CHUNK, 44], [100, 120, 80, 127, 85]], ids=str
)
def test_chunked_prefill(compiled: CompiledModel, reference: Llama, pieces: list[int]) -> None:
    """Later pieces attend to the pages of earlier ones, with another kernel."""
    tokens = random_tokens(sum(pieces))
    expected = reference.logits(tokens)
    end = 0
    for piece in pieces:
        start, end = end, end + piece
        check(compiled.forward("prefill", {0: tokens[start:end]}), expected[end - 1])


def test_a_batch_is_the_same_as_each_alone(compiled: CompiledModel, reference: Llama) -> None:
    long, short = random_tokens(45, seed=1), random_tokens(7, seed=2)
    check(
        compiled.forward("batch_prefill", {0: long, 1: short}),
        reference.next_logits(long),
        reference.next_logits(short),
    )
    long, short = [*long, 5], [*short, 9]
    check(compiled.forward("batch_decode", {0: [5], 1: [9]}), reference.next_logits(long), reference.next_logits(short))
    # In another order than in the cache, and with lengths exchanged.
    more, less = random_tokens(30, seed=3), random_tokens(3, seed=4)
    expected = [reference.next_logits([*short, *more]), reference.next_logits([*long, *less])]
    check(compiled.forward("batch_prefill", {1: more, 0: less}), *expected)


@pytest.fixture(scope="module")
def engine() -> Iterator[MLCEngine]:
    engine = MLCEngine(str(WEIGHTS), model_lib=str(LIBRARY), device="cpu")
    yield engine
    engine.terminate()


# 116 and 256 tokens: in one chunk, and in several.
@pytest.mark.parametrize("words", [1, 29])
def test_the_engine_takes_the_best_token_of_the_reference(engine: MLCEngine, reference: Llama, words: int) -> None:
    text = " ".join(["river"] * words)
    prompt = engine.tokenizer.encode(chatml(("user", text)))
    assert (len(prompt) <= CHUNK) == (words == 1)
    # Written out token by token: a run of bytes that is no UTF-8 is another text when it is decoded at once.
    streamer = TextStreamer(engine.tokenizer)
    expected = streamer.put(reference.continued(prompt, 10)) + streamer.finish()
    answer = engine.chat.completions.create(
        messages=[{"role": "user", "content": text}], temperature=0.0, max_tokens=10
    )
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].message.content == expected


@pytest.mark.parametrize("words", [1, 29])
def test_log_probabilities_of_the_engine(engine: MLCEngine, reference: Llama, words: int) -> None:
    """Compares sampled tokens, each given the tokens before it.

    At temperature 0 upstream reports 0 for the best token and -23 for all others: the logarithms of the sampling
    distribution plus 1e-10.
    """
    tokens = engine.tokenizer.encode(chatml(("user", " ".join(["story"] * words))))
    # Not by a chat, which loses the log probabilities of tokens that are not yet text.
    config = GenerationConfig(temperature=1.0, seed=3, max_tokens=8, logprobs=True, top_logprobs=5)
    deltas = [output for outputs in engine._generate(list(tokens), config, "log probabilities") for output in outputs]
    steps = [json.loads(step) for delta in deltas for step in delta.delta_logprob_json_strs or []]
    assert len(steps) == 8
    for step in steps:
        expected = log_softmax(reference.next_logits(tokens))
        # Upstream writes six digits.
        np.testing.assert_allclose(
            [best["logprob"] for best in step["top_logprobs"]], np.sort(expected)[::-1][:5], atol=TOLERANCE
        )
        # A byte and a letter may be written alike: the score tells which of them it is.
        tokens.append(int(np.abs(expected - step["logprob"]).argmin()))
        assert step["logprob"] == pytest.approx(expected[tokens[-1]], abs=TOLERANCE)


@pytest.mark.parametrize("wrong", ["position", "head", "norm", "future"])
def test_the_tolerance_tells_wrong_from_right(reference: Llama, wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reference with one mistake exceeds it by far."""
    tokens = random_tokens(45)
    right = reference.next_logits(tokens)
    if wrong == "position":
        monkeypatch.setitem(reference.config, "rope_theta", 10010.0)
    elif wrong == "norm":
        monkeypatch.setitem(reference.config, "rms_norm_eps", 1e-3)
    elif wrong == "head":
        name = "model.layers.1.self_attn.k_proj.weight"
        monkeypatch.setitem(reference.weights, name, np.roll(reference.weights[name], 16, axis=0))
    else:  # The oldest token is not seen.
        right = reference.next_logits([3, *tokens])
        tokens = [4, *tokens]
    assert np.abs(reference.next_logits(tokens) - right).max() > 10 * TOLERANCE
