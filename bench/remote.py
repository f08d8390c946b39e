"""Part `remote`: the wheels and the image of TVM's runtime, built locally and by workers; and, on paper, by many more
workers.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import json
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import commands
import report

TARGETS = ["//wheels/tvm_ffi", "//wheels/tvm", "//images/tvm_runtime"]
ON_PAPER = (1, 2, 16, 64, 256)

_STARTING = 180  # seconds


@dataclass(frozen=True)
class Action:
    """An action that ran.

    Args:
      seconds: wall time of its program.
      needs: indices of the actions whose outputs it reads.
    """

    seconds: float
    needs: frozenset[int]


def _seconds(text: str | None) -> float:
    """Parses a duration in Protobuf's JSON format, such as `1.5s`."""
    return float(text.removesuffix("s")) if text else 0.0


def entries(text: str) -> Iterator[dict]:
    """The concatenated JSON objects of a --execution_log_json_file."""
    decoder, position = json.JSONDecoder(), 0
    while found := re.compile(r"\S").search(text, position):
        entry, position = decoder.raw_decode(text, found.start())
        yield entry


def graph(log: Iterable[Mapping]) -> list[Action]:
    """The actions of an execution log with their dependencies.

    The log omits what Bazel does itself, such as symlinks. So an input that matches no action's output by path is
    looked up by digest.
    """
    log = list(log)
    makers: dict[str, int] = {}
    by_digest: dict[str, int] = {}
    for number, entry in enumerate(log):
        for output in entry.get("actualOutputs", []):
            makers[output["path"]] = number
            if digest := output.get("digest", {}).get("hash"):
                by_digest.setdefault(digest, number)
    actions = []
    for number, entry in enumerate(log):
        needs = set()
        for each in entry.get("inputs", []):
            maker = makers.get(each["path"])
            if maker is None and "bazel-out/" in each["path"]:
                maker = by_digest.get(each.get("digest", {}).get("hash", ""))
            if maker is not None and maker != number:
                needs.add(maker)
        actions.append(Action(_seconds(entry.get("metrics", {}).get("executionWallTime")), frozenset(needs)))
    return actions


def _order(actions: Sequence[Action]) -> list[int]:
    """Indices in topological order: every action after those it needs."""
    waiting = [len(action.needs) for action in actions]
    followers = _followers(actions)
    ready = [number for number, count in enumerate(waiting) if not count]
    for number in ready:  # Grows during the loop.
        for follower in followers[number]:
            waiting[follower] -= 1
            if not waiting[follower]:
                ready.append(follower)
    if len(ready) != len(actions):
        raise ValueError("expected actions without a cycle, found a cycle")
    return ready


def _followers(actions: Sequence[Action]) -> list[list[int]]:
    followers: list[list[int]] = [[] for _ in actions]
    for number, action in enumerate(actions):
        for needed in action.needs:
            followers[needed].append(number)
    return followers


def ranks(actions: Sequence[Action], overhead: float = 0) -> list[float]:
    """Seconds from the start of each action to the end of the build with unlimited workers; the maximum is the critical
    path.

    Args:
      actions: from `graph`.
      overhead: seconds to add to each action.
    """
    followers = _followers(actions)
    found = [0.0] * len(actions)
    for number in reversed(_order(actions)):
        found[number] = (
            actions[number].seconds + overhead + max((found[each] for each in followers[number]), default=0.0)
        )
    return found


def schedule(actions: Sequence[Action], workers: int, overhead: float = 0) -> float:
    """Build time in seconds by list scheduling: a free worker takes the ready action with the longest path to the end,
    one at a time.

    Args:
      actions: from `graph`.
      workers: number of workers.
      overhead: seconds to add to each action.
    """
    rank = ranks(actions, overhead)
    followers = _followers(actions)
    waiting = [len(action.needs) for action in actions]
    ready = [(-rank[number], number) for number, count in enumerate(waiting) if not count]
    heapq.heapify(ready)
    running: list[tuple[float, int]] = []
    now = 0.0
    while ready or running:
        while ready and len(running) < workers:
            _, number = heapq.heappop(ready)
            heapq.heappush(running, (now + actions[number].seconds + overhead, number))
        now, done = heapq.heappop(running)
        for follower in followers[done]:
            waiting[follower] -= 1
            if not waiting[follower]:
                heapq.heappush(ready, (-rank[follower], follower))
    return now


def loopback_bytes(text: str) -> int:
    """Bytes carried by the loopback interface so far.

    Args:
      text: content of /proc/net/dev.
    """
    found = re.search(r"^\s*lo:\s*(\d+)", text, re.MULTILINE)
    if not found:
        raise ValueError(f"expected the interface lo, found none in:\n{text}")
    return int(found[1])


