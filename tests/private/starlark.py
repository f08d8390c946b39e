"""Runs Starlark in tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def evaluate(file: Path, **loaded: object) -> dict[str, Any]:
    """Evaluates a .bzl file whose Starlark is also valid Python; returns its globals.

    Args:
        file: the .bzl file.
        loaded: the names that its load statements bring.
    """
    scope: dict[str, Any] = {**loaded, "load": lambda *names, **renamed: None}
    exec(file.read_text(encoding="utf-8"), scope)
    return scope
