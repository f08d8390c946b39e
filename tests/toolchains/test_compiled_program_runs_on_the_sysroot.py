"""A compiled program runs with the C and C++ libraries it was linked against, and needs no newer ones."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection

from tests.toolchains import runfiles

CC = runfiles.repository("debian_cc")
HELLO = runfiles.HERE / "hello"
LIBRARY = runfiles.HERE / "libgreeting.so"

# The sysroot has Debian 11's glibc and GCC 10's libstdc++; see toolchains/cc/README.md.
NEWEST = {"GLIBC": (2, 31), "GLIBCXX": (3, 4, 28), "CXXABI": (1, 3, 12), "GCC": (7, 0, 0)}


def on_the_sysroot(*arguments: str) -> str:
    folders = [CC / "lib/x86_64-linux-gnu", CC / "usr/lib/x86_64-linux-gnu", LIBRARY.parent]
    command: list[str | Path] = [
        CC / "lib64/ld-linux-x86-64.so.2",
        "--inhibit-cache",
        "--library-path",
        ":".join(map(str, folders)),
        *arguments,
        HELLO,
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_threads_exceptions_and_mathematics_work() -> None:
    assert on_the_sysroot().strip() == "hello world 1.5 tests/toolchains/hello.cc redacted"


def test_loads_only_libraries_of_the_sysroot() -> None:
    listed = on_the_sysroot("--list")
    libraries = re.findall(r"=> (\S+)", listed)
    assert len(libraries) >= 4, listed
    for library in libraries:
        assert runfiles.is_inside(library, CC) or library.endswith("/libgreeting.so"), listed


@pytest.mark.parametrize("path", [HELLO, LIBRARY], ids=["program", "library"])
def test_no_symbol_is_newer_than_the_sysroot(path: Path) -> None:
    with open(path, "rb") as file:
        sections = [section for section in ELFFile(file).iter_sections() if isinstance(section, GNUVerNeedSection)]
        names = [
            auxiliary.name for section in sections for _, entries in section.iter_versions() for auxiliary in entries
        ]
    assert "GLIBCXX_3.4" in names, path
    for name in names:
        library, _, version = name.partition("_")
        assert tuple(map(int, version.split("."))) <= NEWEST[library], f"{path.name} needs {name}"


def test_a_library_has_the_run_path_of_its_target() -> None:
    with open(LIBRARY, "rb") as file:
        dynamic = ELFFile(file).get_section_by_name(".dynamic")
        paths = [
            tag.runpath if tag.entry.d_tag == "DT_RUNPATH" else tag.rpath
            for tag in dynamic.iter_tags()
            if tag.entry.d_tag in ("DT_RPATH", "DT_RUNPATH")
        ]
    assert paths == ["$ORIGIN"]
