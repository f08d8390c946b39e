"""Arrows point down: no folder uses one on a floor above it, nothing but tests uses tests, and `private` is private."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(os.environ["WORKSPACE_FILE"]).resolve().parent

# From the ground up; CONTRIBUTING.md has the plan. What is at the root is below all of them.
FLOORS = [
    {"locks"},
    {"fetch", "platforms"},
    {"toolchains", "third_party", "src"},
    {"wheels"},
    {"oci"},
    {"images", "models"},
    {"release"},
    {"tools", "bench", "tests", "docs", "deploy"},
]
FLOOR_OF = {folder: number for number, folders in enumerate(FLOORS) for folder in folders}

# The arrows up, by folder and label: what is published has passed the tests, and images hold their test suite (`pytest
# /tests`).
ALLOWED = {
    ("images", "//tests/mlc_llm:files"),
    ("images", "//tests/runtime/dev:files"),
    ("images", "//tests/runtime:files"),
    ("release", "//tests:gate"),
    # The documentation has the README of tests and the reference of their macros.
    ("docs", "//tests:docs"),
}

# Stand-in modules are separate repositories.
_NOT_OURS = "fetch/registry/src/"

_LABEL = re.compile(r"(?:@@?)?//([\w./+-]*)(?::([\w./+=-]+))?")


def _files() -> Iterator[Path]:
    """Every file of the workspace, relative; without hidden folders, Bazel's links and what Python leaves behind."""
    for folder, folders, names in os.walk(ROOT):
        relative = Path(folder).relative_to(ROOT)
        folders[:] = [name for name in folders if not name.startswith((".", "bazel-")) and name != "__pycache__"]
        yield from (relative / name for name in names)


FILES = [path for path in _files() if not str(path).startswith(_NOT_OURS)]


def sources(*endings: str) -> list[Path]:
    """The files below a folder of the workspace whose names end so."""
    return [path for path in FILES if len(path.parts) > 1 and path.name.endswith(endings)]


def imports(path: Path) -> Iterator[str]:
    """The dotted names that a Python file imports, relative ones made absolute."""
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = path.parts[: len(path.parts) - node.level] if node.level else ()
            base = ".".join([*package, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def labels(path: Path) -> Iterator[str]:
    """The labels in this repository that a Starlark file uses; visibility, aliases and docstrings are no use."""

    def strings(node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("alias", "package_group"):
            return
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return
        if isinstance(node, ast.keyword) and node.arg in ("visibility", "default_visibility"):
            return
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        for child in ast.iter_child_nodes(node):
            yield from strings(child)

    text = (ROOT / path).read_text(encoding="utf-8")
    for string in strings(ast.parse(text)):
        if match := _LABEL.fullmatch(string.split("%")[0] if "%{" in string else string):
            yield "//" + match[1] + (":" + match[2] if match[2] else "")


def folder(place: str) -> str:
    return place.split("/", 1)[0]


STARLARK = ("BUILD.bazel", ".bzl", ".MODULE.bazel")


def arrows() -> Iterator[tuple[Path, str, str]]:
    """(file, what it uses as written, that one's path) of every use of another folder."""
    for path in sources(".py"):
        for name in imports(path):
            if folder(name.replace(".", "/")) in FLOOR_OF:
                yield path, name, name.replace(".", "/")
    for path in sources(*STARLARK):
        for label in labels(path):
            yield path, label, label[2:].replace(":", "/")


ARROWS = [(path, used, place) for path, used, place in arrows() if folder(place) in FLOOR_OF]


def test_there_are_arrows_of_every_folder() -> None:
    """A reader that finds nothing would let everything pass."""
    assert {folder(str(path)) for path, _, _ in ARROWS} >= set(FLOOR_OF) - {"locks", "docs", "deploy"}
    assert len(ARROWS) > 500


def test_every_folder_is_on_a_floor() -> None:
    assert {path.parts[0] for path in FILES if len(path.parts) > 1} <= set(FLOOR_OF)


def test_arrows_point_down() -> None:
    up = [
        f"{path}: {used}"
        for path, used, place in ARROWS
        if FLOOR_OF[folder(place)] > FLOOR_OF[path.parts[0]] and (path.parts[0], used) not in ALLOWED
    ]
    assert not up, "these use a folder on a floor above theirs:\n" + "\n".join(sorted(set(up)))


def test_only_tests_use_tests() -> None:
    wrong = [
        f"{path}: {used}"
        for path, used, place in ARROWS
        if folder(place) == "tests" != path.parts[0] and (path.parts[0], used) not in ALLOWED
    ]
    assert not wrong, "only tests may use tests:\n" + "\n".join(sorted(set(wrong)))


def test_private_is_used_by_its_own_folder_and_by_tests_only() -> None:
    wrong = []
    for path, used, place in ARROWS:
        owner, private, _ = f"/{place}/".partition("/private/")
        if private and path.parts[0] != "tests" and not f"/{path}".startswith(owner + "/"):
            wrong.append(f"{path}: {used}")
    assert not wrong, "private folders are used from elsewhere:\n" + "\n".join(sorted(set(wrong)))


def test_every_allowed_arrow_is_there() -> None:
    assert {(path.parts[0], used) for path, used, _ in ARROWS} >= ALLOWED


def test_no_module_imports_itself_in_a_circle() -> None:
    modules = {".".join(path.with_suffix("").parts): path for path in sources(".py")}
    graph = {
        name: {
            target
            for target in (each if each in modules else each.rpartition(".")[0] for each in imports(path))
            if target in modules and target != name
        }
        for name, path in modules.items()
    }
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        if name in trail:
            pytest.fail("a circle of imports: " + " -> ".join([*trail[trail.index(name) :], name]))
        if name not in done:
            for target in sorted(graph[name]):
                visit(target, (*trail, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())
