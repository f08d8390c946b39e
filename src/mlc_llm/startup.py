"""Describes the engine in one line when the server starts, instead of upstream's eight about modes not chosen."""

from __future__ import annotations

import functools
import sys
import types
from typing import Any

from mlc_llm.interface import serve as interface
from mlc_llm.serve import config, engine


def summary(chosen: config.EngineConfig) -> str:
    """What a user may want to change: the model, its library, and the limits of mode and --overrides."""
    return (
        f"serving {chosen.model} with {chosen.model_lib} in mode {chosen.mode}: {chosen.max_num_sequence} requests at a"
        f" time, {chosen.max_single_sequence_length} tokens each, {chosen.max_total_sequence_length} in the KV cache,"
        f" prefill in chunks of {chosen.prefill_chunk_size}"
    )


def install() -> None:
    """Changes the engine that `mlc_llm serve` and `mlc_llm.interface.serve.serve` start."""

    def start(*arguments: Any, **options: Any) -> engine.AsyncMLCEngine:
        started = engine.AsyncMLCEngine(*arguments, **options)
        print(f"mlc_llm serve: {summary(started.engine_config)}", file=sys.stderr, flush=True)
        return started

    interface.engine = types.SimpleNamespace(
        AsyncMLCEngine=start, EngineConfig=functools.partial(engine.EngineConfig, verbose=False)
    )
