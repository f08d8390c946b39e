"""Each line of SECURITY.md's threat model names tests that exist."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

ROOT = Path(os.environ["WORKSPACE_FILE"]).resolve().parent
_SECTION = re.compile(r"^## Threat model\n(.*?)^## ", re.MULTILINE | re.DOTALL)


def rows() -> list[list[str]]:
    """The table's rows, without its head."""
    section = _SECTION.search((ROOT / "SECURITY.md").read_text(encoding="utf-8"))
    assert section
    lines = [line for line in section[1].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


LABELS = [label for row in rows() for label in re.findall(r"`(//[^`]+)`", row[-1])]


@pytest.mark.parametrize("label", LABELS)
def test_a_named_test_exists(label: str) -> None:
    package, _, name = label.removeprefix("//").partition(":")
    folder = ROOT / package
    build = (folder / "BUILD.bazel").read_text(encoding="utf-8")
    # Of a package that makes its tests in a loop, too, the name is a string in its BUILD file.
    assert f'"{name or folder.name}"' in build
    assert package.startswith("tests/")


def test_what_is_not_trusted_with_something_has_a_test() -> None:
    assert len(rows()) > 5 and len(LABELS) > 10
    for who, _, refused, tests in rows():
        assert bool(refused) == bool(tests), who
