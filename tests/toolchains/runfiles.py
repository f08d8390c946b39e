"""Finds the files that a test was given."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(os.environ["RUNFILES_DIR"] if "RUNFILES_DIR" in os.environ else os.environ["TEST_SRCDIR"])
MAIN = ROOT / "_main"
HERE = MAIN / "tests/toolchains"


def repository(name: str) -> Path:
    """The folder in `external/` of a repository that one of our module extensions made.

    Its canonical name starts with the extension's; Bazel versions join the two differently.
    """
    found = [path for path in ROOT.iterdir() if path.name.endswith(("~" + name, "+" + name))]
    assert len(found) == 1, f"expected one repository {name} among the test's files, found {found}"
    return found[0]


def is_inside(path: str | os.PathLike[str], repository: Path) -> bool:
    """Whether a file belongs to a repository. In the sandbox each file is a link to the repository's file."""
    return repository.name in Path(os.path.realpath(path)).parts
