"""mlc-llm's engine with SmolLM2: the same tokens and prompts as Hugging Face's libraries, the reference's best text."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import tokenizers
from mlc_llm.tokenizers import Tokenizer
from numpy_llama import Llama, bfloat16
from smollm2_model import ANSWER, CHECKPOINT, LLAMA_CPP_TOKENS, QUESTION, TEXT, place
from transformers import AutoTokenizer

from mlc_llm import MLCEngine
from models.smollm2 import ask

PROMPTS = [
    "The capital of France is",
    "Once upon a time",
    "def fibonacci(n):\n",
    "1, 2, 3, 4,",
    "Water boils at",
    "The largest planet is",
    "Dear Sir or Madam,",
    "import numpy as",
    "To be or not to be",
    "In 1969,",
]

LENGTH = 12

END = 2
"""<|im_end|>, which ends an answer."""


@pytest.fixture(scope="module")
def engine() -> Iterator[MLCEngine]:
    engine = MLCEngine(str(place("MLC_SMOLLM2_WEIGHTS")), model_lib=str(place("MLC_SMOLLM2_LIBRARY")), device="cpu")
    yield engine
    engine.terminate()


@pytest.fixture(scope="module")
def reference() -> Llama:
    return Llama(CHECKPOINT, bfloat16)


@pytest.mark.parametrize("text", [*LLAMA_CPP_TOKENS, TEXT], ids=lambda text: ascii(text)[:20])
def test_tokenizer(text: str) -> None:
    """The engine's own, which is C++ and another version of the library, of the converted model's files."""
    own = Tokenizer(str(place("MLC_SMOLLM2_WEIGHTS")))
    tokens = tokenizers.Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json")).encode(text).ids
    assert own.encode(text) == tokens
    assert own.decode(tokens) == text


CONVERSATIONS = {
    "question": [("user", QUESTION)],
    "system message": [("system", "You are a pirate."), ("user", "Hi")],
    "turns": [("user", "Hi"), ("assistant", "Hello!\n"), ("user", "  What is 2 + 2?  ")],
    "symbols": [("user", "<|im_end|>\n<|im_start|>system\nné 🙂")],
}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_prompt(engine: MLCEngine, name: str) -> None:
    """Token by token what transformers makes of the chat template in the GGUF file."""
    messages = [{"role": role, "content": text} for role, text in CONVERSATIONS[name]]
    expected = AutoTokenizer.from_pretrained(CHECKPOINT).apply_chat_template(
        messages, add_generation_prompt=True, return_dict=False
    )
    conversation = engine.conv_template.model_copy(deep=True)
    for message in messages:
        if message["role"] == "system":
            conversation.system_message = message["content"]
        else:
            conversation.messages.append((message["role"], message["content"]))
    conversation.messages.append(("assistant", None))
    (prompt,) = conversation.as_prompt()
    assert engine.tokenizer.encode(prompt) == expected


@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda prompt: prompt[:12].strip())
def test_greedy_text(engine: MLCEngine, reference: Llama, prompt: str) -> None:
    answer = engine.completions.create(prompt=prompt, temperature=0.0, max_tokens=LENGTH)
    tokens = engine.tokenizer.encode(prompt)
    # The engine does not tell the tokens; of these texts there is only one way to write them.
    found = engine.tokenizer.encode(prompt + answer.choices[0].text)[len(tokens) :]
    # Each token follows from the ones before it, so that one pass compares them all.
    best = reference.logits([*tokens, *found]).argmax(axis=-1)[len(tokens) - 1 :].tolist()
    assert found == best[:-1]
    assert len(found) == LENGTH or (best[-1] == END and answer.choices[0].finish_reason == "stop")


def test_answer(engine: MLCEngine) -> None:
    answer = engine.chat.completions.create(
        messages=[{"role": "user", "content": QUESTION}], temperature=0.0, max_tokens=20
    )
    assert answer.choices[0].message.content == ANSWER
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.prompt_tokens == 37


def test_ask_refuses_a_long_question_in_one_line() -> None:
    command = [sys.executable, ask.__file__, "--engine", f"--library={place('MLC_SMOLLM2_LIBRARY')}"]
    command += [f"--environment={folder}" for folder in sys.path if folder]
    done = subprocess.run(
        [*command, f"--model={place('MLC_SMOLLM2_WEIGHTS')}", "why " * 9000],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    said = [line for line in done.stderr.splitlines() if line.startswith("ask: ") or "Traceback" in line]
    assert (done.returncode, done.stdout, len(said)) == (1, "", 2), done.stderr
    assert said[1].startswith("ask: Request prompt has 90") and "larger than the model input length limit" in said[1]
