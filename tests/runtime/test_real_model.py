"""SmolLM2-135M-Instruct, built from TVM's own operators (//models/llama), gives the reference's logits and answer.

Images do not have this file, because they have no weights.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy_llama import Llama

from models.llama import generate
from models.llama.generate import Chat, Model
from models.smollm2 import ask

CHECKPOINT = Path(os.environ["MLC_SMOLLM2_CHECKPOINT"])
LIBRARY = Path(os.environ["MLC_SMOLLM2_LIBRARY"])

QUESTION = "What is the capital of France?"

# From RFC 1149, without names.
TEXT = """Avian carriers can provide high delay, low throughput, and low altitude service. The connection topology is
limited to a single point-to-point path for each carrier, used with standard carriers, but many carriers can be used
without significant interference with each other, outside of early spring. This is because of the 3D ether space
available to the carriers, in contrast to the 1D ether used by IEEE 802.3. The carriers have an intrinsic collision
avoidance system, which increases availability. Unlike some network technologies, such as packet radio, communication
is not limited to line-of-sight distance. Connection oriented service is available in some cities, usually based upon a
central hub topology. The datagram is printed, on a small scroll of paper, in hexadecimal, with each octet separated by
whitestuff and blackstuff. The scroll of paper is wrapped around one leg of the avian carrier. A band of duct tape is
used to secure the datagram's edges. The bandwidth is limited to the leg length."""

# Logits are as large as 41, and 30 layers propagate the rounding of float32: the largest difference seen is 1.5e-4 on
# English text and 4.0e-4 on random tokens. Each of the mistakes below makes more than ten times the tolerance.
TOLERANCE = 5e-4


def run(*arguments: str) -> int:
    """Runs `//models/smollm2:ask` as a build without mlc-llm's sources does.

    Its tests come first, before the fixture that also holds the weights.
    """
    return ask.main([f"--library={LIBRARY}", f"--model={CHECKPOINT}", *arguments])


