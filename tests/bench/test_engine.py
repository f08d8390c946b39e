"""Two engines are compared only if they ran on two TVMs and said the same; rates are of the engine's own counters."""

from __future__ import annotations

import copy
import re
import sys
from pathlib import Path

import engine
import engine_process
import pytest

FOUND = {
    "start": 2.0,
    "tvm": "/a/tvm",
    "tokens": [390, 99],
    "texts": {"1": ["x"], "4": ["x", "x", "x", "y"]},
    "rates": {
        "1": [
            {"prefill": 100.0, "decode": 10.0},
            {"prefill": 300.0, "decode": 30.0},
            {"prefill": 200.0, "decode": 90.0},
        ],
        "4": [{"prefill": 1.0, "decode": 40.0}],
    },
}


def _both(**changes: object) -> dict[str, dict]:
    return {"ours": FOUND, "official": {**copy.deepcopy(FOUND), "tvm": "/b/tvm", **changes}}


def test_rates_are_of_what_passed_between_two_readings() -> None:
    before = {
        "prefill_tokens_sum": 400,
        "engine_prefill_time_sum": 1.0,
        "decode_tokens_sum": 100,
        "engine_decode_time_sum": 2.0,
    }
    after = {
        "prefill_tokens_sum": 790,
        "engine_prefill_time_sum": 1.5,
        "decode_tokens_sum": 199,
        "engine_decode_time_sum": 2.5,
    }
    assert engine_process.rates(before, after) == {"prefill": 780.0, "decode": 198.0}


def test_check_of_tvm_is_stood_in_for_within_the_process_only(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "mlc_llm._mlc_bazel.pairing"
    monkeypatch.setitem(sys.modules, name, None)  # restores what was there
    engine_process.allow_any_tvm()
    sys.modules[name].check()


def test_figures_are_medians_and_prefill_is_counted_once() -> None:
    assert engine.figures(FOUND) == {
        "start": 2.0,
        "prefill, batch 1": 200.0,
        "decode, batch 1": 30.0,
        "decode, batch 4": 40.0,
    }


def test_same_texts_on_two_tvms_are_compared() -> None:
    engine.check(_both())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tvm": "/a/tvm"}, "expected two TVMs, found /a/tvm on both sides"),
        ({"tokens": [390, 98]}, r"found \[390, 99\] and \[390, 98\]"),
        ({"texts": {"1": ["x"], "4": ["x", "x", "x", "z"]}}, "expected the same text on both sides"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(changes: dict[str, object], message: str) -> None:
    with pytest.raises(SystemExit, match=message) as error:
        engine.check(_both(**changes))
    assert "\n" not in str(error.value)


def test_rows_have_ratios_with_their_spread() -> None:
    official = {"start": 2.0, "decode, batch 1": 200.0}
    ours = [(1.0, 100.0), (2.0, 200.0), (2.4, 150.0)]
    runs = [{"ours": {"start": start, "decode, batch 1": rate}, "official": official} for start, rate in ours]
    assert engine.rows(runs) == [
        ["start", "2.0 s", "2.0 s", "1.00 (0.50–1.20)", "3"],
        ["decode, batch 1", "150/s", "200/s", "0.75 (0.50–1.00)", "3"],
    ]


def test_the_empty_check_of_tvm_has_all_that_mlc_llm_asks_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlc_llm._mlc_bazel.pairing", None)
    engine_process.allow_any_tvm()
    asked = {
        name
        for source in Path("src/mlc_llm").glob("*.py")
        for name in re.findall(r"\bpairing\.(\w+)\(", source.read_text(encoding="utf-8"))
    }
    assert "check" in asked
    assert {name for name in asked if not hasattr(sys.modules["mlc_llm._mlc_bazel.pairing"], name)} == set()
