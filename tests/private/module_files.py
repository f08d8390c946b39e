"""Reads the tags of module extensions from MODULE.bazel files."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def tags(files: Iterable[Path], function: str) -> list[dict[str, Any]]:
    """The keyword arguments of every call of `function`, in order, without values that are not literals.

    Args:
        files: MODULE.bazel and the files it includes. Their Starlark is a subset of Python.
        function: as written there, for example "debian.root".
    """
    found = []
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == function:
                found.append(
                    {
                        keyword.arg: value
                        for keyword in node.keywords
                        if (value := _literal(keyword.value)) is not None and keyword.arg
                    }
                )
    return found


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None
