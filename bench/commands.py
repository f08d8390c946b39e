"""Runs and times programs, and shows their output if they fail."""

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

# Stands in for the table of a part that needs mlc-llm's sources.
NO_SOURCES = 'Not measured: mlc-llm\'s sources are missing (README.md, "Sources of mlc-llm").'


def say(line: str) -> None:
    """Prints a line of progress to standard error."""
    print("bench: " + line, file=sys.stderr, flush=True)


def output(command: Sequence[str | Path], **options: Any) -> str:
    """What the command prints on standard output.

    Args:
      command: program and arguments.
      **options: for subprocess.run: cwd, env, timeout.

    Raises:
      SystemExit: the command failed; the message ends with its last lines of output.
    """
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        **options,
    )
    if done.returncode:
        end = "\n".join((done.stdout + done.stderr).splitlines()[-_SHOWN_LINES:])
        sys.exit(f"bench: expected exit status 0, found {done.returncode}: {' '.join(map(str, command))}\n{end}")
    return done.stdout


def seconds(command: Sequence[str | Path], **options: Any) -> float:
    """Wall time of the command; raises like `output`."""
    began = time.perf_counter()
    output(command, **options)
    return time.perf_counter() - began


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A temporary folder, removed afterwards even if Bazel left read-only files in it."""
    with tempfile.TemporaryDirectory(prefix="mlc-bench-", ignore_cleanup_errors=True) as folder:
        try:
            yield Path(folder)
        finally:
            subprocess.run(["chmod", "-R", "u+w", folder], stderr=subprocess.DEVNULL)


@dataclass(frozen=True)
class Bazel:
    """tools/bazel of a workspace, with an output base.

    Args:
      root: the workspace.
      output_base: None for the workspace's default.
    """

    root: Path
    output_base: Path | None = None

    @property
    def external(self) -> Path:
        """Folder of the external repositories in the output base."""
        base = self.output_base or Path(self.output("info", "output_base").strip())
        return base / "external"

    def command(self, *arguments: str) -> list[str]:
        """The command line."""
        startup = [f"--output_base={self.output_base}"] if self.output_base else []
        return [str(self.root / "tools/bazel"), *startup, *arguments]

    def output(self, *arguments: str) -> str:
        """Standard output of the command."""
        return output(self.command(*arguments), cwd=self.root)

    def seconds(self, *arguments: str) -> float:
        """Wall time of the command."""
        return seconds(self.command(*arguments), cwd=self.root)

    def repository(self, name: str) -> str:
        """Canonical name of the repository that the workspace calls `name`."""
        return json.loads(self.output("mod", "dump_repo_mapping", ""))[name]

    def compatible(self, target: str) -> bool:
        """Whether the target can be built here; targets of mlc-llm need its sources."""
        expression = "'IncompatiblePlatformProvider' not in providers(target)"
        return self.output("cquery", target, "--output=starlark", f"--starlark:expr={expression}").strip() == "True"

    def listed(self, targets: str, *flags: str) -> list[Path]:
        """The outputs of the targets, whether or not they are built.

        Args:
          targets: a query expression.
          *flags: flags of their build.
        """
        base, root = (Path(self.output("info", key).strip()) for key in ("output_base", "execution_root"))
        lines = self.output("cquery", "--output=files", *flags, targets).splitlines()
        return [(base if line.startswith("external/") else root) / line for line in lines]

    def file(self, target: str) -> Path:
        """Builds the target and returns its only output."""
        self.output("build", target)
        (path,) = self.listed(target)
        if path.is_dir() and len(wheels := list(path.glob("*.whl"))) == 1:
            return wheels[0]
        return path


def workspace() -> Bazel:
    """The workspace and output base of the `bazel run` that started this program.

    Raises:
      SystemExit: `bazel run` did not start it.
    """
    root = os.environ.get("BUILD_WORKSPACE_DIRECTORY")
    if not root:
        sys.exit("bench: expected to be started by Bazel: tools/bazel run //bench")
    program = Path(os.path.abspath(sys.argv[0]))
    bases = [folder.parent for folder in program.parents if folder.name == "execroot"]
    return Bazel(Path(root), bases[-1] if bases else None)
