"""The stub of a library has its functions and their versions. What is linked with it: //tests/arm64:tvm_cuda_wheel."""

from __future__ import annotations

import re
import zlib  # Loads the library.
from pathlib import Path

import pytest

from toolchains.cuda.private import make_library_stub


def zlib_library() -> Path:
    assert zlib.ZLIB_VERSION
    (found,) = set(re.findall(r"\S+/libz\.so\S*", Path("/proc/self/maps").read_text()))
    return Path(found)


def test_finds_functions_and_their_versions() -> None:
    functions = make_library_stub.functions(zlib_library())
    assert functions["inflate"] == ""
    assert functions["inflateReset2"] == "ZLIB_1.2.3.4"
    assert not {name for name in functions if name.startswith("ZLIB_")}


def test_writes_what_the_assembler_and_the_linker_read() -> None:
    text = make_library_stub.source(["one", "two"])
    assert ".globl one\n.type one, %function\none:\n.globl two\n" in text
    assert (
        make_library_stub.version_script({"two": "lib.so.1", "one": "lib.so.1"}) == "lib.so.1 { global: one; two; };\n"
    )
    assert make_library_stub.version_script({"one": ""}) == "{ global: one; };\n"


def test_another_file_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "library.so"
    text.write_text("text")
    with pytest.raises(ValueError, match="library.so: expected a shared library that exports functions: Magic number"):
        make_library_stub.functions(text)
