"""//images:run starts the real image with the build's runc; a machine needs root or user namespaces for that."""

from __future__ import annotations

import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
from typing import Any

import pytest

from release.private import run

IMAGE = pathlib.Path(os.environ["IMAGE"])
SCRATCH = pathlib.Path(os.environ["TEST_TMPDIR"])


def start(*arguments: str) -> subprocess.Popen[str]:
    """Starts //images:run on a machine without a container tool."""
    fixed = [
        f"--layout=tvm_runtime={IMAGE}",
        "--loader=tvm_runtime=unused",
        f"--runc={os.environ['RUNC']}",
        f"--umoci={os.environ['UMOCI']}",
        "--version=1.2.3",
    ]
    return subprocess.Popen(
        [sys.executable, run.__file__, *fixed, *arguments],
        # Umoci is a shell script.
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": os.pathsep.join(sys.path),
            "TMPDIR": str(SCRATCH),
            "HOME": str(SCRATCH),
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit status, output and messages; nothing is left behind."""
    output, messages = process.communicate(timeout=600)
    assert list(SCRATCH.glob("run-*")) == [], "the unpacked image is left behind"
    return process.returncode, output, messages


@pytest.mark.parametrize(
    ("command", "status", "expected"),
    [
        (["sh", "-c", "pwd; cat /workspace/model; exit 7"], 7, "/workspace\nweights\n"),
        (["python", "-c", "import tvm; print(tvm.runtime.tensor([1.0, 2.0]).numpy().sum())"], 0, "3.0\n"),
    ],
)
def test_a_command_runs_in_the_image(tmp_path: pathlib.Path, command: Any, status: int, expected: str) -> None:
    (tmp_path / "model").write_text("weights\n")
    tmp_path.chmod(0o755)
    code, output, messages = ended(start("--tool", "runc", "--volume", f"{tmp_path}:/workspace", "--", *command))
    assert (code, output) == (status, expected), messages


CLIENT = """\
import os, socket, sys
print(os.environ.get("MLC_LLM_HOST"))
try:
    print(socket.create_connection(("127.0.0.1", int(sys.argv[1]))).recv(99).decode())
except OSError as error:
    print(type(error).__name__)
"""


@pytest.mark.parametrize(
    ("options", "expected"),
    [((), "None\nConnectionRefusedError\n"), (("--publish", "8000:8000"), "127.0.0.1\nfrom the machine\n")],
)
def test_only_who_publishes_a_port_gets_the_machines_network(options: tuple[str, ...], expected: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"from the machine")

        threading.Thread(target=greet, daemon=True).start()
        port = str(listener.getsockname()[1])
        code, output, messages = ended(start("--tool", "runc", *options, "--", "python", "-c", CLIENT, port))
        assert (code, output) == (0, expected), messages
    assert ("so it has this machine's; serve listens on 127.0.0.1\n" in messages) == bool(options)


def test_sigterm_is_the_containers_and_nothing_is_left_behind() -> None:
    script = "trap 'exit 9' TERM; echo started; while :; do sleep 0.1; done"
    process = start("--tool", "runc", "--", "bash", "-c", script)
    assert process.stdout and process.stdout.readline() == "started\n"
    process.send_signal(signal.SIGTERM)
    assert ended(process)[0] == 9
