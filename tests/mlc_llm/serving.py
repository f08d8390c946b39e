"""Servers of the tiny model in processes of their own."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from email.message import Message
from pathlib import Path

import openai
import pytest
from tiny_model_files import LIBRARY, WEIGHTS, child_environment

# Seconds after which a process counts as hanging; a start takes three.
PATIENCE = 600

START = "import sys; from mlc_llm.__main__ import main; sys.argv[0] = 'mlc_llm'; main()"


class Server(contextlib.AbstractContextManager["Server"]):
    """A server process, which prints to a file. Leaving the context kills it.

    Args:
        folder: for the file, and the process's home and working directory.
        options: of `mlc_llm serve`.
        change: Python statements that the process executes first.
    """

    def __init__(self, folder: Path, *options: str, change: str = "") -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        self.log = folder / "log.txt"
        command = [sys.executable, "-c", f"{change}\n{START}", "serve", str(WEIGHTS), "--model-lib", str(LIBRARY)]
        command += ["--device", "cpu", "--host", "127.0.0.1", "--port", str(port), *options]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=folder, env=child_environment(folder), stdout=log, stderr=log)

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def until(self, condition: Callable[[], bool]) -> None:
        """Waits until a condition holds. Fails when the process ends first."""
        for _ in range(PATIENCE * 20):
            if condition():
                return
            if self.process.poll() is not None:
                pytest.fail(f"ended with {self.process.returncode}: {self.log.read_text()}")
            time.sleep(0.05)
        pytest.fail(f"waited in vain: {self.log.read_text()}")

    def wait(self) -> None:
        """Waits until it takes requests."""
        self.until(lambda: self.status("/health/ready") == 200)

    def status(self, path: str) -> int:
        """Returns the status of an answer, or 0 without a connection."""
        return self.ask(path)[0]

    def ask(self, path: str) -> tuple[int, dict[str, str], str]:
        """Returns status, headers and body of an answer; status 0 without a connection."""
        try:
            with urllib.request.urlopen(self.address + path, timeout=PATIENCE) as answer:
                return answer.status, _lowered(answer.headers), answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, _lowered(error.headers), error.read().decode()
        except (urllib.error.URLError, ConnectionError):
            return 0, {}, ""

    def get(self, path: str) -> str:
        """Returns the body of an answer with status 200."""
        status, _, body = self.ask(path)
        assert status == 200, (status, body)
        return body

    def client(self, key: str = "none") -> openai.OpenAI:
        return openai.OpenAI(base_url=self.address + "/v1", api_key=key, max_retries=0, timeout=PATIENCE)

    def terminate(self) -> int:
        """Sends SIGTERM; returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


def _lowered(headers: Message) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