def _carried() -> int:
    return loopback_bytes(Path("/proc/net/dev").read_text(encoding="ascii"))


@contextlib.contextmanager
def _service(script: Path, state: Path, workers: int) -> Iterator[list[str]]:
    """Runs //tools/remote:up with this state folder; yields the flags to connect to it."""
    log = state.with_name(f"{state.name}.log")
    with log.open("wb") as file:
        process = subprocess.Popen(
            [script, f"--state={state}", "--port=0", f"--workers={workers}"], stdout=file, stderr=file
        )
    try:
        began = time.monotonic()
        while not (found := re.search(r"--remote_executor=\S+", log.read_text())):
            if process.poll() is not None or time.monotonic() - began > _STARTING:
                raise SystemExit(f"bench: expected the service to start, found:\n{log.read_text()}")
            time.sleep(0.2)
        yield ["--config=remote", found[0]]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def paper(actions: Sequence[Action], overhead: float) -> str:
    """The table of build times by number of workers."""
    rows = []
    for workers in ON_PAPER:
        bare, loaded = schedule(actions, workers), schedule(actions, workers, overhead)
        rows.append(
            [
                str(workers),
                report.duration(bare),
                report.duration(loaded),
                report.ratio(schedule(actions, 1, overhead), loaded),
            ]
        )
    path, loaded = max(ranks(actions)), max(ranks(actions, overhead))
    rows.append(
        [
            "any number (critical path)",
            report.duration(path),
            report.duration(loaded),
            report.ratio(schedule(actions, 1, overhead), loaded),
        ]
    )
    return report.table(
        ["workers, on paper", "actions alone", "with the overhead of each", "times faster than 1"], rows
    )


def measure(workspace: commands.Bazel, options: argparse.Namespace) -> tuple[str, str]:
    """This part's tables, and the versions of what was measured."""
    rows: list[tuple[float, list[str]]] = []
    with commands.scratch() as folder:
        script = folder / "up"
        commands.say("building //tools/remote:up (not timed)")
        workspace.output("run", f"--script_path={script}", "//tools/remote:up")
        first = commands.Bazel(workspace.root, folder / "output_base")
        copy = folder / "checkout"
        shutil.copytree(workspace.root, copy, symlinks=True, ignore=shutil.ignore_patterns("bazel-*", ".git"))
        second = commands.Bazel(copy, folder / "second_output_base")
        try:
            commands.say("fetching and unpacking what the build needs (not timed)")
            first.output("build", "--nobuild", *TARGETS)
            log = folder / "log.json"
            flags = ["--disk_cache=", f"--execution_log_json_file={log}"]

            def build(bazel: commands.Bazel, what: str, *more: str) -> tuple[float, list[Action]]:
                commands.say(what)
                bazel.output("clean")
                before = _carried()
                seconds = bazel.seconds("build", *flags, *more, *TARGETS)
                carried = _carried() - before
                actions = graph(entries(log.read_text(encoding="utf-8")))
                log.unlink()
                base = rows[0][0] if rows else seconds
                rows.append(
                    (seconds, [what, report.duration(seconds), report.ratio(seconds, base), report.size(carried)])
                )
                return seconds, actions

            _, actions = build(first, "here, without a cache", "--remote_executor=", "--remote_cache=")
            rows[0][1][3] = "none"  # This build used no loopback traffic.
            with _service(script, folder / "one", 1) as reach:
                alone, _ = build(first, "by one worker, nothing cached", *reach)
            shutil.rmtree(folder / "one")
            with _service(script, folder / "two", 2) as reach:
                cold, _ = build(first, "by two workers, nothing cached", *reach)
                first.output("shutdown")
                second.output("build", "--nobuild", *TARGETS)
                cached, _ = build(second, "a second checkout, all cached", *reach)
        finally:
            for bazel in (first, second):
                bazel.output("shutdown")
    # One worker runs one action at a time, so the time beyond the actions' own is for sending, staging and fetching.
    overhead = max(0.0, alone - sum(action.seconds for action in actions)) / len(actions)
    measured = report.table(
        ["clean build of " + ", ".join(f"`{target}`" for target in TARGETS), "time", "to the first", "transferred"],
        [row for _, row in rows],
    )
    text = f"""{measured}
With the cache, a second checkout takes {cached / cold:.1%} of the time of two workers. \
The table on paper uses the {len(actions)} actions as they ran here:
{report.duration(sum(action.seconds for action in actions))} in total, plus {report.duration(overhead)} each \
for sending, staging and fetching, the time that one worker took beyond that.

{paper(actions, overhead)}"""
    return text, workspace.output("--version").strip()
