"""pip installs TVM's wheels into an empty environment, and refuses to mix two builds."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys

import pytest
from wheels_under_test import official, ours, pip

DEPENDENCIES = [pathlib.Path(path) for path in os.environ["DEPENDENCY_WHEELS"].split()]


@pytest.fixture
def links(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder of wheels for --find-links: our TVM and everything it needs except tvm_ffi."""
    folder = tmp_path / "links"
    folder.mkdir()
    for wheel in [ours()["tvm"].path, *DEPENDENCIES]:
        shutil.copy(wheel, folder)
    return folder


def test_installs_into_an_empty_environment_and_works(links: pathlib.Path, tmp_path: pathlib.Path) -> None:
    shutil.copy(ours()["tvm_ffi"].path, links)
    environment = tmp_path / "environment"
    done = pip(
        "install", "--no-index", "--no-compile", f"--find-links={links}", f"--target={environment}", "apache-tvm"
    )
    assert done.returncode == 0, done.stderr
    program = (
        f"import tvm; assert tvm.__file__.startswith({str(environment)!r}), tvm.__file__;"
        " print(tvm.runtime.tensor([1.0, 2.0]).numpy().sum())"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(environment), "HOME": str(tmp_path)},
    )
    assert (ran.returncode, ran.stdout) == (0, "3.0\n"), ran.stderr
    checked = pip("check", PYTHONPATH=f"{os.environ['PIP_SITE']}:{environment}")
    assert checked.returncode == 0, checked.stdout


def test_the_public_version_selects_our_build(links: pathlib.Path) -> None:
    shutil.copy(ours()["tvm_ffi"].path, links)
    version = official()["tvm"].metadata()["Version"]
    done = pip(
        "install", "--dry-run", "--no-index", f"--find-links={links}", f"--target={links}", f"apache-tvm=={version}"
    )
    assert done.returncode == 0, done.stderr
    assert ours()["tvm"].metadata()["Version"] in done.stdout


def test_refuses_the_official_ffi(links: pathlib.Path) -> None:
    shutil.copy(official()["tvm_ffi"].path, links)
    done = pip("install", "--dry-run", "--no-index", f"--find-links={links}", f"--target={links}", ours()["tvm"].path)
    assert done.returncode != 0
    assert f"apache-tvm-ffi=={ours()['tvm_ffi'].metadata()['Version']}" in done.stderr


def test_refuses_the_ffi_of_another_build(links: pathlib.Path) -> None:
    wheel = ours()["tvm_ffi"]
    version = wheel.metadata()["Version"]
    other = version[:-8] + ("0" * 8 if version[-8:] != "0" * 8 else "1" * 8)
    # pip searches by file name, and never reads the content.
    shutil.copy(wheel.path, links / wheel.path.name.replace(version, other))
    done = pip("install", "--dry-run", "--no-index", f"--find-links={links}", f"--target={links}", ours()["tvm"].path)
    assert done.returncode != 0
    assert f"apache-tvm-ffi=={version}" in done.stderr


def test_pip_check_reports_a_forced_mix_of_builds(tmp_path: pathlib.Path) -> None:
    environment = tmp_path / "environment"
    for wheel in (ours()["tvm"].path, official()["tvm_ffi"].path):
        done = pip("install", "--no-index", "--no-deps", "--no-compile", f"--target={environment}", wheel)
        assert done.returncode == 0, done.stderr
    checked = pip("check", PYTHONPATH=f"{os.environ['PIP_SITE']}:{environment}")
    assert checked.returncode != 0
    assert f"requirement apache-tvm-ffi=={ours()['tvm_ffi'].metadata()['Version']}" in checked.stdout
