"""The processes of //tools/remote restart when they crash, and end when we do."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from tools.remote import processes


def process(folder: pathlib.Path, program: str, ready: Callable[[], bool] = lambda: True) -> processes.Process:
    return processes.Process("server", [sys.executable, "-c", program], folder / "server.log", {}, ready)


def gone(pid: int) -> bool:
    """Whether a process ends within seconds. A zombie counts as ended."""
    for _ in range(100):
        try:
            stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):  # the second if it ends between open and read
            return True
        if stat.rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.1)
    return False


def test_a_missing_program_is_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(processes.ProcessError, match="server: /no/program does not start: No such file"):
        processes.Process("server", ["/no/program"], tmp_path / "log", {}, lambda: True).start()


def test_the_output_of_a_program_that_fails_to_start_is_shown(tmp_path: pathlib.Path) -> None:
    server = process(tmp_path, "import sys; print('no licence'); sys.exit(3)", ready=lambda: False)
    server.start()
    with pytest.raises(processes.ProcessError, match="ended with status 3(.|\n)*no licence"):
        server.wait_until_ready(60)


def test_waiting_for_a_program_that_is_never_ready_times_out(tmp_path: pathlib.Path) -> None:
    server = process(tmp_path, "import time; time.sleep(600)", ready=lambda: False)
    server.start()
    with pytest.raises(processes.ProcessError, match="within 0 s"):
        server.wait_until_ready(0.3)
    server.stop()


def test_stop_also_ends_child_processes(tmp_path: pathlib.Path) -> None:
    sleep = "import time; time.sleep(600)"
    program = (
        f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {sleep!r}]).pid, flush=True); {sleep}"
    )
    server = process(tmp_path, program)
    server.start()
    while not (said := server.log.read_text()):
        time.sleep(0.05)
    child, pid = int(said), server.pid
    assert pid
    server.stop()
    assert gone(child) and gone(pid)


def test_a_program_that_keeps_crashing_is_given_up(tmp_path: pathlib.Path) -> None:
    server = process(tmp_path, "import sys; sys.exit(1)")
    server.start()
    with pytest.raises(processes.ProcessError, match="server ended 6 times within a minute"):
        for _ in range(10):
            while server.fallen() is None:
                time.sleep(0.05)
            server.start_again()


def test_processes_end_with_us_even_if_we_are_killed(tmp_path: pathlib.Path) -> None:
    program = f"""
import pathlib, sys, time
from tools.remote import processes
command = [sys.executable, "-c", "import time; time.sleep(600)"]
server = processes.Process("server", command, pathlib.Path({str(tmp_path)!r}, "log"), {{}}, lambda: True)
server.start()
print(server.pid, flush=True)
time.sleep(600)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment)
    assert parent.stdout
    pid = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert gone(pid)
