"""//images:run starts the real image with the real runc; a machine needs root or user namespaces for that."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
from typing import Any

import pytest

from oci import enter_root
from release.private import run

IMAGE = pathlib.Path(os.environ["IMAGE"])


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PATH with the locked packages' runc, in a separate root, because it re-executes itself by its path."""
    tools, commands = tmp_path_factory.mktemp("tools"), tmp_path_factory.mktemp("bin")
    source = pathlib.Path(os.environ["RUNC"]).parents[2]
    for part in ("lib", "lib64", "usr"):
        shutil.copytree(source / part, tools / part)
    temporary = os.environ["TEST_TMPDIR"]
    wrapper = commands / "runc"
    wrapper.write_text(
        f"#!/bin/sh\nexec {sys.executable} {enter_root.__file__} --root {tools} --bind {temporary}={temporary} --"
        ' /usr/sbin/runc.unwrapped "$@"\n'
    )
    wrapper.chmod(0o755)
    return f"{commands}:/usr/bin:/bin"


@pytest.mark.parametrize(
    ("command", "status", "expected"),
    [
        (["sh", "-c", "pwd; cat /workspace/model; exit 7"], 7, "/workspace\nweights\n"),
        (["python", "-c", "import tvm; print(tvm.runtime.tensor([1.0, 2.0]).numpy().sum())"], 0, "3.0\n"),
    ],
)
def test_a_command_runs_in_the_image(
    path: Any, tmp_path: pathlib.Path, command: Any, status: int, expected: str
) -> None:
    (tmp_path / "model").write_text("weights\n")
    tmp_path.chmod(0o755)
    fixed = [
        f"--layout=tvm_runtime={IMAGE}",
        "--loader=tvm_runtime=unused",
        f"--umoci={os.environ['UMOCI']}",
        "--version=1.2.3",
    ]
    done = subprocess.run(
        [sys.executable, run.__file__, *fixed, "--tool", "runc", "--volume", f"{tmp_path}:/workspace", "--", *command],
        env={
            "PATH": path,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "TMPDIR": os.environ["TEST_TMPDIR"],
            "HOME": os.environ["TEST_TMPDIR"],
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (status, expected), done.stderr
    assert list(pathlib.Path(os.environ["TEST_TMPDIR"]).glob("run-*")) == [], "the unpacked image is left behind"