def test_ask(capfd: pytest.CaptureFixture[str]) -> None:
    assert run("--max-tokens", "20", *QUESTION.split()) == 0
    output, errors = capfd.readouterr()
    assert output == "The capital of France is Paris.\n"
    assert errors.startswith("ask: the example //models/llama in float32, because this build has no sources of mlc-llm")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected a question, found none: tools/bazel run //models/smollm2:ask -- "),
        (["  "], "expected a question, found none: "),
        (["\udcff?"], r"expected a question in UTF-8, found '\udcff?'"),
        (["--max-tokens=0", "Why?"], "--max-tokens: expected at least 1, found 0"),
    ],
)
def test_ask_refuses(arguments: list[str], message: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(*arguments)
    assert stopped.value.code == 2
    assert f"ask: error: {message}" in capfd.readouterr().err


def test_ask_refuses_a_long_question(capfd: pytest.CaptureFixture[str]) -> None:
    assert run("why " * 2048) == 1
    assert "ask: expected a question of less than 2048 tokens, found 2" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("program", "model"), [(ask.__file__, "--model"), (generate.__file__, "--checkpoint")], ids=["ask", "generate"]
)
@pytest.mark.parametrize("ending", [signal.SIGPIPE, signal.SIGINT], ids=lambda ending: ending.name)
def test_a_program_ends_quietly(ending: signal.Signals, program: str, model: str) -> None:
    """As in `ask ... | head -c1`, and with Ctrl-C."""
    command = [sys.executable, program, f"--library={LIBRARY}", f"{model}={CHECKPOINT}", "--max-tokens=1000"]
    process = subprocess.Popen(
        [*command, "Tell me a long story."],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A test in the background of a shell inherits that the signal is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout and process.stderr
    assert process.stdout.read(1)
    if ending == signal.SIGPIPE:
        process.stdout.close()
    else:
        process.send_signal(ending)
    errors = process.stderr.read().decode()
    assert (process.wait(), [line for line in errors.splitlines() if not line.startswith("ask: the example")]) == (
        128 + ending,
        [],
    )


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(LIBRARY, CHECKPOINT, tokens=512, tokens_per_step=256)


@pytest.fixture(scope="module")
def chat() -> Chat:
    return Chat(CHECKPOINT)


@pytest.fixture(scope="module")
def reference() -> Llama:
    return Llama(CHECKPOINT)


@pytest.fixture(scope="module")
def prompt(chat: Chat) -> list[int]:
    """200 tokens."""
    tokens = chat.tokens(TEXT)
    assert len(tokens) >= 200
    return tokens[:200]


@pytest.fixture(scope="module")
def expected(reference: Llama, prompt: list[int]) -> np.ndarray:
    return reference.logits(prompt)


def check(actual: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE)
    assert actual.argmax(axis=-1).tolist() == expected.argmax(axis=-1).tolist()


def test_logits_of_a_prompt(model: Model, prompt: list[int], expected: np.ndarray) -> None:
    model.reset()
    check(model.forward(prompt, every=True), expected)


def test_logits_of_pieces_and_single_tokens(model: Model, prompt: list[int], expected: np.ndarray) -> None:
    """Later tokens attend to the pages of earlier ones, with other kernels than those of a whole prompt."""
    model.reset()
    start = 0
    for size in (1, 14, 1, 17, 47, 64):  # Around the ends of pages, which have 16 tokens.
        check(model.forward(prompt[start : start + size])[0], expected[start + size - 1])
        start += size
    for position in range(start, start + 20):
        check(model.forward([prompt[position]])[0], expected[position])


def test_a_prompt_longer_than_a_step(
    model: Model, prompt: list[int], expected: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "tokens_per_step", 24)
    model.reset()
    check(model.forward(prompt[:60], every=True), expected[:60])
    check(model.forward(prompt[60:100]), expected[99:100])


def test_the_prompt_of_a_question(chat: Chat) -> None:
    system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    assert chat.text(QUESTION) == (
        f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
    )
    tokens = chat.tokens(QUESTION)
    assert (tokens[0], tokens.count(1), tokens.count(2), chat.ends) == (1, 3, 2, [2])


def test_the_best_answer(model: Model, chat: Chat, reference: Llama) -> None:
    """Each token is the reference's best one, given those before it."""
    question = chat.tokens(QUESTION)
    answer = list(model.generate(question, chat.ends, count=20))
    assert "".join(chat.stream(iter(answer))) == "The capital of France is Paris."
    best = reference.logits([*question, *answer])[len(question) - 1 :].argmax(axis=-1).tolist()
    assert best == [*answer, *chat.ends]


def test_the_length_of_an_answer(model: Model, chat: Chat) -> None:
    question = chat.tokens(QUESTION)
    assert len(list(model.generate(question, chat.ends, count=3))) == 3
    assert len(list(model.generate(question, [], count=10))) == 10


def permuted(weight: np.ndarray) -> np.ndarray:
    """A matrix of queries or keys with the rotary halves interleaved, as in GGUF."""
    size = 64
    return weight.reshape(-1, 2, size // 2, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


MISTAKES: dict[str, Callable[[Llama, pytest.MonkeyPatch], None]] = {
    "positions": lambda llama, patch: patch.setitem(llama.config, "rope_theta", 101000.0),
    "norm": lambda llama, patch: patch.setitem(llama.config, "rms_norm_eps", 1e-4),
    "permutation": lambda llama, patch: patch.setitem(
        llama.weights,
        name := "model.layers.7.self_attn.k_proj.weight",
        permuted(llama.weights[name]),
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_tolerance_tells_wrong_from_right(
    mistake: str, reference: Llama, prompt: list[int], expected: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    MISTAKES[mistake](reference, monkeypatch)
    assert np.abs(reference.logits(prompt[:24]) - expected[:24]).max() > 10 * TOLERANCE
