"""A Python of its own for what must not happen in the one that runs the tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys


def start_python(code: str, **environment: str) -> subprocess.Popen[str]:
    """Starts Python on the code, with the packages that this one has; its input, output and errors are pipes."""
    variables = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))} | environment
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", code], env=variables, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def run_python(code: str, **environment: str) -> object:
    """What the code printed last, as JSON.

    Raises:
        AssertionError: it failed; the message is what it wrote.
        subprocess.TimeoutExpired: it took more than two minutes.
    """
    with start_python(code, **environment) as process:
        output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, f"exit status {process.returncode}\n{output}\n{errors}"
    return json.loads(output.splitlines()[-1])
