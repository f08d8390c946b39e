"""What ELF libraries say of themselves, for the tests of this folder."""

from __future__ import annotations

import io

from elftools.elf.elffile import ELFFile
from wheels_under_test import Wheel

SYSTEM_LIBRARIES = {
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
    """The values of one tag of the dynamic section, in its order: DT_NEEDED, DT_RUNPATH, DT_SONAME or DT_RPATH."""
    attribute = {"DT_NEEDED": "needed", "DT_RUNPATH": "runpath", "DT_SONAME": "soname", "DT_RPATH": "rpath"}[tag]
    return [getattr(entry, attribute) for entry in library.get_section_by_name(".dynamic").iter_tags(tag)]


def symbols(library: ELFFile, defined: bool) -> set[str]:
    """Names that the library defines for others, or takes from them."""
    return {
        symbol.name
        for symbol in library.get_section_by_name(".dynsym").iter_symbols()
        if symbol.name and (symbol["st_shndx"] != "SHN_UNDEF") == defined
    }
