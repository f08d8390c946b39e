"""The libraries in the wheel of mlc-llm run where its tag says, find TVM's where Python loaded them, and show nothing
that they link.
"""

from __future__ import annotations

import re

import pytest
from auditwheel.architecture import Architecture
from auditwheel.libc import Libc
from auditwheel.wheel_abi import analyze_wheel_abi
from elf import SYSTEM_LIBRARIES, dynamic, elf, symbols
from elftools.elf.elffile import ELFFile
from wheels_under_test import open_wheel, ours

# From TVM's two wheels, which mlc_llm imports before it loads its own library.
TVM_LIBRARIES = frozenset({"libtvm_ffi.so", "libtvm_runtime.so", "libtvm_runtime_extra.so"})

NAMES = ["mlc_llm/libmlc_llm.so", "mlc_llm/libmlc_llm_module.so"]

WHEEL = open_wheel("MLC_LLM_WHEEL")


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def library(name: str) -> ELFFile:
    return elf(WHEEL, name)


def test_there_are_these_two_libraries_and_no_other() -> None:
    assert sorted(WHEEL.libraries()) == NAMES


def test_auditwheel_agrees_with_the_tag() -> None:
    abi = analyze_wheel_abi(
        Libc.GLIBC, Architecture.x86_64, WHEEL.path, TVM_LIBRARIES, disable_isa_ext_check=False, allow_graft=False
    )
    supported = {abi.overall_policy.name, *abi.overall_policy.aliases}
    newest = max(int(name.split("_")[2]) for name in supported if name.startswith("manylinux_2_"))
    stated = int(re.search(r"manylinux_2_(\d+)_", WHEEL.path.name)[1])
    assert newest <= stated, f"needs {supported}: {abi.versioned_symbols}"


def test_needs_tvms_libraries_and_the_system(library: ELFFile) -> None:
    needed = set(dynamic(library, "DT_NEEDED"))
    assert TVM_LIBRARIES <= needed <= TVM_LIBRARIES | SYSTEM_LIBRARIES


def test_run_path_is_its_own_folder_and_tvms_beside_it_and_nothing_else(name: str, library: ELFFile) -> None:
    """Where pip puts TVM. In Python, `import tvm` has loaded it before, from wherever it is (see
    tests/mlc_llm/test_imports.py).
    """
    assert dynamic(library, "DT_RUNPATH") == ["$ORIGIN:$ORIGIN/../tvm/lib:$ORIGIN/../tvm_ffi/lib"]
    assert dynamic(library, "DT_RPATH") == []
    assert dynamic(library, "DT_SONAME") == [name.split("/")[-1]]


def test_shows_only_its_cpp_interface(library: ELFFile) -> None:
    """None of tokenizers, sentencepiece, xgrammar, protobuf, Oniguruma, Rust or libstdc++, which others in a process
    may hold too.
    """
    defined = symbols(library, defined=True)
    assert defined and all(re.match(r"_ZNK?3mlc3llm\d", symbol) for symbol in defined), defined


def test_every_symbol_that_it_takes_from_tvm_is_defined_there(library: ELFFile) -> None:
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
    for trace in (b"/execroot/", b"/sandbox/", b"bazel-out/", b"/home/", b"/root/", b"/tmp/", b"/.cargo/"):
        assert trace not in content, trace


def test_relocations_are_read_only_and_the_stack_is_not_executable(library: ELFFile) -> None:
    segments = {segment["p_type"]: segment for segment in library.iter_segments()}
    assert "PT_GNU_RELRO" in segments
    assert segments["PT_GNU_STACK"]["p_flags"] & 1 == 0
