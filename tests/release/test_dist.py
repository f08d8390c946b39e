"""The folder of a release has every given file under its own name, sums that anyone can check, and nothing else."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Sequence

import pytest

from release.private import dist, publish

COMMIT = "0123456789abcdef0123456789abcdef01234567"

# Runs the program with these arguments.
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: pathlib.Path) -> Run:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a/thing.whl").write_bytes(b"\0\1\n" * 1000)
    (tmp_path / "b/notes.md").write_text("notes\n")
    (tmp_path / "b/Zed.json").write_text("{}")
    (tmp_path / "b/link.txt").symlink_to(tmp_path / "b/notes.md")
    (tmp_path / "status.txt").write_text(f"BUILD_EMBED_LABEL \nSTABLE_REVISION {COMMIT}\n")

    def start(*files: str, options: Sequence[str] = (), output: str = "dist") -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            dist.__file__,
            f"--output={tmp_path / output}",
            "--version=0.1.0",
            *options,
            *(str(tmp_path / file) for file in files),
        ]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    return start


FILES = ("b/notes.md", "a/thing.whl", "b/Zed.json", "b/link.txt")


def test_every_file_and_its_sum(run: Run, tmp_path: pathlib.Path) -> None:
    done = run(*FILES)
    assert (done.returncode, done.stderr) == (0, "")
    folder = tmp_path / "dist"
    assert sorted(path.name for path in folder.iterdir()) == [
        "SHA256SUMS",
        "Zed.json",
        "link.txt",
        "notes.md",
        "release.json",
        "thing.whl",
    ]
    assert (folder / "thing.whl").read_bytes() == b"\0\1\n" * 1000
    assert not (folder / "link.txt").is_symlink() and (folder / "link.txt").read_text() == "notes\n"
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    names = ["Zed.json", "link.txt", "notes.md", "release.json", "thing.whl"]
    assert lines == [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}" for name in names]
    # What publishes takes it.
    assert publish.Distribution.read(folder).tag == "v0.1.0"


def test_of_a_folder_that_holds_one_wheel_the_wheel_is_taken(run: Run, tmp_path: pathlib.Path) -> None:
    """That is how Bazel makes the wheels of this build."""
    (tmp_path / "wheel").mkdir()
    (tmp_path / "wheel/b-1-py3-none-any.whl").write_bytes(b"wheel")
    assert run(*FILES, "wheel").returncode == 0
    assert (tmp_path / "dist/b-1-py3-none-any.whl").read_bytes() == b"wheel"
    (tmp_path / "wheel/b-2-py3-none-any.whl").write_bytes(b"another")
    refused = run("wheel", output="second")
    assert refused.returncode == 1 and "wheel: expected a file, found a folder" in refused.stderr


def test_the_revision(run: Run, tmp_path: pathlib.Path) -> None:
    run(*FILES)
    assert json.loads((tmp_path / "dist/release.json").read_text()) == {
        "version": "0.1.0",
        "tag": "v0.1.0",
        "revision": "unstamped",
    }
    run(*FILES, options=[f"--status={tmp_path / 'status.txt'}"], output="stamped")
    assert json.loads((tmp_path / "stamped/release.json").read_text())["revision"] == COMMIT


def test_the_same_files_in_any_order_give_the_same_folder(run: Run, tmp_path: pathlib.Path) -> None:
    run(*FILES)
    run(*reversed(FILES), output="again")
    contents = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("dist", "again")]
    assert contents[0] == contents[1]


def test_a_name_that_is_there_twice(run: Run, tmp_path: pathlib.Path) -> None:
    (tmp_path / "a/notes.md").write_text("others")
    done = run(*FILES, "a/notes.md")
    assert done.returncode == 1
    assert (
        done.stderr
        == f"dist: {tmp_path}/a/notes.md: {tmp_path}/b/notes.md has the same name, and a release is one folder; rename"
        " one of them\n"
    )
    assert not (tmp_path / "dist").exists()


def test_a_name_that_is_made_here(run: Run, tmp_path: pathlib.Path) -> None:
    for name in "SHA256SUMS", "release.json":
        (tmp_path / "a" / name).write_text("mine")
        done = run(*FILES, f"a/{name}")
        assert done.returncode == 1 and f"{name} is written here" in done.stderr and done.stderr.count("\n") == 1


def test_what_is_no_file(run: Run, tmp_path: pathlib.Path) -> None:
    assert run("b").stderr == f"dist: {tmp_path}/b: expected a file, found a folder\n"
    assert run("missing").stderr == f"dist: {tmp_path}/missing: expected a file, found nothing\n"


def test_a_folder_that_has_something_in_it(run: Run, tmp_path: pathlib.Path) -> None:
    assert run(*FILES).returncode == 0
    done = run(*FILES)
    assert (
        done.returncode == 1
        and done.stderr == f"dist: {tmp_path}/dist: expected an empty folder, found SHA256SUMS; remove its content\n"
    )


def test_a_stamp_without_revision(run: Run, tmp_path: pathlib.Path) -> None:
    (tmp_path / "status.txt").write_text("STABLE_REVISION \n")
    done = run(*FILES, options=[f"--status={tmp_path / 'status.txt'}"])
    assert done.returncode == 1 and "no STABLE_REVISION: build with --config=release" in done.stderr
