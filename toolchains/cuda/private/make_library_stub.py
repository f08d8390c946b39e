"""Writes what a stub of a shared library is made of: its interface, for programs for another processor to link with.

    make_library_stub libcublas.so.13 --source stub.S --version-script stub.map

The stub has the library's functions and their versions, but they have no code.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile


def functions(library: Path) -> dict[str, str]:
    """Returns the library's functions → their version, "" without one.

    Raises:
        ValueError: the file is no shared library, or has other symbols than functions.
    """
    try:
        with library.open("rb") as file:
            elf = ELFFile(file)
            symbols, numbers, definitions = map(elf.get_section_by_name, (".dynsym", ".gnu.version", ".gnu.version_d"))
            if symbols is None:
                raise ValueError("found no dynamic symbols")
            names = {
                definition["vd_ndx"]: next(auxiliary).name
                for definition, auxiliary in (definitions.iter_versions() if definitions else ())
            }
            found = {}
            for index, symbol in enumerate(symbols.iter_symbols()):
                if symbol["st_shndx"] in ("SHN_UNDEF", "SHN_ABS") or symbol["st_info"]["bind"] == "STB_LOCAL":
                    continue
                if symbol["st_info"]["type"] != "STT_FUNC":
                    raise ValueError(f"found {symbol.name}, which is no function")
                if symbol.name in found:
                    raise ValueError(f"found {symbol.name} in two versions")
                number = numbers.get_symbol(index)["ndx"] if numbers else "VER_NDX_GLOBAL"
                found[symbol.name] = "" if isinstance(number, str) else names[number & 0x7FFF]
            return found
    except (OSError, ELFError, ValueError) as error:
        raise ValueError(f"{library}: expected a shared library that exports functions: {error}") from None


def source(names: list[str]) -> str:
    """Returns the assembler source: the functions, for any processor."""
    lines = ["/* Names of a library's functions; see make_library_stub.py. */", ".text"]
    for name in names:
        lines += [f".globl {name}", f".type {name}, %function", f"{name}:"]
    # No processor has this instruction.
    return "\n".join([*lines, ".long 0", '.section .note.GNU-stack, "", %progbits']) + "\n"


def version_script(versions: dict[str, str]) -> str:
    """Returns the linker's script: which functions have which version."""
    blocks = []
    for version in sorted(set(versions.values())):
        names = "".join(f" {name};" for name, each in sorted(versions.items()) if each == version)
        blocks.append(f"{version} {{ global:{names} }};\n" if version else f"{{ global:{names} }};\n")
    return "".join(blocks)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", type=Path)
    parser.add_argument("--source", type=Path, required=True, help="the assembler source to write")
    parser.add_argument("--version-script", type=Path, required=True, help="the linker's script to write")
    options = parser.parse_args()
    try:
        versions = functions(options.library)
        options.source.write_text(source(sorted(versions)), encoding="utf-8")
        options.version_script.write_text(version_script(versions), encoding="utf-8")
    except (OSError, ValueError) as error:
        print(f"make_library_stub: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
