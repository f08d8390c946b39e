"""Bazel's compile command gives the same bytes wherever the work tree and the cache are."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.toolchains import recompile, runfiles


@pytest.mark.parametrize("flags", [[], ["-g", "-O2"]], ids=["as built", "with debug symbols"])
def test_two_folders_one_object(tmp_path: Path, flags: list[str]) -> None:
    action = recompile.action("hello_actions.jsonl", "CppCompile", "tests/toolchains/hello.cc")
    files, repositories = ("greeting.h", "hello.cc"), (runfiles.repository("debian_cc"),)
    one = recompile.compile_in(tmp_path / "one", action, files, repositories, flags)
    other = recompile.compile_in(tmp_path / "another/place", action, files, repositories, flags)
    assert one == other, "the objects differ"
    assert str(tmp_path).encode() not in one
