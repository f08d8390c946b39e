"""Requests from measure.py to its processes, one line of JSON each way: sides that cannot share a process take turns
within milliseconds.
"""

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
"""Seconds that a request may take: an engine whose thread failed would wait forever."""


def serve(answers: dict[str, Callable[..., Any]]) -> None:
    """Answers requests from standard input until it ends.

    Args:
        answers: name of a request → function of its arguments; its result must be JSON serializable.
    """
    # Keep output of libraries out of the answers.
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
    """A process answered with an error, or exited."""


class Process:
    """A process that runs `serve`; as a context manager it stops the process."""

    def __init__(self, name: str, command: Sequence[str | Path], environment: dict[str, str], log: Path) -> None:
        """Starts the process.

        Args:
            name: for messages.
            command: program and arguments.
            environment: its whole environment.
            log: file to which its standard error is appended.
        """
        self.name = name
        self._log = log
        with log.open("a", encoding="utf-8") as errors:
            self._process = subprocess.Popen(
                list(map(str, command)),
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass  # It has exited already.
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def ask(self, request: str, **arguments: Any) -> Any:
        """Returns the result of a request.

        Raises:
            Failed: the request failed, or took longer than LIMIT.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            print(json.dumps({"request": request, **arguments}), file=self._process.stdin, flush=True)
            # There is one answer per request, so nothing is left in Python's buffer.
            if not select.select([self._process.stdout], [], [], LIMIT)[0]:
                self._process.kill()
                raise Failed(
                    f"{self.name}: expected an answer to {request!r} within {LIMIT} s, found none: see {self._log}"
                )
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            said = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            ended = (
                f"expected an answer to {request!r}, found that the process exited with status {self._process.wait()}"
            )
            raise Failed(f"{self.name}: {ended}; see {self._log}, which ends: {said[-1] if said else 'nothing'}")
        reply = json.loads(line)
        if "error" in reply:
            raise Failed(f"{self.name}: {request!r} failed:\n{reply['error'].rstrip()}")
        return reply["result"]
