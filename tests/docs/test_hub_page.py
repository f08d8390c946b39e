"""The commands of docs/users/hub.md serve a model from a hub on loopback, and its request is answered."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlc_llm.interface import jit
from mlc_llm.support import constants
from tiny_model_files import LIBRARY, WEIGHTS, child_environment, tiny_hub

PAGE = Path(os.environ["PAGE"]).read_text()
SERVE = Path(os.environ["SERVE"]).absolute()
COMMANDS = [shlex.split(line) for line in re.findall(r"^    (docker run .*)$", PAGE, re.M)]
(REQUEST,) = [shlex.split(line) for line in re.findall(r"^    (curl .*)$", PAGE, re.M)]


@pytest.fixture
def hub() -> Iterator[tuple[str, list[str]]]:
    """The address of a hub with the page's model, and the revisions that were asked for."""
    with tiny_hub("ORGANISATION/MODEL") as hub:
        yield hub


def seed_library(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts the tiny model's library where an earlier start would have left it: there is no linker here."""

    def copy(command: list[str], **_: object) -> None:
        Path(command[command.index("--output") + 1]).write_bytes(LIBRARY.read_bytes())

    monkeypatch.setattr(constants, "MLC_LLM_HOME", home)
    monkeypatch.setattr(jit, "MLC_TEMP_DIR", None)
    monkeypatch.setattr(jit, "MLC_LLM_HOME", home)
    monkeypatch.setattr(jit.subprocess, "run", copy)
    jit.jit(WEIGHTS, {}, "cpu:0")
    monkeypatch.undo()


def test_the_page_has_the_commands() -> None:
    assert [command[-1] for command in COMMANDS] == [
        "HF://ORGANISATION/MODEL",
        "HF://ORGANISATION/MODEL@REVISION",
        "/workspace/MODEL.so",
    ]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[-1])
def test_a_command_serves_the_model_and_the_request_is_answered(
    command: list[str], hub: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, revisions = hub
    home = tmp_path / "home"
    arguments = command[command.index("mlc_llm:0.1.0") + 1 :]
    if "--model-lib" not in arguments:
        seed_library(home, monkeypatch)
    arguments = [str(LIBRARY) if argument == "/workspace/MODEL.so" else argument for argument in arguments]
    (tmp_path / "mlc_llm").write_text(
        f"#!{sys.executable}\nimport sys\nfrom mlc_llm.__main__ import main\nsys.exit(main())\n"
    )
    (tmp_path / "mlc_llm").chmod(0o755)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**child_environment(tmp_path), "PATH": str(tmp_path), "MLC_LLM_HOME": str(home)}
    environment |= {"HF_ENDPOINT": address, "NO_PROXY": "*"}
    assert arguments[0] == "serve"
    server = subprocess.Popen(
        [sys.executable, str(SERVE), *arguments[1:], "--device", "cpu", "--host", "127.0.0.1", "--port", str(port)],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    url, body = REQUEST[1].replace("localhost:8000", f"127.0.0.1:{port}"), REQUEST[REQUEST.index("-d") + 1]
    try:
        while server.poll() is None:
            request = urllib.request.Request(url, body.encode(), {"Content-Type": "application/json"})
            try:
                with urllib.request.urlopen(request) as answer:
                    assert b'"completion_tokens"' in answer.read()
                break
            except ConnectionRefusedError:
                time.sleep(0.2)
            except urllib.error.HTTPError as error:
                assert error.code == 503  # The model is being loaded.
                time.sleep(0.2)
            except urllib.error.URLError as error:
                if not isinstance(error.reason, ConnectionRefusedError):
                    raise
                time.sleep(0.2)
        assert server.poll() is None, server.communicate()[1]
    finally:
        server.send_signal(signal.SIGKILL)
        said = server.communicate()[1]
    assert "ORGANISATION/MODEL: downloaded" in said
    expected = "REVISION" if any("@" in argument for argument in arguments) else "main"
    assert set(revisions) == {expected}
