"""Changes modules of upstream once they are imported.

Importing them to change them would import every architecture of mlc-llm, which engines do not need.
"""

from __future__ import annotations

import importlib.machinery
import sys
import types
from collections.abc import Callable, Sequence

_changes: dict[str, list[Callable[[types.ModuleType], None]]] = {}


class _Finder:
    """Finds modules that have changes, as Python itself does, and applies these when a module has been executed."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in _changes:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: types.ModuleType) -> None:
            execute(module)
            for change in _changes[name]:
                change(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def after_import(name: str, change: Callable[[types.ModuleType], None]) -> None:
    """Applies `change` to the module of this name: at once if it is imported already, else when it is."""
    if _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)  # type: ignore[arg-type]  # the protocol's method is enough
    _changes.setdefault(name, []).append(change)
    if name in sys.modules:
        change(sys.modules[name])
