"""Measures a model on this machine's CPU once and prints one line of JSON; bench/cpu.py starts it.

    cpu_process.py measure --model FOLDER --library LIBRARY.so --repetitions 3
    cpu_process.py compile --upstream FOLDER/mlc-chat-config.json --output LIBRARY.so ...

With --upstream, TVM's own kernels are compiled, or run on any TVM: in this process, and no other, the modules that
prevent it are replaced by empty ones before mlc_llm is imported.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
import types
from pathlib import Path
from typing import Any

import engine_process

CHAT = "What is the capital of France?"
SENTENCE = "The quick brown fox jumps over the lazy dog. "
"""Ten tokens of SmolLM2's."""

WITHOUT_END: dict[str, Any] = {"extra_body": {"debug_config": {"ignore_eos": True}}}


def use_upstream_kernels() -> None:
    """Makes mlc_llm compile TVM's own kernels for CPUs in this process."""
    for name in ("cpu_kernels", "cpu_rotation"):
        stand_in = types.ModuleType(f"mlc_llm._mlc_bazel.{name}")
        stand_in.install = lambda: None  # type: ignore[attr-defined]
        sys.modules[stand_in.__name__] = stand_in


def compile_model(arguments: list[str]) -> None:
    from mlc_llm.__main__ import main

    sys.argv = ["mlc_llm", "compile", *arguments]
    main()


def measure(model: Path, library: Path, sentences: int, answer: int, repetitions: int) -> dict[str, Any]:
    """Rates in tokens per second, seconds to the first token of a short chat, bytes of memory, and a text."""
    from mlc_llm.serve import EngineConfig

    import tvm
    from mlc_llm import MLCEngine

    # A device, not its name: see engine_process.
    config = EngineConfig(prefix_cache_mode="disable", max_num_sequence=4, max_total_sequence_length=4096)
    engine = MLCEngine(str(model), tvm.cpu(), model_lib=str(library), engine_config=config)

    def ask(prompt: str, tokens: int, choices: int = 1) -> dict[str, float]:
        before = engine.metrics().metrics
        engine.chat.completions.create(
            messages=[{"role": "user", "content": prompt}],
            temperature=0,
            max_tokens=tokens,
            n=choices,
            **WITHOUT_END,
        )
        return engine_process.rates(before, engine.metrics().metrics)

    def first_token() -> tuple[float, str]:
        began, first, text = time.perf_counter(), 0.0, ""
        for part in engine.chat.completions.create(
            messages=[{"role": "user", "content": CHAT}], temperature=0, max_tokens=16, stream=True
        ):
            for choice in part.choices:
                first = first or time.perf_counter() - began
                text += choice.delta.content or ""
        return first, text

    found: dict[str, Any] = {"prefill": [], "decode 1": [], "decode 4": [], "first": []}
    try:
        found["text"] = first_token()[1]  # Allocates memory, and does not count.
        for _ in range(repetitions):
            found["first"].append(first_token()[0])
            found["prefill"].append(ask(SENTENCE * sentences, 2)["prefill"])
            for choices in (1, 4):
                found[f"decode {choices}"].append(ask(CHAT, answer, choices)["decode"])
    finally:
        # The engine's threads would keep the process alive.
        engine.terminate()
    found["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(required=True, dest="step")
    compiling = steps.add_parser("compile", help="compile a model; accepts the options of mlc_llm compile")
    measuring = steps.add_parser("measure", help="measure a compiled model")
    for step in (compiling, measuring):
        step.add_argument("--upstream", action="store_true", help="TVM's own kernels; any TVM")
    measuring.add_argument("--model", type=Path, required=True, help="folder with weights and tokenizer")
    measuring.add_argument("--library", type=Path, required=True, help="the compiled model")
    measuring.add_argument("--sentences", type=int, default=50, help="of the long prompt, ten tokens each")
    measuring.add_argument("--answer", type=int, default=128, help="tokens of an answer")
    measuring.add_argument("--repetitions", type=int, default=3, help="of everything")
    options, rest = parser.parse_known_args()
    if options.upstream:
        engine_process.allow_any_tvm()
        use_upstream_kernels()
    if options.step == "compile":
        compile_model(rest)
    else:
        found = measure(options.model, options.library, options.sentences, options.answer, options.repetitions)
        print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
