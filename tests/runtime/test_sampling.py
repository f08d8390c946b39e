"""The runtime samples tokens and changes logits as the last step of a language model requires."""

from typing import Any

import numpy as np
import pytest

import tvm

PROBABILITIES = np.array([[0.125, 0.0625, 0.5, 0.3125]], "float32")
GRID = (np.arange(1000) + 0.5) / 1000


def call(name: str, *arguments: object) -> Any:
    converted = [tvm.runtime.tensor(value) if isinstance(value, np.ndarray) else value for value in arguments]
    return tvm.get_global_func(f"vm.builtin.{name}")(*converted)


def frequencies(tokens: list[int]) -> np.ndarray:
    return np.bincount(tokens, minlength=4) / len(tokens)


def test_top_p_of_one_samples_the_distribution() -> None:
    tokens = [call("sample_top_p_from_prob", PROBABILITIES, 1.0, value) for value in GRID]
    np.testing.assert_allclose(frequencies(tokens), PROBABILITIES[0], atol=0.002)
    logits = np.log(PROBABILITIES) + 3
    tokens = [call("sample_top_p_from_logits", logits, 1.0, 1.0, value) for value in GRID]
    np.testing.assert_allclose(frequencies(tokens), PROBABILITIES[0], atol=0.002)


@pytest.mark.parametrize(("top_p", "allowed"), [(0.3, {2}), (0.7, {2, 3}), (0.9, {0, 2, 3})])
def test_top_p_drops_the_tail(top_p: float, allowed: set[int]) -> None:
    assert {call("sample_top_p_from_prob", PROBABILITIES, top_p, value) for value in GRID} == allowed


def test_temperature_zero_gives_the_most_likely_token() -> None:
    logits = np.log(PROBABILITIES)
    assert {call("sample_top_p_from_logits", logits, 0.0, 1.0, value) for value in GRID[::50]} == {2}


def test_multinomial_follows_the_cumulative_distribution() -> None:
    batch = np.repeat(PROBABILITIES, 8, axis=0)
    uniform = np.array([[0.01], [0.1249], [0.126], [0.18], [0.19], [0.68], [0.69], [0.999]], "float32")
    tokens = call("multinomial_from_uniform", batch, uniform).numpy().ravel()
    expected = [np.searchsorted(np.cumsum(PROBABILITIES[0]), value, side="right") for value in uniform.ravel()]
    assert tokens.tolist() == expected


def test_softmax_with_temperature_in_place() -> None:
    logits = tvm.runtime.tensor(np.array([[1.0, -2.0, 3.0]], "float32"))
    call("apply_softmax_with_temperature", logits, 2.0)
    expected = np.exp(np.array([0.5, -1, 1.5]))
    np.testing.assert_allclose(logits.numpy()[0], expected / expected.sum(), rtol=1e-6)


def test_penalties_in_place() -> None:
    logits = tvm.runtime.tensor(np.array([[1.0, 2.0, -3.0, 4.0]], "float32"))
    call("apply_repetition_penalty", logits, np.array([1, 2], "int32"), 2.0)
    assert logits.numpy().tolist() == [[1, 1, -6, 4]]
    call(
        "apply_presence_and_frequency_penalty", logits, np.array([0, 3], "int32"), np.array([3, 1], "int32"), 0.5, 0.25
    )
    assert logits.numpy().tolist() == [[1 - 0.5 - 3 * 0.25, 1, -6, 4 - 0.5 - 0.25]]
