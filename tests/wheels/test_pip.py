"""pip installs the wheels into an empty environment, and refuses every pair of two builds."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest
from wheels_under_test import official, ours

DEPENDENCIES = [pathlib.Path(path) for path in os.environ["DEPENDENCY_WHEELS"].split()]


def pip(*arguments, **options) -> subprocess.CompletedProcess:
    environment = {
        "PYTHONPATH": os.environ["PIP_SITE"],
        "PIP_CONFIG_FILE": os.devnull,
        "HOME": os.environ["TEST_TMPDIR"],
    }
    return subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment | options.pop("env", {}),
        **options,
    )


@pytest.fixture
def links(tmp_path):
    """A folder of wheels for --find-links with our TVM and all that it needs but tvm_ffi."""
    folder = tmp_path / "links"
    folder.mkdir()
    for wheel in [ours()["tvm"].path, *DEPENDENCIES]:
        shutil.copy(wheel, folder)
    return folder


def test_installs_into_an_empty_environment_and_works(links, tmp_path) -> None:
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
    checked = pip("check", env={"PYTHONPATH": f"{os.environ['PIP_SITE']}:{environment}"})
    assert checked.returncode == 0, checked.stdout


def test_public_version_is_enough_to_ask_for_it(links) -> None:
    shutil.copy(ours()["tvm_ffi"].path, links)
    version = official()["tvm"].metadata()["Version"]
    done = pip(
        "install", "--dry-run", "--no-index", f"--find-links={links}", f"--target={links}", f"apache-tvm=={version}"
    )
    assert done.returncode == 0, done.stderr
    assert ours()["tvm"].metadata()["Version"] in done.stdout


def test_refuses_the_official_ffi(links) -> None:
    shutil.copy(official()["tvm_ffi"].path, links)
    done = pip("install", "--dry-run", "--no-index", f"--find-links={links}", f"--target={links}", ours()["tvm"].path)
    assert done.returncode != 0
    assert f"apache-tvm-ffi=={ours()['tvm_ffi'].metadata()['Version']}" in done.stderr


def test_refuses_the_ffi_of_another_build(links) -> None:
    wheel = ours()["tvm_ffi"]
    version = wheel.metadata()["Version"]
    other = version[:-8] + ("0" * 8 if version[-8:] != "0" * 8 else "1" * 8)
    # pip trusts the file name in its search; the content is never reached.
    shutil.copy(wheel.path, links / wheel.path.name.replace(version, other))
    done = pip("install", "--dry-run", "--no-index", f"--find-links={links}", f"--target={links}", ours()["tvm"].path)
    assert done.returncode != 0
    assert f"apache-tvm-ffi=={version}" in done.stderr


def test_pip_check_names_a_pair_forced_together(tmp_path) -> None:
    environment = tmp_path / "environment"
    for wheel in (ours()["tvm"].path, official()["tvm_ffi"].path):
        done = pip("install", "--no-index", "--no-deps", "--no-compile", f"--target={environment}", wheel)
        assert done.returncode == 0, done.stderr
    checked = pip("check", env={"PYTHONPATH": f"{os.environ['PIP_SITE']}:{environment}"})
    assert checked.returncode != 0
    assert f"requirement apache-tvm-ffi=={ours()['tvm_ffi'].metadata()['Version']}" in checked.stdout
