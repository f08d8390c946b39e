"""Answers a question with a compiled Llama. It needs TVM's runtime, safetensors, tokenizers and jinja2.

python generate.py --library llama.so --checkpoint FOLDER "What is the capital of France?"
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jinja2.ext
import jinja2.nodes
import jinja2.parser
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


class _Generation(jinja2.ext.Extension):
    """{% generation %}, around what the model answers: for training, and without an effect here."""

    tags = {"generation"}

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return time.strftime(form)


def _tojson(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    """Unlike jinja2's own filter, which is for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


class Chat:
    """The tokenizer of a checkpoint, and the text around messages that the model was trained with.

    Args:
        checkpoint: folder in the layout of Hugging Face's hub.

    Raises:
        ValueError: it has no tokenizer, no chat template or no token that ends an answer.
    """

    def __init__(self, checkpoint: Path) -> None:
        self._checkpoint = checkpoint
        file = checkpoint / "tokenizer.json"
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # The library has no class for it.
            raise ValueError(f"{file}: expected a tokenizer, found {error}") from None
        self._configuration = _read(checkpoint / "tokenizer_config.json")
        self._template = self._chat_template()
        ends: Any = None
        for file in (checkpoint / "generation_config.json", checkpoint / "config.json"):
            if ends is None and file.is_file():
                ends = _read(file).get("eos_token_id")
        self.ends: list[int] = ends if isinstance(ends, list) else [ends]
        if not all(type(end) is int for end in self.ends):
            raise ValueError(
                f"{checkpoint}: expected eos_token_id, a token or a list of them, in generation_config.json or"
                f" config.json, found {ends!r}"
            )

    def _chat_template(self) -> str:
        file = self._checkpoint / "chat_template.jinja"
        found = file.read_text(encoding="utf-8") if file.is_file() else self._configuration.get("chat_template")
        if isinstance(found, list):  # Several, of which others are for tools and so on.
            found = {one.get("name"): one.get("template") for one in found if isinstance(one, dict)}.get("default")
        if not isinstance(found, str):
            raise ValueError(
                f"{self._checkpoint}: expected a chat template in chat_template.jinja, or the default one in"
                f" tokenizer_config.json, found {'another value' if found else 'none'}"
            )
        return found

    def text(self, question: str) -> str:
        """Returns a question as the prompt that the model answers, with what transformers offers to templates.

        Raises:
            ValueError: the template refuses it, or is wrong.
        """
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
        )
        environment.filters["tojson"] = _tojson
        environment.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
        special = {key: _content(value) for key, value in self._configuration.items() if key.endswith("_token")}
        try:
            return environment.from_string(self._template).render(
                messages=[{"role": "user", "content": question}],
                tools=None,
                documents=None,
                add_generation_prompt=True,
                **{key: value for key, value in special.items() if isinstance(value, str)},
            )
        except Exception as error:  # A template is a program, which may fail in any way.
            said = " ".join(str(error).split())
            raise ValueError(f"{self._checkpoint}: the chat template fails: {type(error).__name__}: {said}") from None

    def tokens(self, question: str) -> list[int]:
        """Returns the tokens of `text`.

        Raises:
            ValueError: the template refuses the question, or the text is not Unicode.
        """
        text = self.text(question)
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"expected a prompt in UTF-8, found {ascii(text[error.start])} in it") from None
        return self._tokenizer.encode(text, add_special_tokens=False).ids

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
    """Returns a JSON object.

    Raises:
        ValueError: the file has something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (RecursionError, ValueError) as error:
        raise ValueError(f"{path}: expected a JSON object, found {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def _content(token: Any) -> Any:
    """A special token is a string, or an object with one."""
    return token.get("content") if isinstance(token, dict) else token


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
    except BrokenPipeError:
        # The reader, such as head, has enough. Python flushes stdout once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (OSError, ValueError) as error:
        print(f"generate: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


if __name__ == "__main__":
    sys.exit(main())
