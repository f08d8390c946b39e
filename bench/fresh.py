"""Part `fresh`: README's build and test as on a new machine: fresh clone, empty HOME and caches, bare environment."""

from __future__ import annotations

import argparse
import re
import subprocess
import time
from collections import Counter
from pathlib import Path

import commands
import report

COMMANDS = {
    "build": ["build", "//images/...", "//wheels/..."],
    "test": ["test", "//tests/..."],
}
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def received(text: str) -> int:
    """Bytes received on all interfaces except loopback.

    Args:
      text: content of /proc/net/dev.
    """
    lines = (line.partition(":") for line in text.splitlines() if ":" in line)
    return sum(int(numbers.split()[0]) for name, _, numbers in lines if name.strip() != "lo")


def test_counts(text: str) -> dict[str, int]:
    """Status → number of test targets, from the summary that `bazel test` prints."""
    return dict(
        Counter(
            re.findall(
                r"^//\S+ +(?:\(cached\) )?(PASSED|FLAKY|FAILED TO BUILD|FAILED|TIMEOUT|SKIPPED|NO STATUS)",
                text,
                re.MULTILINE,
            )
        )
    )


def measure(workspace: commands.Bazel, options: argparse.Namespace) -> tuple[str, str]:
    """This part's table, and the versions of what was measured."""
    del options
    rows, totals = [], [0.0, 0]
    with commands.scratch() as folder:
        for name in ("home", "cache"):
            (folder / name).mkdir()
        commands.output(["git", "clone", "--quiet", workspace.root, folder / "source"])
        bazel = commands.Bazel(folder / "source")
        environment = {
            "HOME": str(folder / "home"),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "PATH": _PATH,
            "LANG": "C.UTF-8",
            "TERM": "dumb",
        }
        counts: dict[str, int] = {}
        try:
            for arguments in COMMANDS.values():
                commands.say(f"fresh machine: tools/bazel {' '.join(arguments)}")
                before, began = _received(), time.perf_counter()
                done = subprocess.run(
                    bazel.command(*arguments),
                    cwd=bazel.root,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    errors="replace",
                )
                spent, volume = time.perf_counter() - began, _received() - before
                if done.returncode:
                    end = "\n".join(done.stdout.splitlines()[-40:])
                    raise SystemExit(
                        f"bench: on a fresh machine, tools/bazel {' '.join(arguments)}: expected exit status 0, found"
                        f" {done.returncode}\n{end}"
                    )
                rows.append([f"`tools/bazel {' '.join(arguments)}`", report.duration(spent), report.size(volume)])
                totals = [totals[0] + spent, totals[1] + volume]
                counts = test_counts(done.stdout)
            disk = int(
                commands.output(["du", "--summarize", "--total", "--block-size=1", folder / "home", folder / "cache"])
                .splitlines()[-1]
                .split()[0]
            )
            versions = commands.output(bazel.command("--version"), cwd=bazel.root, env=environment).strip()
        finally:
            subprocess.run(
                bazel.command("shutdown"),
                cwd=bazel.root,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
    rows.append(["both", report.duration(totals[0]), report.size(int(totals[1]))])
    text = report.table(["command", "wall time", "received"], rows)
    tests = ", ".join(f"{number} {status}" for status, number in sorted(counts.items()))
    return f"{text}\nTest targets: {tests}. Disk used below HOME and caches: {report.size(disk)}.\n", versions


def _received() -> int:
    return received(Path("/proc/net/dev").read_text(encoding="utf-8"))
