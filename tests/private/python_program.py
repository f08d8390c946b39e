"""Writes Python programs that tests start by path."""

from __future__ import annotations

import pathlib
import sys


def write(path: pathlib.Path, source: str) -> None:
    """Writes an executable that runs `source` with the test's Python.

    The shell starts Python, because Linux truncates the first line of a script after 255 bytes (BINPRM_BUF_SIZE), and
    Python's path is longer in an output base inside another one. The second line is a command for the shell and a
    string for Python.
    """
    path.write_text(f"#!/bin/sh\n'''exec' '{sys.executable}' \"$0\" \"$@\"\n'''\n{source}")
    path.chmod(0o755)
