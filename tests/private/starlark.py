"""Runs Starlark in tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def evaluate(file: Path) -> dict[str, Any]:
    """Evaluates a .bzl file whose Starlark is also valid Python; returns its globals."""
    scope: dict[str, Any] = {}
    exec(file.read_text(encoding="utf-8"), scope)
    return scope
