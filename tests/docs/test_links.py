"""Every relative link in a Markdown file leads to a file or heading that exists; README.md stays short."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path

import pytest

from docs import pages

ROOT = Path(os.environ["WORKSPACE_FILE"]).resolve().parent


def markdown_files() -> list[str]:
    """The workspace's Markdown files, relative to its root; not those of tools in hidden folders."""
    found = []
    for folder, folders, files in os.walk(ROOT):
        folders[:] = sorted(name for name in folders if not name.startswith(".") or name == ".github")
        found += [Path(folder, name).relative_to(ROOT).as_posix() for name in sorted(files) if name.endswith(".md")]
    return found


PAGES = markdown_files()
# A wheel's description is shown by package indexes, which resolve no relative links.
_DESCRIPTIONS = [page for page in PAGES if page.endswith("/description.md")]


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def test_pages_and_links_are_found() -> None:
    """A reader that finds nothing would let everything pass."""
    assert {"README.md", "CONTRIBUTING.md", "docs/users/README.md", "wheels/README.md"} <= set(PAGES)
    assert sum(not link.is_external for page in PAGES for link in pages.links(text(page))) > 150


@pytest.mark.parametrize("page", PAGES)
def test_relative_links_resolve(page: str) -> None:
    broken = []
    for link in pages.links(text(page)):
        if link.is_external:
            continue
        target = pages.resolve(page, link)
        if target.startswith("..") or link.path.startswith("/"):
            broken.append(
                f"{page}:{link.line}: {link.target}: expected a path inside this repository, relative to the page"
            )
        elif not (ROOT / target).exists():
            broken.append(f"{page}:{link.line}: {link.target}: found no file {target}")
        elif link.anchor:
            if (ROOT / target).is_dir():
                target += "/README.md"
            known = pages.anchors(text(target)) if target.endswith(".md") and (ROOT / target).is_file() else set()
            if link.anchor not in known:
                found = ", ".join(sorted(known)) or "none"
                broken.append(f"{page}:{link.line}: {link.target}: found no such heading in {target}, only: {found}")
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize("page", _DESCRIPTIONS)
def test_descriptions_of_wheels_have_absolute_links_only(page: str) -> None:
    assert not [link.target for link in pages.links(text(page)) if not link.is_external]


def test_the_readme_has_at_most_100_lines() -> None:
    lines = len(text("README.md").splitlines())
    assert lines <= 100, f"README.md has {lines} lines: move something to docs/"


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/contributors/README.md"])
def test_the_floor_plan_is_the_one_that_is_tested(page: str) -> None:
    """//tests/floors has the plan; the tables of both pages must not say anything else."""
    tree = ast.parse(text("tests/floors/test_floors.py"))
    (plan,) = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FLOORS"
    ]
    rows = re.findall(r"^\| (\d) \| ([^|]+) \|", text(page), re.MULTILINE)
    assert {int(number): set(re.findall(r"`(\w+)/?`", folders)) for number, folders in rows} == dict(enumerate(plan, 1))
