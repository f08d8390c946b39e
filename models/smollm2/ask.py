"""Answers a question with SmolLM2-135M-Instruct, on this machine's CPU.

tools/bazel run //models/smollm2:ask -- "What is the capital of France?"
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

_EXAMPLE = 'tools/bazel run //models/smollm2:ask -- "What is the capital of France?"'


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="ask", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("question", nargs="*", help="quoted, or as several words")
    parser.add_argument("--max-tokens", type=int, default=256, help="the longest answer (default: %(default)s)")
    # The BUILD file gives these.
    parser.add_argument("--engine", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--environment", type=Path, action="append", default=[], help=argparse.SUPPRESS)
    for name in ("--library", "--model"):
        parser.add_argument(name, type=Path, required=True, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.question = " ".join(options.question).strip()
    if not options.question:
        parser.error(f"expected a question, found none: {_EXAMPLE}")
    try:
        options.question.encode()
    except UnicodeEncodeError:
        parser.error(f"expected a question in UTF-8, found {ascii(options.question)[:60]}")
    if options.max_tokens < 1:
        parser.error(f"--max-tokens: expected at least 1, found {options.max_tokens}")
    return options


def ask_engine(library: Path, model: Path, question: str, count: int) -> None:
    """Writes the answer of mlc-llm's engine while it is made."""
    from mlc_llm.serve.config import EngineConfig

    from mlc_llm import MLCEngine

    config = EngineConfig(verbose=False)
    engine = MLCEngine(str(model), device="cpu", model_lib=str(library), mode="interactive", engine_config=config)
    try:
        for part in engine.chat.completions.create(
            messages=[{"role": "user", "content": question}], max_tokens=count, stream=True, temperature=0.0
        ):
            for choice in part.choices:
                print(choice.delta.content or "", end="", flush=True)
        print(flush=True)
    finally:
        engine.terminate()


def answer(options: argparse.Namespace) -> None:
    """Writes the answer.

    Raises:
        ValueError: the question is too long, or library and model do not fit together.
    """
    if options.engine:
        print(f"ask: mlc-llm's engine with {options.model.name}", file=sys.stderr)
        ask_engine(options.library, options.model, options.question, options.max_tokens)
        return
    print(
        "ask: the example //models/llama in float32, because this build has no sources of mlc-llm"
        " (docs/operators/sources.md)",
        file=sys.stderr,
    )
    from models.llama import generate

    generate.answer(options.library, options.model, options.question, options.max_tokens)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    folders = [str(folder.absolute()) for folder in options.environment]
    sys.path[:0] = folders
    # The engine starts other Pythons.
    os.environ["PYTHONPATH"] = os.pathsep.join(folders)
    try:
        answer(options)
    except ValueError as error:  # mlc-llm's BadRequestError is one.
        print(f"ask: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader, such as head, has enough. Python flushes stdout once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


if __name__ == "__main__":
    sys.exit(main())
