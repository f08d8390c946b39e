"""Answers a question with a compiled Llama. It needs TVM's runtime, safetensors, tokenizers and jinja2.

python generate.py --library llama.so --checkpoint FOLDER "What is the capital of France?"
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jinja2.sandbox
import ml_dtypes  # noqa: F401 - NumPy then knows bfloat16
import numpy as np
import safetensors
import tokenizers
from tvm.runtime import ShapeTuple, Tensor, load_module

import tvm
from tvm import relax

PAGE_SIZE = 16  # The page size of TVM's kernels.


class Model:
    """The compiled module of llama.py, with the weights of a checkpoint and a cache for one sequence.

    Args:
        library: the compiled module.
        checkpoint: folder in the layout of Hugging Face's hub.
        tokens: the longest prompt and answer together; None for the model's own limit, at most 2048.
        tokens_per_step: longer prompts are run in pieces of this size.

    Raises:
        ValueError: library and weights do not fit together.
    """

    def __init__(self, library: Path, checkpoint: Path, tokens: int | None = None, tokens_per_step: int = 512) -> None:
        self._functions = relax.VirtualMachine(load_module(str(library)), tvm.cpu())
        metadata: dict[str, Any] = json.loads(self._functions["metadata"]())
        self.tokens = tokens or min(metadata["context"], 2048)
        self.tokens_per_step = min(tokens_per_step, self.tokens)
        self._parameters = load_weights(checkpoint, metadata["parameters"])
        sizes = [1, self.tokens, self.tokens_per_step, PAGE_SIZE, 0]
        self._cache = self._functions["create_cache"](*(ShapeTuple([size]) for size in sizes))
        self.reset()

    def reset(self) -> None:
        """Forgets all tokens."""
        self._state("clear")
        self._state("add_sequence", 0)

    def _state(self, action: str, *arguments: object) -> None:
        tvm.get_global_func(f"vm.builtin.kv_state_{action}")(self._cache, *arguments)

    def forward(self, tokens: Sequence[int], every: bool = False) -> np.ndarray:
        """Appends tokens to the sequence and returns the scores of what follows the last one: (1, vocabulary).

        Args:
            tokens: at least one.
            every: return the scores of what follows each token: (tokens, vocabulary).
        """
        rows = []
        for start in range(0, len(tokens), self.tokens_per_step):
            piece = np.asarray(tokens[start : start + self.tokens_per_step], "int32")
            positions = np.arange(0 if every else len(piece) - 1, len(piece), dtype="int32")
            self._state("begin_forward", ShapeTuple([0]), ShapeTuple([len(piece)]))
            scores = self._functions["forward"](
                tvm.runtime.tensor(piece), tvm.runtime.tensor(positions), self._cache, self._parameters
            )
            self._state("end_forward")
            rows.append(scores.numpy())
        return np.concatenate(rows) if every else rows[-1]

    def generate(self, prompt: Sequence[int], ends: Sequence[int], count: int) -> Iterator[int]:
        """Yields the best next token, `count` times or until one of `ends` or the cache is full."""
        self.reset()
        new = list(prompt)
        for _ in range(min(count, self.tokens - len(prompt))):
            token = int(self.forward(new)[-1].argmax())
            if token in ends:
                return
            yield token
            new = [token]


def load_weights(checkpoint: Path, parameters: Sequence[tuple[str, list[int]]]) -> list[Tensor]:
    """Returns the parameters of a library in its order, matrices packed as `Linear` in llama.py says.

    Raises:
        ValueError: the checkpoint has no such tensor, or one of another shape.
    """
    files: dict[str, Any] = {}
    for path in sorted(checkpoint.glob("*.safetensors")):
        file = safetensors.safe_open(path, framework="numpy")
        files |= dict.fromkeys(file.keys(), file)
    loaded = []
    for name, shape in parameters:
        if name not in files:
            raise ValueError(f"{checkpoint}: expected a tensor {name} in *.safetensors, found none")
        value = files[name].get_tensor(name)
        expected = (shape[0] * shape[2], shape[1]) if len(shape) == 3 else tuple(shape)
        if value.shape != expected:
            raise ValueError(f"{checkpoint}: {name}: expected the shape {expected}, found {value.shape}")
        if len(shape) == 3:
            value = value.reshape(shape[0], shape[2], shape[1]).swapaxes(1, 2)
        loaded.append(tvm.runtime.tensor(np.ascontiguousarray(value, "float32")))
    return loaded


class Chat:
    """The tokenizer of a checkpoint, and the text around messages that the model was trained with."""

    def __init__(self, checkpoint: Path) -> None:
        self._tokenizer = tokenizers.Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
        self._configuration = _read(checkpoint / "tokenizer_config.json")
        generation = checkpoint / "generation_config.json"
        ends = _read(generation if generation.is_file() else checkpoint / "config.json")["eos_token_id"]
        self.ends: list[int] = ends if isinstance(ends, list) else [ends]

    def text(self, question: str) -> str:
        """Returns a question as the prompt that the model answers."""
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        template = environment.from_string(self._configuration["chat_template"])
        special = {key: _content(value) for key, value in self._configuration.items() if key.endswith("_token")}
        return template.render(messages=[{"role": "user", "content": question}], add_generation_prompt=True, **special)

    def tokens(self, question: str) -> list[int]:
        """Returns the tokens of `text`."""
        return self._tokenizer.encode(self.text(question), add_special_tokens=False).ids

    def stream(self, tokens: Iterator[int]) -> Iterator[str]:
        """Yields the text of tokens as soon as it is complete: a character may need several."""
        ids: list[int] = []
        shown = 0
        for token in tokens:
            ids.append(token)
            text = self._tokenizer.decode(ids)
            if not text.endswith("\ufffd"):
                yield text[shown:]
                shown = len(text)
        yield self._tokenizer.decode(ids)[shown:]


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _content(token: Any) -> Any:
    """A special token is a string, or an object with one."""
    return token["content"] if isinstance(token, dict) else token


def answer(library: Path, checkpoint: Path, question: str, count: int) -> None:
    """Prints the answer token by token, then its speed on stderr.

    Raises:
        ValueError: the question is too long, or library and checkpoint do not fit together.
    """
    model, chat = Model(library, checkpoint), Chat(checkpoint)
    prompt = chat.tokens(question)
    if len(prompt) >= model.tokens:
        raise ValueError(f"expected a question of less than {model.tokens} tokens, found {len(prompt)}")
    times = [time.monotonic()]

    def timed() -> Iterator[int]:
        for token in model.generate(prompt, chat.ends, count):
            times.append(time.monotonic())
            yield token

    for text in chat.stream(timed()):
        print(text, end="", flush=True)
    print(flush=True)
    if len(times) > 2:
        prefill, decode = len(prompt) / (times[1] - times[0]), (len(times) - 2) / (times[-1] - times[1])
        print(f"prompt {prefill:.0f} tokens/s, answer {decode:.0f} tokens/s", file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", type=Path, required=True, help="the compiled model")
    parser.add_argument("--checkpoint", type=Path, required=True, help="folder with weights and tokenizer")
    parser.add_argument("--max-tokens", type=int, default=256, help="the longest answer (default: %(default)s)")
    parser.add_argument("question")
    options = parser.parse_args()
    try:
        answer(options.library, options.checkpoint, options.question, options.max_tokens)
    except ValueError as error:
        print(f"generate: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
