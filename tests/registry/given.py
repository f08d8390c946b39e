"""Finds the files that a test was given."""

from __future__ import annotations

import os
from pathlib import Path


def runfile(variable: str) -> Path:
    """The file that the BUILD file names in an environment variable, as $(rlocationpath)."""
    return Path(os.environ["TEST_SRCDIR"], os.environ[variable])
