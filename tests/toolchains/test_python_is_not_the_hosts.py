"""Python programs run on the packaged CPython with its own libraries, without the host's Python."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.toolchains import runfiles

PYTHON = runfiles.repository("debian_python")


def show(environment: dict[str, str]) -> dict:
    # Pass nothing of this test's environment, neither PATH nor its runfiles.
    done = subprocess.run([runfiles.HERE / "show_python"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def assert_packaged(shown: dict) -> None:
    assert shown["version"] == [3, 11]
    for path in [shown["executable"], shown["standard_library"], *shown["mapped"]]:
        assert runfiles.is_inside(path, PYTHON), f"{path} is not in {PYTHON}"
    assert any("libssl" in path for path in shown["mapped"]), shown["mapped"]
    assert len(set(shown["prefixes"])) == 1
    assert runfiles.is_inside(shown["prefixes"][0] + "/lib/python3.11/os.py", PYTHON), shown["prefixes"]
    foreign = [path for path in shown["path"] if path.startswith(("/usr/", "/lib", "/root/.local", "/home/"))]
    assert foreign == []


def test_without_anything_on_path() -> None:
    shown = show({"PATH": "/nowhere"})
    assert_packaged(shown)
    assert_packaged(shown["child"])


def test_this_test() -> None:
    assert runfiles.is_inside(sys.executable, PYTHON)
    assert runfiles.is_inside(os.__file__, PYTHON)
