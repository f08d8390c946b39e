"""//images:run starts the real image with the real runc; a machine needs root or user namespaces for that."""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
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
    with start(path, "--volume", f"{tmp_path}:/workspace", "--", *command) as started:
        stdout, stderr = started.communicate()
    assert (started.returncode, stdout) == (status, expected), stderr
    assert_nothing_is_left()


def test_it_cleans_up_on_sigterm(path: str) -> None:
    """The unpacked image was left behind, and the container ran on."""
    with start(path, "--", "sh", "-c", "echo started; sleep 600") as started:
        assert started.stdout is not None
        assert started.stdout.readline() == "started\n"
        started.terminate()
        assert started.wait() == 128 + signal.SIGTERM
    assert_nothing_is_left()


def start(path: str, *arguments: str) -> subprocess.Popen[str]:
    """Starts //images:run with the locked tools."""
    fixed = [
        f"--layout=tvm_runtime={IMAGE}",
        "--loader=tvm_runtime=unused",
        f"--umoci={os.environ['UMOCI']}",
        "--version=1.2.3",
    ]
    return subprocess.Popen(
        [sys.executable, run.__file__, *fixed, "--tool", "runc", *arguments],
        env={
            "PATH": path,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "TMPDIR": os.environ["TEST_TMPDIR"],
            "HOME": os.environ["TEST_TMPDIR"],
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def assert_nothing_is_left() -> None:
    assert list(pathlib.Path(os.environ["TEST_TMPDIR"]).glob("run-*")) == [], "the unpacked image is left behind"
