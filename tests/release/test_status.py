"""A release build says which commit it is of and who builds it, and is of a commit and nothing else."""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Callable

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


def test_a_clean_checkout_gives_its_commit_and_nothing_that_cannot_be_shown(
    checkout: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    done = run(checkout)
    assert done.returncode == 0, done.stderr
    written = tmp_path_factory.mktemp("status") / "stable-status.txt"
    written.write_text(done.stdout)
    assert re.fullmatch("[0-9a-f]{40}", status.value(written, status.REVISION))
    assert status.value(written, status.BUILDER) == "urn:mlc-bazel:unverified"
    # This test is no Bazel server.
    assert status.value(written, status.BAZEL) == "urn:mlc-bazel:unverified"
    assert status.value(written, status.BAZEL_LOCKED) == "no"


def test_a_bazel_is_locked_if_it_was_installed_from_what_the_lock_pins(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lock = {"packages": {"forky/bazel": {"sha256": "1" * 64}}, "wheels": {"jdk.whl": {"sha256": "2" * 64}}}
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks/bazel.lock.json").write_text(json.dumps(lock))
    (tmp_path / "manifest.json").write_text(json.dumps(lock))
    folder = str(tmp_path)
    monkeypatch.setattr(workspace_status.builder, "install_base", lambda process: f"{folder}/usr/share/bazel")
    assert workspace_status._bazel_locked() == "yes"
    lock["wheels"]["jdk.whl"]["sha256"] = "3" * 64
    (tmp_path / "manifest.json").write_text(json.dumps(lock))
    assert workspace_status._bazel_locked() == "no"
    (tmp_path / "manifest.json").unlink()
    assert workspace_status._bazel_locked() == "no"
    # Bazelisk's.
    monkeypatch.setattr(workspace_status.builder, "install_base", lambda process: "/home/me/.cache/bazel/install/0a1b")
    assert workspace_status._bazel_locked() == "no"


def test_variables_do_not_make_a_workflow_the_builder(checkout: pathlib.Path) -> None:
    """Anyone can set them."""
    workflow = "owner/repository/.github/workflows/main.yml@refs/tags/v0.1.0"
    done = run(checkout, GITHUB_ACTIONS="true", GITHUB_SERVER_URL="https://github.com", GITHUB_WORKFLOW_REF=workflow)
    assert "STABLE_BUILDER_ID urn:mlc-bazel:unverified\n" in done.stdout


def test_a_token_from_elsewhere_is_no_release(checkout: pathlib.Path) -> None:
    done = run(
        checkout,
        ACTIONS_ID_TOKEN_REQUEST_URL="http://127.0.0.1:9/token?a=b",
        ACTIONS_ID_TOKEN_REQUEST_TOKEN="bearer-secret",
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "cannot verify the workflow's token" in done.stderr and "bearer-secret" not in done.stderr


def git(folder: pathlib.Path, *words: str) -> None:
    subprocess.run(["/usr/bin/git", "-C", str(folder), *words], env=GIT_ENVIRONMENT, check=True)


def write(folder: pathlib.Path, **files: str) -> None:
    for name, text in files.items():
        (folder / name).write_text(text)


def hide_by_flag(folder: pathlib.Path, flag: str) -> None:
    git(folder, "update-index", flag, "file")
    write(folder, file="b")


def hide_by_filter(folder: pathlib.Path) -> None:
    """A filter of the checkout shows git the committed content."""
    (folder / ".git/info/attributes").write_text("file filter=hide\n")
    git(folder, "config", "filter.hide.clean", "printf a; true")
    write(folder, file="b")


def hide_by_stat(folder: pathlib.Path) -> None:
    """Git believes size and time, as the checkout's settings say."""
    git(folder, "config", "core.trustctime", "false")
    git(folder, "config", "core.checkStat", "minimal")
    os.utime(folder / "file", (1_000_000_000, 1_000_000_000))
    git(folder, "update-index", "--refresh")
    write(folder, file="b")
    os.utime(folder / "file", (1_000_000_000, 1_000_000_000))


def hide_by_a_gitignore_that_ignores_itself(folder: pathlib.Path) -> None:
    (folder / "hidden").mkdir()
    (folder / "hidden/.gitignore").write_text("*\n")
    (folder / "hidden/BUILD.bazel").write_text("")


def hide_by_exclude(folder: pathlib.Path) -> None:
    (folder / ".git/info/exclude").write_text("/untracked\n")
    write(folder, untracked="b")


def hide_by_replacing_the_commit(folder: pathlib.Path) -> None:
    """Git shows another commit's files under the name of this one."""
    write(folder, file="b")
    git(folder, "commit", "--quiet", "--all", "--message=n")
    git(folder, "reset", "--quiet", "--soft", "HEAD~")
    git(folder, "replace", "HEAD", "ORIG_HEAD")


def stage(folder: pathlib.Path) -> None:
    write(folder, new="b")
    git(folder, "add", "new")


def become_a_link(folder: pathlib.Path) -> None:
    (folder / "other").write_text("a")
    (folder / "file").unlink()
    (folder / "file").symlink_to("other")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda folder: write(folder, file="b"), "file"),
        (lambda folder: write(folder, untracked="b"), "untracked"),
        (lambda folder: (folder / "file").unlink(), "file"),
        (lambda folder: (folder / "file").chmod(0o755), "file"),
        (become_a_link, "file"),
        (stage, "new"),
        (lambda folder: hide_by_flag(folder, "--assume-unchanged"), "file"),
        (lambda folder: hide_by_flag(folder, "--skip-worktree"), "file"),
        (hide_by_filter, "file"),
        (hide_by_stat, "file"),
        (hide_by_exclude, "untracked"),
        (hide_by_a_gitignore_that_ignores_itself, "hidden/"),
        (hide_by_replacing_the_commit, "file"),
    ],
    ids=(
        "changed untracked deleted mode link staged assume-unchanged skip-worktree filter stat exclude gitignore"
        " replace"
    ).split(),
)
def test_a_checkout_with_changes_is_no_release(
    checkout: pathlib.Path, change: Callable[[pathlib.Path], None], named: str
) -> None:
    change(checkout)
    done = run(checkout)
    assert (done.returncode, done.stdout) == (1, "")
    assert "a release is built from a commit" in done.stderr and named in done.stderr


