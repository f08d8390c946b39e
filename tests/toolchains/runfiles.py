"""Where the files are that a test was given."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(os.environ["RUNFILES_DIR"] if "RUNFILES_DIR" in os.environ else os.environ["TEST_SRCDIR"])
MAIN = ROOT / "_main"
HERE = MAIN / "tests/toolchains"


def repository(name: str) -> Path:
    """The folder of a repository that a module extension of ours made, as `external/` names it.

    Its canonical name begins with that of the extension, and how these are joined differs between Bazel versions.
    """
    found = [path for path in ROOT.iterdir() if path.name.endswith(("~" + name, "+" + name))]
    assert len(found) == 1, f"expected one repository {name} among the test's files, found {found}"
    return found[0]


def is_inside(path: str | os.PathLike[str], repository: Path) -> bool:
    """Whether a file, links followed, is one of a repository's: in the sandbox each file is a link to the repository's
    own.
    """
    return repository.name in Path(os.path.realpath(path)).parts
