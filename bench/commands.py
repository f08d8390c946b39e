"""Runs and times the programs that are measured, each with its output kept for the case that it fails."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SHOWN_LINES = 40

# What a part says in place of a table where it cannot be measured.
NO_SOURCES = 'Not measured: no sources of mlc-llm here (README.md, "Sources of mlc-llm").'


def say(line: str) -> None:
    """One line of progress, on standard error."""
    print("bench: " + line, file=sys.stderr, flush=True)


def output(command: Sequence[str | Path], **options: Any) -> str:
    """What the command prints on standard output.

    Args:
      command: program and arguments.
      **options: what subprocess.run takes: cwd, env.

    Raises:
      SystemExit: the command failed; the message holds the end of what it printed.
    """
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", **options: Any)
    if done.returncode:
        end = "\n".join((done.stdout + done.stderr).splitlines()[-_SHOWN_LINES:])
        sys.exit(f"bench: expected exit status 0, found {done.returncode}: {' '.join(map(str, command))}\n{end}")
    return done.stdout


def seconds(command: Sequence[str | Path], **options: Any) -> float:
    """Wall time of the command, with the errors of `output`."""
    began = time.perf_counter()
    output(command, **options: Any)
    return time.perf_counter() - began


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder that is gone afterwards, read-only content (Bazel's) included."""
    with tempfile.TemporaryDirectory(prefix="mlc-bench-", ignore_cleanup_errors=True) as folder:
        try:
            yield Path(folder)
        finally:
            subprocess.run(["chmod", "-R", "u+w", folder], stderr=subprocess.DEVNULL)


@dataclass(frozen=True)
class Bazel:
    """tools/bazel of a workspace with an output base.

    Args:
      root: the workspace.
      output_base: None for the workspace's own.
    """

    root: Path
    output_base: Path | None = None

    def command(self, *arguments: str) -> list[str]:
        startup = [f"--output_base={self.output_base}"] if self.output_base else []
        return [str(self.root / "tools/bazel"), *startup, *arguments]

    def output(self, *arguments: str) -> str:
        return output(self.command(*arguments), cwd=self.root)

    def seconds(self, *arguments: str) -> float:
        return seconds(self.command(*arguments), cwd=self.root)

    def repository(self, name: str) -> str:
        """The canonical name of a repository that the workspace calls `name`."""
        return json.loads(self.output("mod", "dump_repo_mapping", ""))[name]

    def compatible(self, target: str) -> bool:
        """Whether the target can be built here: what is made of mlc-llm can where its sources are."""
        expression = "'IncompatiblePlatformProvider' not in providers(target)"
        return self.output("cquery", target, "--output=starlark", f"--starlark:expr={expression}").strip() == "True"

    def listed(self, targets: str, *flags: str) -> list[Path]:
        """The files that the targets make, which need not be there yet.

        Args:
          targets: a query expression.
          *flags: those that the targets are built with.
        """
        base, root = (Path(self.output("info", key).strip()) for key in ("output_base", "execution_root"))
        lines = self.output("cquery", "--output=files", *flags, targets).splitlines()
        return [(base if line.startswith("external/") else root) / line for line in lines]

    def file(self, target: str) -> Path:
        """The one file that the target makes, built now."""
        self.output("build", target)
        (path,) = self.listed(target)
        return path


def workspace() -> Bazel:
    """The workspace that `bazel run` was called in, with the output base that it was called with.

    Raises:
      SystemExit: not started by `bazel run`.
    """
    root = os.environ.get("BUILD_WORKSPACE_DIRECTORY")
    if not root:
        sys.exit("bench: expected to be started by Bazel: tools/bazel run //bench")
    program = Path(os.path.abspath(sys.argv[0]))
    bases = [folder.parent for folder in program.parents if folder.name == "execroot"]
    return Bazel(Path(root), bases[-1] if bases else None)
