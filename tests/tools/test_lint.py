"""//tools:lint finds every kind of fault, //tools:format fixes style; both only read files that git tracks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.lint import lint

WORKSPACE = Path.cwd()
SETTINGS = WORKSPACE / os.environ["SETTINGS"]
# Only //tests/tools:go_linters has the linters written in Go.
GO = {name: WORKSPACE / os.environ[name.upper()] for name in ("actionlint", "buildifier") if name.upper() in os.environ}
PROGRAMS = lint.Programs(
    environment=WORKSPACE / os.environ["ENVIRONMENT"],
    buildifier=GO.get("buildifier", Path("/nonexistent/buildifier")),
    actionlint=GO.get("actionlint", Path("/nonexistent/actionlint")),
)

CLEAN = "def double(number: int) -> int:\n    return 2 * number\n"
CLEAN_BUILD = 'filegroup(\n    name = "one",\n    srcs = ["one.txt"],\n)\n'
CLEAN_WORKFLOW = """\
on: push
permissions: {}
jobs:
  one:
    runs-on: ubuntu-24.04
    steps:
      - run: echo one
"""
WORKFLOW = ".github/workflows/one.yml"

# Tool, file, content, and alternatives for what the report must contain.
PYTHON_FAULTS = [
    ("ruff imports", "one.py", "import sys\nimport os\n\nprint(os, sys)\n", "Organize imports|I001"),
    ("ruff format", "one.py", "x = [1,2]\n", "+x = [1, 2]"),
    ("ruff", "one.py", "def one() -> None:\n    print(missing)\n", "F821"),
    ("ruff", "one.py", f"ONE = 1  # {'long ' * 24}\n", "E501"),
    ("mypy", "one.py", "def one(two):\n    return two\n", "no-untyped-def"),
    ("mypy", "one.py", 'ONE: int = "one"\n', "assignment"),
    ("mypy", "one.py", "import yaml\n\nONE: int = yaml.safe_dump([])\n", "assignment|no-any-return"),
    ("codespell", "one.md", "Recieve it.\n", "==> Receive"),  # codespell:ignore
    ("shellcheck", "one.sh", "#!/bin/sh\necho $1\n", "SC2086"),
    ("ruff", "one.py", "import os\n\nos.system('true')\n", "S605"),
    ("ruff", "one.py", "import hashlib\n\nONE = hashlib.md5(b'')\n", "S324"),
    ("zizmor", WORKFLOW, CLEAN_WORKFLOW.replace("echo one", "echo ${{ github.head_ref }}"), "template-injection"),
    ("zizmor", WORKFLOW, CLEAN_WORKFLOW.replace("permissions: {}\n", ""), "excessive-permissions"),
    ("shellcheck", "one", "#!/usr/bin/env bash\nfor i in *; do rm $i; done\n", "SC2086"),
]
GO_FAULTS = [
    ("buildifier", "BUILD.bazel", 'filegroup(name="one",srcs=["one.txt"])\n', "BUILD.bazel # reformat"),
    ("buildifier lint", "one.bzl", 'load(":two.bzl", "two")\n', "unused"),
    ("actionlint", WORKFLOW, CLEAN_WORKFLOW.replace("runs-on", "runs-at"), "runs-at"),
    ("actionlint", WORKFLOW, CLEAN_WORKFLOW.replace("echo one", "echo $GITHUB_SHA"), "SC2086"),
]
FAULTS = GO_FAULTS if GO else PYTHON_FAULTS
CLEAN_FILES = (
    {"BUILD.bazel": CLEAN_BUILD, WORKFLOW: CLEAN_WORKFLOW}
    if GO
    else {"one.py": CLEAN, "one.md": "Receive it.\n", "one.sh": '#!/bin/sh\necho "$1"\n'}
)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_bytes(SETTINGS.read_bytes())
    return tmp_path


def write(workspace: Path, file: str, content: str) -> None:
    path = workspace / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def check(workspace: Path, *files: str, name: str = "") -> bool:
    """Runs the tool of this name, or all available tools, on the files."""
    tools = lint.formatters(PROGRAMS, check=True) + lint.linters(PROGRAMS)
    return lint.run([tool for tool in tools if name in ("", tool.name)], files, workspace, PROGRAMS.environment)


@pytest.mark.parametrize(("tool", "file", "content", "named"), FAULTS)
def test_a_fault_is_reported(
    tool: str, file: str, content: str, named: str, workspace: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write(workspace, file, content)
    assert not check(workspace, file, name=tool)
    output = capfd.readouterr().out
    assert any(part in output for part in named.split("|")), output
    assert "FINDINGS (1 files)" in output
    assert (workspace / file).read_text(encoding="utf-8") == content, "linting changed the file"


def test_no_settings_of_folders_above_count(workspace: Path) -> None:
    write(workspace, ".shellcheckrc", "disable=all\n")
    write(workspace, "inside/one.sh", "#!/bin/sh\necho $1\n")
    assert not check(workspace / "inside", "one.sh", name="shellcheck")


def test_clean_files_are_clean(workspace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for file, content in CLEAN_FILES.items():
        write(workspace, file, content)
    assert check(workspace, *CLEAN_FILES)
    assert "FINDINGS" not in capfd.readouterr().out


@pytest.mark.parametrize(
    ("tool", "file", "content"),
    [fault[:3] for fault in FAULTS if fault[0] in ("ruff imports", "ruff format", "buildifier")],
)
def test_formatting_removes_faults_of_style(tool: str, file: str, content: str, workspace: Path) -> None:
    write(workspace, file, content)
    assert lint.run(lint.formatters(PROGRAMS, check=False), [file], workspace, PROGRAMS.environment)
    assert (workspace / file).read_text(encoding="utf-8") != content
    assert lint.run(lint.formatters(PROGRAMS, check=True), [file], workspace, PROGRAMS.environment)


def test_only_files_that_git_tracks_are_taken(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in ("tracked.py", "untracked.py"):
        write(workspace, file, CLEAN)
    (workspace / "link.py").symlink_to("tracked.py")
    # A test must not use the machine's git, so this one imitates it.
    git = workspace / "bin/git"
    git.parent.mkdir()
    git.write_text(
        "#!/bin/sh\n[ \"$*\" = 'ls-files -z' ] && printf 'tracked.py\\0link.py\\0deleted.py\\0'\n", encoding="utf-8"
    )
    git.chmod(0o755)
    monkeypatch.setenv("PATH", str(git.parent))
    assert lint.tracked(workspace) == ["tracked.py"]


def test_a_file_outside_is_refused(workspace: Path) -> None:
    write(workspace, "inside/one.py", CLEAN)
    write(workspace, "one.py", CLEAN)
    assert lint.named([workspace / "inside/one.py"], workspace / "inside") == ["one.py"]
    with pytest.raises(SystemExit, match="expected a file in"):
        lint.named([workspace / "one.py"], workspace / "inside")


@pytest.mark.parametrize(
    ("path", "first_line", "kinds"),
    [
        ("tools/bazel", b"#!/bin/sh\n", "python"),
        ("tests/gpu/run", b"#!/bin/sh\n", "shell"),
        (".ci/run", b"#!/usr/bin/env bash\n", "shell"),
        ("bench/gpu/run", b"#!/usr/bin/env python3\n", "python"),
        ("MODULE.bazel", b"", "starlark"),
        ("third_party/tvm/tvm.BUILD.bazel", b"", "starlark"),
        ("WORKSPACE.bzlmod", b"", ""),
        (".github/workflows/main.yml", b"", "workflow automation"),
        (".github/actions/prepare/action.yml", b"", "automation"),
        (".github/dependabot.yml", b"", "automation"),
        (".github/zizmor.yml", b"", ""),
        (".github/ISSUE_TEMPLATE/bug_report.yml", b"", ""),
    ],
)
def test_a_file_goes_to_the_tools_of_its_kind(path: str, first_line: bytes, kinds: str) -> None:
    takes = {
        "python": lint.is_python,
        "shell": lint.is_shell,
        "starlark": lint.is_starlark,
        "workflow": lint.is_workflow,
        "automation": lint.is_automation,
    }
    assert [kind for kind, take in takes.items() if take(path, first_line)] == kinds.split()


def test_help_names_both_commands() -> None:
    done = subprocess.run([sys.executable, lint.__file__, "--help"], stdout=subprocess.PIPE, text=True, check=True)
    assert "//tools:format" in done.stdout and "//tools:lint" in done.stdout and "--check" in done.stdout
