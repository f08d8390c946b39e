"""Programs in Python that a test has started by their path."""

from __future__ import annotations

import pathlib
import sys


def write(path: pathlib.Path, source: str) -> None:
    """Writes an executable that runs `source` by the Python of the test.

    By the shell: a first line that named Python itself would be cut off where its path is longer than 255 bytes (Linux,
    BINPRM_BUF_SIZE), as it is
    below an output base that lies in another one. To the shell the second line is a command, to Python a string.
    """
    path.write_text(f"#!/bin/sh\n'''exec' '{sys.executable}' \"$0\" \"$@\"\n'''\n{source}")
    path.chmod(0o755)
