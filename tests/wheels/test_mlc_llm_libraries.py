"""The libraries in mlc-llm's wheel run wherever its tag says, use the TVM that Python loaded, and export nothing that
they link statically.
"""

from __future__ import annotations

import re

import pytest
from elf import SYSTEM_LIBRARIES, assert_auditwheel_agrees_with_the_tag, dynamic, elf, symbols
from elftools.elf.elffile import ELFFile
from wheels_under_test import MACHINE_PATHS, open_wheel, ours

# In TVM's two wheels, which mlc_llm imports before it loads its own library.
TVM_LIBRARIES = frozenset({"libtvm_ffi.so", "libtvm_runtime.so", "libtvm_runtime_extra.so"})

NAMES = ["mlc_llm/libmlc_llm.so", "mlc_llm/libmlc_llm_module.so"]

WHEEL = open_wheel("MLC_LLM_WHEEL")


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def library(name: str) -> ELFFile:
    return elf(WHEEL, name)


def test_there_are_two_libraries() -> None:
    assert sorted(WHEEL.libraries()) == NAMES


def test_auditwheel_agrees_with_the_tag() -> None:
    assert_auditwheel_agrees_with_the_tag(WHEEL, TVM_LIBRARIES)


def test_needs_tvms_libraries_and_the_system(library: ELFFile) -> None:
    needed = set(dynamic(library, "DT_NEEDED"))
    assert TVM_LIBRARIES <= needed <= TVM_LIBRARIES | SYSTEM_LIBRARIES


def test_run_path_has_its_own_folder_and_tvms_only(name: str, library: ELFFile) -> None:
    """pip installs TVM there. In Python, `import tvm` has already loaded it from wherever it is
    (tests/mlc_llm/test_package.py).
    """
    assert dynamic(library, "DT_RUNPATH") == ["$ORIGIN:$ORIGIN/../tvm/lib:$ORIGIN/../tvm_ffi/lib"]
    assert dynamic(library, "DT_RPATH") == []
    assert dynamic(library, "DT_SONAME") == [name.split("/")[-1]]


def test_exports_only_its_cpp_interface(library: ELFFile) -> None:
    """It exports nothing of tokenizers, sentencepiece, xgrammar, protobuf, Oniguruma, Rust or libstdc++, which other
    libraries in the process may contain too.
    """
    defined = symbols(library, defined=True)
    assert defined and all(re.match(r"_ZNK?3mlc3llm\d", symbol) for symbol in defined), defined


def test_tvm_defines_every_symbol_that_it_imports_from_tvm(library: ELFFile) -> None:
    defined: set[str] = set()
    for package, names in {
        "tvm": ["libtvm_runtime.so", "libtvm_runtime_extra.so"],
        "tvm_ffi": ["libtvm_ffi.so"],
    }.items():
        for each in names:
            defined |= symbols(elf(ours()[package], f"{package}/lib/{each}"), defined=True)
    imported = {symbol for symbol in symbols(library, defined=False) if "tvm" in symbol or symbol.startswith("TVM")}
    assert len(imported) > 20
    assert imported - defined == set()


def test_compiled_by_the_pinned_compilers(library: ELFFile) -> None:
    """Debian's GCC of the toolchain, and its Rust for tokenizers."""
    comments = {text.decode() for text in library.get_section_by_name(".comment").data().split(b"\0") if text}
    assert "GCC: (Debian 10.2.1-6) 10.2.1 20210110" in comments
    others = {text for text in comments if "GCC: (Debian 10.2.1-6)" not in text}
    assert len(others) == 1 and re.match(r"rustc version 1\.85\.1 ", others.pop())


def test_stripped_with_a_link_to_its_symbols(name: str, library: ELFFile) -> None:
    assert library.get_section_by_name(".symtab") is None
    assert not [section.name for section in library.iter_sections() if section.name.startswith(".debug_")]
    assert library.get_section_by_name(".gnu_debuglink").data().startswith(name.split("/")[-1].encode() + b".debug\0")


def test_names_no_path_of_the_machine_that_built_it(name: str) -> None:
    content = WHEEL.zip.read(name)
    for trace in (*MACHINE_PATHS, b"/.cargo/"):
        assert trace not in content, trace


def test_relocations_are_read_only_and_the_stack_is_not_executable(library: ELFFile) -> None:
    segments = {segment["p_type"]: segment for segment in library.iter_segments()}
    assert "PT_GNU_RELRO" in segments
    assert segments["PT_GNU_STACK"]["p_flags"] & 1 == 0
