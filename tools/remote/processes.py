"""Processes that start together, restart when they fail, and stop together.

supervisor would only replace the restarts: it cannot wait until a process is ready, and its children outlive it
when it is killed.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_SHOWN_LINES = 20
_PR_SET_PDEATHSIG = 1  # linux/prctl.h

# Give up after more failures than this within a minute.
_FALLS = 5


class ProcessError(Exception):
    """A process failed. The message has the end of its output."""


def die_with_parent(number: int) -> None:
    """Asks the kernel to send this process a signal when its parent ends, however that happens."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def last_lines(log: Path) -> str:
    """Returns the end of a log, for an error message."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    return "\n".join(lines[-_SHOWN_LINES:]) or "(it printed nothing)"


@dataclass
class Process:
    """A program that must keep running.

    Args:
      name: its name in messages.
      command: program and arguments.
      log: the file to append its output to.
      environment: its complete environment.
      ready: tells whether it is ready; called several times a second while it starts.
      stop_signal: the signal for an orderly exit.
    """

    name: str
    command: Sequence[str]
    log: Path
    environment: Mapping[str, str]
    ready: Callable[[], bool]
    stop_signal: int = signal.SIGTERM
    _running: subprocess.Popen | None = None
    _falls: list[float] = field(default_factory=list)

    @property
    def pid(self) -> int | None:
        return self._running.pid if self._running else None

    def start(self) -> None:
        """Starts it without waiting until it is ready.

        Raises:
          ProcessError: the program does not start.
        """
        with open(self.log, "ab") as log:
            try:
                self._running = subprocess.Popen(
                    self.command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=dict(self.environment),
                    # A separate session: Ctrl-C reaches only us, and we can kill what it starts.
                    start_new_session=True,
                    preexec_fn=lambda: die_with_parent(signal.SIGKILL),
                )
            except OSError as error:
                raise ProcessError(f"{self.name}: {self.command[0]} does not start: {error.strerror}") from None

    def wait_until_ready(self, seconds: float) -> None:
        """Returns as soon as it is ready.

        Raises:
          ProcessError: it ended, or is not ready after this many seconds.
        """
        assert self._running
        began = time.monotonic()
        while not self.ready():
            if self._running.poll() is not None:
                raise ProcessError(
                    f"{self.name} ended with status {self._running.returncode} instead of starting. The end of"
                    f" {self.log}:\n{last_lines(self.log)}"
                )
            if time.monotonic() - began > seconds:
                raise ProcessError(
                    f"{self.name}: expected it to be ready within {seconds:.0f} s, found it is not. The end of"
                    f" {self.log}:\n{last_lines(self.log)}"
                )
            time.sleep(0.1)

    def fallen(self) -> int | None:
        """Returns its exit status if it has ended, else None."""
        return self._running.poll() if self._running else None

    def start_again(self) -> None:
        """Restarts it after a failure.

        Raises:
          ProcessError: it fails again and again.
        """
        assert self._running
        now = time.monotonic()
        self._falls = [fall for fall in self._falls if now - fall < 60] + [now]
        if len(self._falls) > _FALLS:
            raise ProcessError(
                f"{self.name} ended {len(self._falls)} times within a minute, the last time with status"
                f" {self._running.returncode}. The end of {self.log}:\n{last_lines(self.log)}"
            )
        self._kill_group()  # Its remaining children.
        self.start()

    def stop(self, seconds: float = 10) -> None:
        """Stops it and its children: with `stop_signal`, then by force."""
        if not self._running:
            return
        if self._running.poll() is None:
            self._running.send_signal(self.stop_signal)
            try:
                self._running.wait(seconds)
            except subprocess.TimeoutExpired:
                pass
        self._kill_group()
        self._running.wait()
        self._running = None

    def _kill_group(self) -> None:
        assert self._running
        try:
            os.killpg(self._running.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
