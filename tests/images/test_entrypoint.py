"""The entrypoint runs what it is given, as it is given."""

from __future__ import annotations

import pathlib
import re
import signal
import subprocess
import sys
from typing import Any

import pytest

from images.commands import entrypoint


def run_entrypoint(*arguments: str, path: str = "/usr/bin:/bin", **options: Any) -> subprocess.CompletedProcess:
    command = [sys.executable, entrypoint.__file__, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={"PATH": path}, check=False, **options)


def test_a_command_runs_with_its_arguments_and_exit_code() -> None:
    ran = run_entrypoint("sh", "-c", 'printf "%s|" "$@"; exit 7', "sh", "a b", "", "--help")
    assert (ran.returncode, ran.stdout) == (7, "a b||--help|")


def test_a_command_takes_the_entrypoints_process() -> None:
    process = subprocess.Popen(
        [sys.executable, entrypoint.__file__, "sh", "-c", "echo $$; exec sleep 600"],
        stdout=subprocess.PIPE,
        text=True,
        env={"PATH": "/usr/bin:/bin"},
    )
    with process:
        assert process.stdout is not None
        assert int(process.stdout.readline()) == process.pid
        process.terminate()
    assert process.returncode == -signal.SIGTERM


def test_no_command_is_a_shell(tmp_path: pathlib.Path) -> None:
    shell = tmp_path / "bash"
    shell.write_text("#!/bin/sh\necho shell in $PWD with $#\n")
    shell.chmod(0o755)
    ran = run_entrypoint(path=f"{tmp_path}:/usr/bin:/bin", cwd=tmp_path)
    assert ran.stdout == f"shell in {tmp_path.resolve()} with 0\n", ran.stderr


def test_an_image_without_a_shell_lists_the_commands(tmp_path: pathlib.Path) -> None:
    ran = run_entrypoint(path=str(tmp_path))
    assert (ran.returncode, ran.stdout) == (2, "")
    assert re.match("entrypoint: this image has no shell; give a command\n\nusage: ", ran.stderr)


@pytest.mark.parametrize(
    "programs", [("bash", "smoke", "build", "pytest", "serve"), ("smoke", "build", "pytest"), ("smoke", "serve")]
)
def test_help_names_the_commands_that_the_image_has(tmp_path: pathlib.Path, programs: tuple[str, ...]) -> None:
    for program in programs:
        (tmp_path / program).write_text("#!/bin/sh\n")
        (tmp_path / program).chmod(0o755)
    ran = run_entrypoint("--help", path=str(tmp_path))
    assert ran.returncode == 0
    assert {line.split()[0] for line in ran.stdout.splitlines() if line.startswith("  ")} == {
        *("(no" if program == "bash" else program for program in programs),
        "COMMAND",
        "--help",
    }
    assert ("/src/mlc-llm" in ran.stdout) == ("build" in programs)
    assert "models and projects at /workspace" in ran.stdout


def test_what_cannot_run_gives_the_shells_exit_codes() -> None:
    missing, folder = run_entrypoint("no-such-command"), run_entrypoint("/tmp")
    assert (missing.returncode, folder.returncode) == (127, 126)
    assert re.search("no-such-command: no such command; --help lists", missing.stderr)