def test_what_the_commits_own_gitignore_names_is_no_change(checkout: pathlib.Path) -> None:
    write(checkout, **{".gitignore": "/bazel-*\n"})
    git(checkout, "add", ".gitignore")
    git(checkout, "commit", "--quiet", "--message=n")
    (checkout / "bazel-bin").symlink_to("elsewhere")
    done = run(checkout)
    assert done.returncode == 0, done.stderr


def test_no_program_of_the_checkouts_settings_runs(
    checkout: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    ran = tmp_path_factory.mktemp("ran") / "ran"
    program = ran.with_name("program")
    program.write_text(f"#!/bin/sh\necho $0 >> {ran}\n")
    program.chmod(0o755)
    git(checkout, "config", "core.fsmonitor", str(program))
    git(checkout, "config", "core.hooksPath", str(program.parent))
    git(checkout, "config", "filter.f.clean", str(program))
    (checkout / ".git/info/attributes").write_text("* filter=f\n")
    assert run(checkout).returncode == 0
    assert not ran.exists()


def test_variables_do_not_point_git_elsewhere(checkout: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    git(other, "init", "--quiet")
    write(checkout, file="b")
    done = run(checkout, GIT_DIR=str(other / ".git"), GIT_WORK_TREE=str(other))
    assert done.returncode == 1 and "differ from it:\nfile\n" in done.stderr


def test_without_a_checkout_there_is_no_release(tmp_path: pathlib.Path) -> None:
    done = run(tmp_path)
    # The folder of tests is in the checkout that is built where a test builds all of it again, as the proofs do.
    assert re.search(r"Build a release in a (git checkout|clone)\.$", done.stderr.strip()), done.stderr
    assert done.returncode == 1 and "Traceback" not in done.stderr


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
