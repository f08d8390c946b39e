"""Measures mlc-llm's engine once, on the TVM in PYTHONPATH, and prints one line of JSON; bench/engine.py starts it.

    engine_process.py --model FOLDER --library LIBRARY.so --repetitions 20

mlc-llm refuses any TVM but its own (src/mlc_llm/pairing.py), without exception. To measure it on the official TVM, this
process, and no other, replaces that check by an empty module before it imports mlc_llm.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import types
from pathlib import Path
from typing import Any

# Prompt and answer must fit into the models' context of 512 tokens, as the tiny tokenizer counts.
PROMPT = "the quick brown fox jumps over a lazy dog " * 7
ANSWER_TOKENS = 100

BATCHES = (1, 4)


def rates(before: dict[str, Any], after: dict[str, Any]) -> dict[str, float]:
    """Tokens per second between two readings of the engine's counters (cpp/serve/metrics.cc), which exclude Python's
    time.
    """

    def passed(name: str) -> float:
        return after[name] - before[name]

    return {what: passed(f"{what}_tokens_sum") / passed(f"engine_{what}_time_sum") for what in ("prefill", "decode")}


def allow_any_tvm() -> None:
    """Disables mlc-llm's check of TVM in this process."""
    stand_in = types.ModuleType("mlc_llm._mlc_bazel.pairing")
    stand_in.check = stand_in.install = lambda: None  # type: ignore[attr-defined]
    sys.modules[stand_in.__name__] = stand_in


def measure(model: Path, library: Path, repetitions: int) -> dict[str, Any]:
    """Seconds until the engine is ready, rates by batch and repetition, the texts, and the folder of the TVM used."""
    began = time.perf_counter()
    allow_any_tvm()
    from mlc_llm.serve import EngineConfig

    import tvm
    from mlc_llm import MLCEngine

    # A device, not its name: mlc-llm resolves a name in another process, where the check is active. Cached prefixes
    # would skip prefill.
    config = EngineConfig(prefix_cache_mode="disable", max_total_sequence_length=4096)
    engine = MLCEngine(str(model), tvm.cpu(), model_lib=str(library), engine_config=config)
    found: dict[str, Any] = {
        "start": time.perf_counter() - began,
        "tvm": str(Path(tvm.__file__).parent),
        "texts": {},
        "rates": {},
    }
    try:
        for batch in BATCHES:
            found["rates"][batch] = []
            for number in range(1 + repetitions):
                before = engine.metrics().metrics
                answer = engine.chat.completions.create(
                    messages=[{"role": "user", "content": PROMPT}],
                    temperature=0,
                    max_tokens=ANSWER_TOKENS,
                    # One prompt, so that all answers start at the same time.
                    n=batch,
                    extra_body={"debug_config": {"ignore_eos": True}},
                )
                # The first answer allocates memory and does not count.
                if number:
                    found["rates"][batch].append(rates(before, engine.metrics().metrics))
            found["texts"][batch] = [choice.message.content for choice in answer.choices]
            found["tokens"] = [answer.usage.prompt_tokens, answer.usage.completion_tokens // batch]
    finally:
        # The engine's threads would keep the process alive.
        engine.terminate()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", type=Path, required=True, help="folder of weights, tokenizer and mlc-chat-config.json"
    )
    parser.add_argument("--library", type=Path, required=True, help="the compiled model")
    parser.add_argument("--repetitions", type=int, required=True, help="answers that count, after one that does not")
    options = parser.parse_args()
    print(json.dumps(measure(options.model, options.library, options.repetitions)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
