"""Reads the ELF libraries in a wheel."""

from __future__ import annotations

import io
import re

from auditwheel.architecture import Architecture
from auditwheel.libc import Libc
from auditwheel.wheel_abi import analyze_wheel_abi
from elftools.elf.elffile import ELFFile
from wheels_under_test import Wheel

SYSTEM_LIBRARIES = {
    "ld-linux-aarch64.so.1",
    "ld-linux-x86-64.so.2",
    "libc.so.6",
    "libdl.so.2",
    "libgcc_s.so.1",
    "libm.so.6",
    "libpthread.so.0",
    "libstdc++.so.6",
}


def elf(wheel: Wheel, name: str) -> ELFFile:
    """A library in a wheel."""
    return ELFFile(io.BytesIO(wheel.zip.read(name)))


def dynamic(library: ELFFile, tag: str) -> list[str]:
    """The values of DT_NEEDED, DT_RUNPATH, DT_SONAME or DT_RPATH, in the order of the dynamic section."""
    attribute = {"DT_NEEDED": "needed", "DT_RUNPATH": "runpath", "DT_SONAME": "soname", "DT_RPATH": "rpath"}[tag]
    return [getattr(entry, attribute) for entry in library.get_section_by_name(".dynamic").iter_tags(tag)]


def symbols(library: ELFFile, defined: bool) -> set[str]:
    """Names in .dynsym: those the library defines, or those it imports."""
    return {
        symbol.name
        for symbol in library.get_section_by_name(".dynsym").iter_symbols()
        if symbol.name and (symbol["st_shndx"] != "SHN_UNDEF") == defined
    }


def assert_auditwheel_agrees_with_the_tag(wheel: Wheel, elsewhere: frozenset[str]) -> None:
    """Asserts that the libraries need no newer glibc than the wheel's manylinux tag promises.

    Args:
        wheel: the wheel; its file name has the tag.
        elsewhere: libraries that other wheels bring.
    """
    tag = re.search(r"manylinux_2_(\d+)_(\w+)\.whl", wheel.path.name)
    assert tag, wheel.path.name
    machine = {"AArch64": "aarch64", "x64": "x86_64"}
    assert {machine[elf(wheel, name).get_machine_arch()] for name in wheel.libraries()} == {tag[2]}
    abi = analyze_wheel_abi(
        Libc.GLIBC, Architecture(tag[2]), wheel.path, elsewhere, disable_isa_ext_check=False, allow_graft=False
    )
    supported = {abi.overall_policy.name, *abi.overall_policy.aliases}
    needed = max(int(name.split("_")[2]) for name in supported if name.startswith("manylinux_2_"))
    assert needed <= int(tag[1]), f"needs {supported}: {abi.versioned_symbols}"
