"""Preprocessor, compiler, assembler and linker open only files of the toolchain and those they are given."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.toolchains import runfiles

CC = runfiles.repository("debian_cc")
SOURCE = (
    "#include <bits/stdc++.h>\n#include <linux/types.h>\n#include <pthread.h>\nint main() { std::thread([] { throw"
    " std::sin(1.0); }).join(); }\n"
)


class Compiler:
    """Runs the compiler in a folder with a source."""

    def __init__(self, folder: Path) -> None:
        self.scratch = folder
        (self.scratch / "source.cc").write_text(SOURCE)

    def compile(self, *flags: str, program: str = "g++", expect: int = 0) -> str:
        # With an empty PATH the compiler finds no program by name.
        done = subprocess.run(
            [CC / "usr/bin" / program, *flags],
            cwd=self.scratch,
            env={"PATH": ""},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == expect, done.stdout
        return done.stdout

    def assert_own(self, paths: list[str], least: int) -> None:
        assert len(paths) >= least, paths
        foreign = [
            path for path in paths if not os.path.normpath(os.path.join(self.scratch, path)).startswith(str(CC) + "/")
        ]
        assert foreign == []


@pytest.fixture
def compiler(tmp_path: Path) -> Compiler:
    return Compiler(tmp_path)


def test_headers(compiler: Compiler) -> None:
    compiler.compile("-std=c++20", "-c", "source.cc", "-M", "-MF", "source.d")
    headers = (compiler.scratch / "source.d").read_text().replace("\\\n", " ").split(":", 1)[1].split()
    assert headers.pop(0) == "source.cc"
    compiler.assert_own(headers, 200)


@pytest.mark.parametrize(("program", "language"), [("g++", "c++"), ("gcc", "c")])
def test_search_path(compiler: Compiler, program: str, language: str) -> None:
    shown = compiler.compile("-v", "-E", "-x", language, "/dev/null", program=program)
    found = re.search(r"#include <\.\.\.> search starts here:\n(.*?)End of search list", shown, re.DOTALL)
    assert found, shown
    compiler.assert_own(found[1].split(), 3)


def test_programs(compiler: Compiler) -> None:
    shown = compiler.compile("-v", "-std=c++20", "source.cc", "-pthread", "-o", "program")
    programs = re.findall(r"^ (\S+/(?:cc1plus|as|collect2)) ", shown, re.MULTILINE)
    assert [os.path.basename(path) for path in programs] == ["cc1plus", "as", "collect2"]
    compiler.assert_own(programs, 3)


def test_linked_files(compiler: Compiler) -> None:
    compiler.compile("-std=c++20", "-c", "source.cc")
    shown = compiler.compile("source.o", "-pthread", "-o", "program", "-Wl,--trace")
    files = [line.split("(")[-1].rstrip(")") if line.startswith("(") else line for line in shown.splitlines()]
    files = [path for path in files if path != "source.o"]
    assert any(path.endswith("libc.so.6") for path in files), shown
    compiler.assert_own(files, 8)


def test_a_header_of_the_host_is_not_found(compiler: Compiler) -> None:
    (compiler.scratch / "source.cc").write_text("#include <expat.h>\n")
    assert "No such file" in compiler.compile("-c", "source.cc", expect=1)
