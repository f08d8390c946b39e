"""How measure.py asks its processes: one line of JSON each way, so that sides that cannot live in one process take turns of milliseconds."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

LIMIT = 180
"""Seconds that a request may take: an engine whose thread has failed would wait for ever."""


def serve(answers: dict[str, Callable[..., Any]]) -> None:
    """Answers requests from standard input until it ends.

    Args:
        answers: name of a request → function of its arguments, which returns what JSON can say.
    """
    # Whatever a library prints must not stand between the answers.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = {"result": answers[request.pop("request")](**request)}
        except Exception:
            reply = {"error": traceback.format_exc()}
        print(json.dumps(reply), file=channel, flush=True)


class Failed(Exception):
    """A process answered with an error, or ended."""


class Process:
    """A process that serves; a context manager, which ends it."""

    def __init__(self, name: str, command: Sequence[str | Path], environment: dict[str, str], log: Path) -> None:
        """Starts it.

        Args:
            name: for messages.
            command: program and arguments.
            environment: all of its environment.
            log: the file that gets what it writes to standard error, appended.
        """
        self.name = name
        self._log = log
        with log.open("a", encoding="utf-8") as errors:
            self._process = subprocess.Popen(
                list(map(str, command)), env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
            )

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass  # It ended before.
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def ask(self, request: str, **arguments: Any) -> Any:
        """The result of a request.

        Raises:
            Failed: it could not be answered, or not within LIMIT.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            print(json.dumps({"request": request, **arguments}), file=self._process.stdin, flush=True)
            # One answer to one request, so that nothing is left in Python's buffer.
            if not select.select([self._process.stdout], [], [], LIMIT)[0]:
                self._process.kill()
                raise Failed(f"{self.name}: expected an answer to {request!r} within {LIMIT} s, found none: see {self._log}")
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            said = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            ended = f"expected an answer to {request!r}, found that the process ended with status {self._process.wait()}"
            raise Failed(f"{self.name}: {ended}; see {self._log}, which ends: {said[-1] if said else 'nothing'}")
        reply = json.loads(line)
        if "error" in reply:
            raise Failed(f"{self.name}: {request!r} failed:\n{reply['error'].rstrip()}")
        return reply["result"]
