"""The server says in one line what its engine is set to."""

from __future__ import annotations

import pytest
import tiny_model_files
from mlc_llm.interface import serve as interface


def test_the_engine_is_described_in_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    started = interface.engine.AsyncMLCEngine(
        model=str(tiny_model_files.WEIGHTS),
        model_lib=str(tiny_model_files.LIBRARY),
        device="cpu",
        mode="interactive",
        engine_config=interface.engine.EngineConfig(max_total_sequence_length=64, prefill_chunk_size=16),
    )
    started.terminate()
    written = capfd.readouterr()
    lines = [line for line in (written.out + written.err).splitlines() if "mode" in line or "KV cache" in line]
    assert lines == [
        f"mlc_llm serve: serving {tiny_model_files.WEIGHTS} with {tiny_model_files.LIBRARY} in mode interactive:"
        f" 1 requests at a time, {started.engine_config.max_single_sequence_length} tokens each, 64 in the KV cache,"
        " prefill in chunks of 16"
    ]
