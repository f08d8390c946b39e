"""A stripped library has no debug symbols and names the file that has them."""

from __future__ import annotations

import zlib
from pathlib import Path

from elftools.elf.elffile import ELFFile

from tests.toolchains import runfiles

LINKED = runfiles.HERE / "libgreeting.so"
STRIPPED = runfiles.HERE / "libgreeting/libgreeting.so"
SYMBOLS = runfiles.HERE / "libgreeting/libgreeting.so.debug"


def sections(path: Path) -> dict[str, bytes]:
    with open(path, "rb") as file:
        return {
            section.name: section.data()
            for section in ELFFile(file).iter_sections()
            if section["sh_type"] != "SHT_NOBITS"
        }


def test_the_library_has_no_debug_symbols() -> None:
    found = sections(STRIPPED)
    assert [name for name in found if name.startswith(".debug") or name == ".symtab"] == []
    assert ".dynsym" in found
    assert STRIPPED.stat().st_size < LINKED.stat().st_size


def test_the_library_has_the_name_and_checksum_of_the_file() -> None:
    # .gnu_debuglink: file name, zero-padded to four bytes, and its CRC-32.
    link = sections(STRIPPED)[".gnu_debuglink"]
    assert link[:-4].rstrip(b"\0").decode() == SYMBOLS.name
    assert int.from_bytes(link[-4:], "little") == zlib.crc32(SYMBOLS.read_bytes())


def test_both_have_the_build_id_of_the_linked_library() -> None:
    build_ids = {sections(path)[".note.gnu.build-id"] for path in (LINKED, STRIPPED, SYMBOLS)}
    assert len(build_ids) == 1


def test_the_file_has_the_symbols() -> None:
    assert ".symtab" in sections(SYMBOLS)
