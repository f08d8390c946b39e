"""Upstream's modules are changed when they are imported, and not imported for that."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
from mlc_llm._mlc_bazel.after_import import after_import


def test_a_change_is_applied_at_each_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "changed_module.py").write_text("VALUE = 1\n")
    (tmp_path / "other_module.py").write_text("VALUE = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    after_import("changed_module", lambda module: setattr(module, "VALUE", module.VALUE + 1))
    after_import("changed_module", lambda module: setattr(module, "VALUE", module.VALUE * 10))
    assert "changed_module" not in sys.modules
    assert [importlib.import_module(name).VALUE for name in ("changed_module", "other_module")] == [20, 1]
    del sys.modules["changed_module"]
    assert importlib.import_module("changed_module").VALUE == 20


def test_a_module_that_is_there_is_changed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "present_module.py").write_text("VALUE = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("present_module")
    after_import("present_module", lambda module: setattr(module, "VALUE", 2))
    assert module.VALUE == 2


def test_a_module_that_is_missing_stays_missing() -> None:
    after_import("no_such_module", lambda module: None)
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        importlib.import_module("no_such_module")
