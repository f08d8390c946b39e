"""A release build says which commit it is of and who builds it, and is of a commit and nothing else."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

import pytest

from oci import status
from tools import workspace_status

GIT_ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "GIT_CONFIG_GLOBAL": os.devnull,
    **{f"GIT_{who}_{what}": "t@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
}


@pytest.fixture
def checkout(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "file").write_text("a")
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message=m"]):
        subprocess.run(["/usr/bin/git", "-C", str(tmp_path), *command], env=GIT_ENVIRONMENT, check=True)
    return tmp_path


def run(folder: pathlib.Path, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, workspace_status.__file__]
    return subprocess.run(command, cwd=folder, env={**GIT_ENVIRONMENT, **environment}, capture_output=True, text=True)


def test_a_clean_checkout_gives_its_commit_and_a_workstation(
    checkout: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    done = run(checkout)
    assert done.returncode == 0, done.stderr
    written = tmp_path_factory.mktemp("status") / "stable-status.txt"
    written.write_text(done.stdout)
    assert re.fullmatch("[0-9a-f]{40}", status.value(written, status.REVISION))
    assert status.value(written, status.BUILDER) == "urn:mlc-bazel:workstation"


def test_a_workflow_is_the_builder_where_one_runs(checkout: pathlib.Path) -> None:
    workflow = "owner/repository/.github/workflows/main.yml@refs/tags/v0.1.0"
    done = run(checkout, GITHUB_SERVER_URL="https://github.com", GITHUB_WORKFLOW_REF=workflow)
    assert f"STABLE_BUILDER_ID https://github.com/{workflow}\n" in done.stdout


@pytest.mark.parametrize("name", ["file", "untracked"])
def test_a_checkout_with_changes_is_no_release(checkout: pathlib.Path, name: str) -> None:
    (checkout / name).write_text("b")
    done = run(checkout)
    assert (done.returncode, done.stdout) == (1, "")
    assert "a release is built from a commit" in done.stderr and name in done.stderr


def test_without_a_checkout_there_is_no_release(tmp_path: pathlib.Path) -> None:
    done = run(tmp_path, GIT_CEILING_DIRECTORIES=str(tmp_path.parent))
    assert (
        done.returncode == 1 and "Build a release in a git checkout" in done.stderr and "Traceback" not in done.stderr
    )


def test_a_copy_in_an_ignored_folder_of_another_checkout_is_no_release(checkout: pathlib.Path) -> None:
    """Git would call it clean, and give the other one's commit."""
    (checkout / ".git/info/exclude").write_text("/copy/\n")
    (checkout / "copy").mkdir()
    done = run(checkout / "copy")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"expected a git checkout, found a folder in the checkout {checkout.resolve()}" in done.stderr


def test_a_build_that_is_not_stamped_says_so() -> None:
    assert status.value(None, status.REVISION) == status.value(None, status.BUILDER) == "unstamped"


@pytest.mark.parametrize("text", ["", "STABLE_REVISION\n", "STABLE_REVISION \n", "OTHER x\n"])
def test_a_stamp_without_the_value_is_an_error(tmp_path: pathlib.Path, text: str) -> None:
    (tmp_path / "status").write_text(text)
    with pytest.raises(status.StatusError, match="no STABLE_REVISION: build with --config=release"):
        status.value(tmp_path / "status", status.REVISION)
