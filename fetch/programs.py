"""Runs another program that answers and ends: the one place that bounds its time and what it may say.

A program that talks to a host repeats the host's words for as long as the host goes on. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from fetch import errors

# A question and its answer; and the content of the largest image or file over a slow line.
SECONDS = 600
SECONDS_OF_TRANSFER = 4 * 3600
# Far above any answer that is read as a whole.
MOST_BYTES = 32 << 20
# What is kept of standard error; the rest is read and dropped.
_MOST_MESSAGES = 1 << 20
_CHUNK = 1 << 16
# How long a program may take to end once it is told to.
_SECONDS_TO_END = 10


class ProgramError(Exception):
    """A program cannot start, fails, takes too long or says too much; the message is one line.

    Attributes:
        said: what it wrote on standard error, or why it was stopped.
        status: its exit status, or None if it did not end by itself.
        output: what it wrote on standard output.
    """

    def __init__(self, said: str, status: int | None = None, output: str = "") -> None:
        self.said, self.status, self.output = said, status, output
        super().__init__(errors.one_line(said, 1000) or f"exit status {status}, and no reason given")


def run(
    command: Sequence[str],
    *,
    seconds: float = SECONDS,
    most: int = MOST_BYTES,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    given: str = "",
    may_ask: bool = False,
    accepted: Collection[int] = (0,),
    sink: Callable[[bytes], None] | None = None,
) -> str:
    """Runs a program and returns its standard output.

    Args:
        command: the program and its arguments.
        seconds: the time it may take.
        most: the bytes that it may write on standard output.
        environment: its variables, instead of ours.
        folder: where it runs.
        given: its standard input.
        may_ask: let it read from the terminal, if there is one; for passwords.
        accepted: exit statuses that are no error.
        sink: gets standard output piece by piece, which is then not returned.

    Raises:
        ProgramError: it cannot start, ends in another way, takes longer or writes more.
    """
    asks = may_ask and bool(sys.stdin) and sys.stdin.isatty()
    name = os.path.basename(command[0])
    try:
        process = subprocess.Popen(
            [*command],
            cwd=folder,
            env=environment,
            stdin=None if asks else subprocess.PIPE if given else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Its children end with it; a terminal's keys reach only our own group.
            start_new_session=not asks,
        )
    except OSError as error:
        raise ProgramError(f"cannot start {command[0]}: {error.strerror or error}") from None
    try:
        output, messages = _read(process, name, given, seconds, most, sink)
    except BaseException:
        _stop(process, group=not asks)
        raise
    finally:
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()
    text = output.decode(errors="replace")
    if process.returncode not in accepted:
        raise ProgramError(messages.decode(errors="replace"), process.returncode, text)
    return text


def interrupt_on_signals() -> None:
    """Makes SIGTERM and SIGHUP, which a closed terminal sends, raise KeyboardInterrupt as SIGINT does.

    Programs that `run` has started then end too, and secrets are removed.
    """
    for each in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(each) != signal.SIG_IGN:  # nohup
            signal.signal(each, signal.default_int_handler)


def _read(
    process: subprocess.Popen[bytes],
    name: str,
    given: str,
    seconds: float,
    most: int,
    sink: Callable[[bytes], None] | None,
) -> tuple[bytes, bytes]:
    """What a process writes on standard output, unless `sink` gets it, and on standard error, until it ends."""
    end = time.monotonic() + seconds
    late = ProgramError(f"{name}: did not end within {seconds:g} s")
    assert process.stdout and process.stderr
    if process.stdin:
        # Less than a pipe holds; a program that does not read it has ended.
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(given.encode())
            process.stdin.close()
    output, messages, count = bytearray(), bytearray(), 0
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        selector.register(process.stderr, selectors.EVENT_READ)
        while selector.get_map():
            ended = process.poll() is not None
            ready = selector.select(0.1 if ended else min(0.1, max(0, end - time.monotonic())))
            if not ready and ended and not _has_children(process):
                break  # A daemon that it left behind, such as a helper's agent, holds the pipes.
            if time.monotonic() >= end:
                raise late
            for key, _ in ready:
                chunk = os.read(key.fd, _CHUNK)
                if not chunk:
                    selector.unregister(key.fileobj)
                elif key.fileobj is process.stderr:
                    messages += chunk[: _MOST_MESSAGES - len(messages)]
                else:
                    count += len(chunk)
                    if count > most:
                        raise ProgramError(f"{name}: wrote more than {most} bytes")
                    if sink:
                        sink(chunk)
                    else:
                        output += chunk
    try:
        process.wait(max(0, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise late from None
    return bytes(output), bytes(messages)


def _has_children(process: subprocess.Popen[bytes]) -> bool:
    """Whether a process that has ended left others in its group, as a wrapper does. Daemons have their own."""
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _stop(process: subprocess.Popen[bytes], *, group: bool) -> None:
    """Ends a process, and with `group` its children."""

    def send(number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            if group:
                os.killpg(process.pid, number)
            else:
                process.send_signal(number)

    send(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_SECONDS_TO_END)
    send(signal.SIGKILL)
    process.wait()
