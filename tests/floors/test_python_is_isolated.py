"""Every Python that a rule starts ignores PYTHONPATH and the user's site-packages, which would change what it does."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(os.environ["WORKSPACE_FILE"]).resolve().parent


def starlark() -> Iterator[tuple[Path, ast.AST]]:
    """Every .bzl file and its syntax, stand-in modules included."""
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if not name.startswith((".", "bazel-"))]
        for name in names:
            if name.endswith(".bzl"):
                path = Path(folder, name)
                yield path.relative_to(ROOT), ast.parse(path.read_text(encoding="utf-8"))


def finds_python(node: ast.AST) -> bool:
    """Whether an expression looks for the machine's Python."""
    return "which('python" in ast.unparse(node)


def commands(tree: ast.AST) -> Iterator[list[str]]:
    """The arguments of each Python that is started: by a list, or by ctx.actions.run with a toolchain's interpreter."""
    found = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and finds_python(node.value)
        for target in node.targets
        if isinstance(target, ast.Name)
    }

    def is_python(node: ast.AST) -> bool:
        return node.id in found if isinstance(node, ast.Name) else finds_python(node)

    for node in ast.walk(tree):
        if isinstance(node, ast.List) and node.elts and is_python(node.elts[0]):
            yield [ast.unparse(each) for each in node.elts[1:]]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("actions.run"):
            arguments = {each.arg: each.value for each in node.keywords}
            if is_python(arguments["executable"]) or "interpreter" in ast.unparse(arguments["executable"]):
                given = arguments["arguments"]
                first = given.left if isinstance(given, ast.BinOp) else given
                yield [ast.unparse(each) for each in first.elts] if isinstance(first, ast.List) else []


def test_every_python_is_isolated() -> None:
    started = [(path, command) for path, tree in starlark() for command in commands(tree)]
    # A reader that finds nothing would let everything pass.
    assert {path.parts[1] for path, _ in started} >= {"crates", "debian", "git", "go", "pypi", "registry"}
    wrong = [f"{path}: python3 {' '.join(command)}" for path, command in started if not is_isolated(command)]
    assert not wrong, 'expected "-IB" behind the interpreter:\n' + "\n".join(wrong)


def is_isolated(command: list[str]) -> bool:
    return command[:1] == ["'-IB'"] or command[:2] == ["'-I'", "'-B'"]


def test_what_looks_for_python_starts_it() -> None:
    """In a way that `commands` sees."""
    unseen = [
        str(path)
        for path, tree in starlark()
        if any(isinstance(node, ast.Call) and finds_python(node) for node in ast.walk(tree))
        and not list(commands(tree))
    ]
    assert not unseen, f"these start Python in a way that this test does not see: {unseen}"
