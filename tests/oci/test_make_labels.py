"""Labels name the revision only where the build is stamped, so that a commit without new content changes no digest."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

from oci.private import make_labels

_REVISION = "org.opencontainers.image.revision"


def make(folder: pathlib.Path, status: str | None) -> tuple[int, str, str]:
    file, output = folder / "status.txt", folder / "labels.txt"
    file.write_text(status or "")
    command = [sys.executable, make_labels.__file__, "--label", "z=1", "--label", "a=x y", "--output", str(output)]
    command += ["--status", str(file)] if status is not None else []
    done = subprocess.run(command, env={"PYTHONPATH": os.pathsep.join(sys.path)}, capture_output=True, text=True)
    return done.returncode, done.stderr, output.read_text() if output.exists() else ""


def test_unstamped(tmp_path: pathlib.Path) -> None:
    assert make(tmp_path, None) == (0, "", f"a=x y\n{_REVISION}=unstamped\nz=1\n")


def test_stamped(tmp_path: pathlib.Path) -> None:
    assert make(tmp_path, "BUILD_USER me\nSTABLE_REVISION 0123abc\n") == (0, "", f"a=x y\n{_REVISION}=0123abc\nz=1\n")


@pytest.mark.parametrize("status", ["", "BUILD_USER me\n", "STABLE_REVISION \n"])
def test_a_stamp_without_revision_is_an_error(tmp_path: pathlib.Path, status: str) -> None:
    code, said, labels = make(tmp_path, status)
    assert (code, labels) == (1, "")
    assert "no STABLE_REVISION: build with --config=release" in said
    assert "Traceback" not in said
