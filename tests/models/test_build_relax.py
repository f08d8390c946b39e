"""build_relax reports a faulty source in one line; the library depends on the source, not on where it is compiled."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from models.private import build_relax

SOURCE = Path(__file__).with_name("affine.py")
LLVM = {"kind": "llvm", "mtriple": "x86_64-unknown-linux-gnu", "mcpu": "x86-64-v3"}
TARGET = json.dumps(LLVM | {"host": LLVM})
EXPECTED = "to return a tvm.IRModule, found"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    def call(*arguments: str | Path, source: Path = SOURCE, target: str = TARGET) -> int:
        options = [
            "--output",
            tmp_path / "library.so",
            "--source",
            source,
            "--target",
            target,
            "--compiler",
            os.environ["CXX"],
        ]
        for folder in os.environ["PYTHONPATH"].split(os.pathsep):
            options += ["--environment", folder]
        monkeypatch.setattr(sys, "argv", ["build_relax", *map(str, options), *map(str, arguments)])
        return build_relax.main()

    return call


def last_line(capfd: pytest.CaptureFixture) -> str:
    out, error = capfd.readouterr()
    assert out == "" and error.endswith("\n")
    return error.splitlines()[-1]


def test_the_error_of_a_missing_function_lists_the_existing_ones(
    run: Callable[..., int], capfd: pytest.CaptureFixture
) -> None:
    assert run("--function", "modul") == 1
    expected = (
        "expected a function modul, found kernel, module, number, raises, unknown_function; give relax_library(function"
        " = ...) one of them"
    )
    assert last_line(capfd) == f"build_relax: {SOURCE}: {expected}"


@pytest.mark.parametrize(
    ("function", "arguments", "found"),
    [
        ("raises", {}, "that it raises ValueError: width must be positive; see above"),
        ("number", {}, "int"),
        (
            "module",
            {"height": 8},
            "that it raises TypeError: module() got an unexpected keyword argument 'height'; see above",
        ),
    ],
)
def test_a_function_that_returns_no_module_is_reported(
    run: Callable[..., int], capfd: pytest.CaptureFixture, function: str, arguments: dict, found: str
) -> None:
    assert run("--function", function, "--arguments", json.dumps(arguments)) == 1
    assert last_line(capfd) == f"build_relax: {SOURCE}: expected {function}(**{arguments}) {EXPECTED} {found}"


@pytest.mark.parametrize(("option", "name"), [("--arguments", "arguments"), ("--pass-config", "pass_config")])
@pytest.mark.parametrize("value", ["3", "{", "[]"])
def test_options_that_are_not_objects_are_reported(
    run: Callable[..., int], capfd: pytest.CaptureFixture, option: str, name: str, value: str
) -> None:
    assert run("--function", "module", option, value) == 1
    assert last_line(capfd) == f"build_relax: {name}: expected a JSON object, found {value!r}"


def test_a_source_that_cannot_be_imported_is_reported(
    run: Callable[..., int], capfd: pytest.CaptureFixture, tmp_path: Path
) -> None:
    source = tmp_path / "source.py"
    source.write_text("import no_such_module\n")
    assert run("--function", "module", source=source) == 1
    expected = (
        "expected a Python file that TVM's Python can import, found that it raises ModuleNotFoundError: No module named"
        " 'no_such_module'; see above"
    )
    assert last_line(capfd) == f"build_relax: {source}: {expected}"


def test_an_unknown_pass_option_is_reported(run: Callable[..., int], capfd: pytest.CaptureFixture) -> None:
    assert run("--function", "module", "--pass-config", '{"relax.no_such_option": 1}') == 1
    line = last_line(capfd)
    assert (
        line.startswith(f"build_relax: {SOURCE}: TVM failed to compile it for the target llvm (")
        and "relax.no_such_option" in line
    )


def test_a_failing_linker_is_reported(
    run: Callable[..., int], capfd: pytest.CaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    linker = tmp_path / "g++"
    linker.write_text("#!/bin/sh\necho ld: no space left\nexit 1\n")
    linker.chmod(0o755)
    monkeypatch.setenv("CXX", str(linker))
    assert run("--function", "module") == 1
    error = capfd.readouterr().err
    assert "ld: no space left" in error
    assert error.endswith(f"build_relax: {SOURCE}: the C++ compiler failed to link its library, see above\n")


def test_a_target_is_checked_first(run: Callable[..., int], capfd: pytest.CaptureFixture) -> None:
    assert run("--function", "modul", target="llvm") == 1
    assert last_line(capfd).startswith("build_relax: target 'llvm': expected a TVM target as JSON")


def test_the_same_library_from_another_folder(
    run: Callable[..., int], capfd: pytest.CaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("--function", "module") == 0
    assert capfd.readouterr() == ("", "")
    first = (tmp_path / "library.so").read_bytes()
    assert str(tmp_path).encode() not in first
    other, temporary = tmp_path / "other/folder", tmp_path / "other/temporary"
    other.mkdir(parents=True)
    temporary.mkdir()
    source = Path(shutil.copy(SOURCE, other / "renamed.py"))
    monkeypatch.setenv("CXX", str(Path(os.environ["CXX"]).absolute()))
    monkeypatch.setenv(
        "PYTHONPATH",
        os.pathsep.join(str(Path(folder).absolute()) for folder in os.environ["PYTHONPATH"].split(os.pathsep)),
    )
    monkeypatch.chdir(other)
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    assert run("--function", "module", source=source) == 0
    assert (tmp_path / "library.so").read_bytes() == first
