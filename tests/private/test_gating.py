"""Every test gates publication or states why not, and every test file belongs to a target."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.private.starlark import evaluate

CHOOSE = evaluate(Path(os.environ["GATING_BZL"]))["choose"]


def rule(name: str, *tags: str, kind: str = "py_test", compatible: bool = True) -> dict:
    return {"name": name, "kind": kind, "tags": tags, "srcs": [f":test_{name}.py"], "compatible": compatible}


def test_chooses_the_gating_tests_that_this_build_can_run() -> None:
    rules = [
        rule("b", "gate"),
        rule("a", "gate"),
        rule("cuda", "gate", compatible=False),
        rule("c", "manual"),
        rule("d", kind="filegroup"),
    ]
    assert CHOOSE(rules, ["test_a.py", "test_b.py", "test_c.py", "test_cuda.py"], {}) == (["a", "b"], [])


@pytest.mark.parametrize("ungated", ["It tests a tool.", {"It tests a tool.": ["b"]}], ids=["whole package", "by name"])
def test_a_reason_excuses_a_test(ungated: str | dict) -> None:
    assert CHOOSE([rule("a", "gate"), rule("b")], ["test_a.py", "test_b.py"], ungated) == (["a"], [])


@pytest.mark.parametrize(
    ("files", "ungated", "error"),
    [
        (["test_a.py"], {}, "b neither gates publication (gate = True) nor has a reason"),
        (["test_a.py"], {"reason": ["c"]}, "`ungated` names c, which is not a test without `gate`"),
        (["test_a.py"], {"reason": ["a", "b"]}, "`ungated` names a, which is not a test without `gate`"),
        (["test_a.py"], {"": ["b"]}, "`ungated` gives no reason for b"),
        (["test_a.py"], "", "`ungated` gives no reason"),
        (["test_new.py"], {"reason": ["b"]}, "no test has test_new.py in its srcs, so it never runs"),
    ],
    ids=["forgotten", "unknown", "gating", "empty reason", "empty text", "file without test"],
)
def test_an_undecided_test_is_an_error(files: list[str], ungated: str | dict, error: str) -> None:
    _, errors = CHOOSE([rule("a", "gate"), rule("b")], files, ungated)
    assert any(error in each for each in errors), errors


def test_a_reason_is_stale_if_all_tests_gate() -> None:
    assert CHOOSE([rule("a", "gate")], ["test_a.py"], "reason")[1] == ["`ungated` gives no reason, or no test needs it"]
