"""The comparison on CPUs reads what llama.cpp prints, and its model of zeros is the one that ours has."""

from __future__ import annotations

import json
import math
import stat
from pathlib import Path

import convert
import gguf
import pytest

import cpu

SMALL = convert.shape(2, 64, 96, 4, 2, 160)


def test_the_model_of_zeros_has_all_weights(tmp_path: Path) -> None:
    path = tmp_path / "zeros.gguf"
    cpu.write_gguf(path, SMALL)
    found = {each.name: tuple(reversed([int(size) for size in each.shape])) for each in gguf.GGUFReader(path).tensors}
    assert found == cpu.gguf_names(SMALL)
    numbers = [sum(map(math.prod, each.values())) for each in (found, convert.tensors(SMALL))]
    assert numbers[0] == numbers[1]


def program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\nexec /bin/cat <<'END'\n{text}\nEND\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_figures_of_llama_cpp(tmp_path: Path) -> None:
    tests = [
        {"n_prompt": cpu.PROMPT, "n_gen": 0, "avg_ts": 600.0},
        {"n_prompt": cpu.CHAT, "n_gen": 0, "avg_ts": 400.0},
        {"n_prompt": 0, "n_gen": cpu.ANSWER, "avg_ts": 100.0},
    ]
    program(tmp_path / "llama-bench", json.dumps(tests))
    program(tmp_path / "llama-batched-bench", 'main: n_kv_max = 1\n\n{"pl": 4, "speed_tg": 210.5}\n')
    assert cpu.llama_figures(tmp_path, tmp_path / "model.gguf", 2) == {
        "first": 0.1,
        "prefill": 600.0,
        "decode 1": 100.0,
        "decode 4": 210.5,
    }


def test_rows_compare_medians_and_pairs() -> None:
    figures = {"first": 0.1, "prefill": 100.0, "decode 1": 10.0, "decode 4": 20.0}
    faster = {name: 3 * value for name, value in figures.items()}
    runs = [{"ours": faster, "llama": figures, "upstream": figures}, {"ours": figures, "llama": figures}]
    found = cpu.rows("M", runs)
    assert found[0] == ["M: first token of a short chat", "200 ms", "100 ms", "100 ms", "2.00 (1.00–3.00)"]
    assert found[2] == ["M: decode, batch 1", "20.0/s", "10.0/s", "10.0/s", "2.00 (1.00–3.00)"]


@pytest.mark.parametrize(("name", "version"), [("libggml.so.0.25.3", "0.25.3"), ("libggml.so", "of unknown version")])
def test_version_is_that_of_the_libraries(tmp_path: Path, name: str, version: str) -> None:
    (tmp_path / name).touch()
    assert cpu.ggml_version(tmp_path) == version
