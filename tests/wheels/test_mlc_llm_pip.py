"""pip installs mlc-llm with the TVM of its build, and refuses any other TVM before it writes anything."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
from wheels_under_test import Wheel, official, open_wheel, ours, pip

MLC_LLM = open_wheel("MLC_LLM_WHEEL")
DEPENDENCIES = [pathlib.Path(path) for path in os.environ["DEPENDENCY_WHEELS"].split()]


def of_another_build(name: str) -> str:
    """The same version with another build id."""
    return re.sub(r"\.b[0-9a-f]{8}", lambda found: ".b00000000" if found[0] != ".b00000000" else ".b11111111", name)


@pytest.fixture
def links(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder of wheels for --find-links: mlc-llm and everything it needs except TVM."""
    folder = tmp_path / "links"
    folder.mkdir()
    for wheel in [MLC_LLM.path, *DEPENDENCIES]:
        (folder / wheel.name).symlink_to(wheel.absolute())
    return folder


def install(links: pathlib.Path, *arguments: object) -> tuple[subprocess.CompletedProcess, pathlib.Path]:
    target = links.parent / "environment"
    return (
        pip("install", "--no-index", "--no-compile", f"--find-links={links}", f"--target={target}", *arguments),
        target,
    )


def add(links: pathlib.Path, wheel: Wheel, name: str | None = None) -> None:
    (links / (name or wheel.path.name)).symlink_to(wheel.path.absolute())


def test_installs_into_an_empty_environment_and_works(links: pathlib.Path) -> None:
    for wheel in ours().values():
        add(links, wheel)
    done, environment = install(links, "mlc-llm")
    assert done.returncode == 0, done.stderr
    # tvm.contrib.pickle_memoize looks up HOME at import, and not every sandbox has /etc/passwd.
    variables = {"PYTHONPATH": str(environment), "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(environment)}
    program = (
        "import mlc_llm, tvm; print(mlc_llm.__file__); print(tvm.get_global_func('mlc.tokenizers.Tokenizer') is not"
        " None)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=variables)
    assert (ran.returncode, ran.stdout) == (0, f"{environment}/mlc_llm/__init__.py\nTrue\n"), ran.stderr
    command = subprocess.run(
        [sys.executable, environment / "bin/mlc_llm", "--help"], capture_output=True, text=True, env=variables
    )
    assert command.returncode == 0 and "gen_config" in command.stdout, command.stderr
    checked = pip("check", PYTHONPATH=f"{os.environ['PIP_SITE']}:{environment}")
    assert (checked.returncode, checked.stdout) == (0, "No broken requirements found.\n")

    # Force another TVM into the same environment: pip reports it, and the import refuses it.
    theirs = official()["tvm"].metadata()["Version"]
    shutil.rmtree(next(environment.glob("apache_tvm-*.dist-info")))
    metadata = environment / f"apache_tvm-{theirs}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_bytes(official()["tvm"].zip.read(f"{official()['tvm'].dist_info}/METADATA"))
    checked = pip("check", PYTHONPATH=f"{os.environ['PIP_SITE']}:{environment}")
    assert checked.returncode != 0
    assert (
        f"requirement apache-tvm=={ours()['tvm'].metadata()['Version']}, but you have apache-tvm {theirs}"
        in checked.stdout
    )
    ran = subprocess.run([sys.executable, "-c", "import mlc_llm"], capture_output=True, text=True, env=variables)
    assert ran.returncode == 1 and f"found {theirs} in {environment}" in ran.stderr.splitlines()[-1]


def assert_refused(done: subprocess.CompletedProcess, environment: pathlib.Path, package: str) -> None:
    assert done.returncode != 0, done.stdout
    wheel = ours()[package]
    assert f"{wheel.metadata()['Name']}=={wheel.metadata()['Version']}" in done.stderr
    assert not environment.exists()


@pytest.mark.parametrize("package", ["tvm", "tvm_ffi"])
def test_refuses_the_official_wheel_before_anything_is_written(links: pathlib.Path, package: str) -> None:
    for name, wheel in ours().items():
        add(links, official()[package] if name == package else wheel)
    done, environment = install(links, "mlc-llm")
    assert_refused(done, environment, package)


@pytest.mark.parametrize("package", ["tvm", "tvm_ffi"])
def test_refuses_a_wheel_of_another_build_before_anything_is_written(links: pathlib.Path, package: str) -> None:
    """pip searches by file name, and never reads the content."""
    for name, wheel in ours().items():
        add(links, wheel, of_another_build(wheel.path.name) if name == package else None)
    done, environment = install(links, "mlc-llm")
    assert_refused(done, environment, package)


def test_refuses_a_request_for_the_official_tvm(links: pathlib.Path) -> None:
    """All wheels are available, and the user asks for two that do not fit."""
    for wheel in [*ours().values(), *official().values()]:
        add(links, wheel)
    version = official()["tvm"].metadata()["Version"]
    done, environment = install(links, "mlc-llm", f"apache-tvm==={version}")
    assert done.returncode != 0 and not environment.exists()
    assert f"apache-tvm=={ours()['tvm'].metadata()['Version']}" in done.stdout + done.stderr


def test_chooses_the_tvm_of_its_build_among_others(links: pathlib.Path) -> None:
    for wheel in [*ours().values(), *official().values()]:
        add(links, wheel)
    done, environment = install(links, "--dry-run", "mlc-llm")
    assert done.returncode == 0, done.stderr
    for wheel in [MLC_LLM, *ours().values()]:
        assert (
            f"{wheel.metadata()['Name']}-{wheel.metadata()['Version']}"
            in done.stdout.replace("_", "-").splitlines()[-1]
        )
    assert not environment.exists()
