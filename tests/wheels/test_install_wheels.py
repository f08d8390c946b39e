"""install_wheels leaves out what `exclude` names, and says so where there is no such file."""

from __future__ import annotations

import pathlib

import pytest

from wheels.private import install_wheels


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    for name in ("a/one.so", "a/b/two.so", "a/one.py", "a-1.dist-info/RECORD"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def _files(folder: pathlib.Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_what_matches_is_left_out(folder: pathlib.Path):
    install_wheels.leave_out(folder, ["a/*.so", "a-*.dist-info/RECORD", "a/one.*"])
    assert _files(folder) == []


def test_all_else_stays(folder: pathlib.Path):
    install_wheels.leave_out(folder, ["a/one.so"])
    assert _files(folder) == ["a-1.dist-info/RECORD", "a/b/two.so", "a/one.py"]


def test_a_pattern_that_nothing_matches_is_an_error(folder: pathlib.Path):
    with pytest.raises(ValueError, match=r"expected files that match 'a/\*\.dll' \(attribute `exclude`\), found none"):
        install_wheels.leave_out(folder, ["a/*.dll"])
