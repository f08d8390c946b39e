"""Separate Python processes, for what must not happen in the process that runs the tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any


def start_python(code: str, **environment: str) -> subprocess.Popen[str]:
    """Starts Python on the code, with the same packages; its standard streams are pipes."""
    variables = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))} | environment
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", code], env=variables, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    )


def run_python(code: str, **environment: str) -> Any:
    """Runs the code and returns its last line of output, parsed as JSON.

    Raises:
        AssertionError: the code failed; the message holds its output.
        subprocess.TimeoutExpired: it took longer than two minutes.
    """
    with start_python(code, **environment) as process:
        output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, f"exit status {process.returncode}\n{output}\n{errors}"
    return json.loads(output.splitlines()[-1])
