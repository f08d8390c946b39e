"""The libraries in TVM's wheels run wherever their tag says, find each other, and fit the prebuilt compiler."""

from __future__ import annotations

import os

import pytest
from elf import SYSTEM_LIBRARIES, assert_auditwheel_agrees_with_the_tag, dynamic, elf, symbols
from wheels_under_test import MACHINE_PATHS, official, open_wheel, ours

PYTHONS = os.environ["PYTHONS"].split()

# In the wheel apache-tvm-ffi.
ELSEWHERE = frozenset({"libtvm_ffi.so"})

OURS = {
    "tvm": ["tvm/lib/libtvm_runtime.so", "tvm/lib/libtvm_runtime_extra.so"],
    "tvm_ffi": ["tvm_ffi/lib/libtvm_ffi.so", "tvm_ffi/lib/libtvm_ffi_testing.so"],
}
OUR_LIBRARIES = [(package, name) for package, names in OURS.items() for name in names]


@pytest.mark.parametrize("package", sorted(OURS))
def test_auditwheel_agrees_with_the_tag(package: str) -> None:
    assert_auditwheel_agrees_with_the_tag(ours()[package], ELSEWHERE)


@pytest.mark.parametrize(("package", "name"), OUR_LIBRARIES)
def test_compiled_by_the_pinned_gcc(package: str, name: str) -> None:
    assert (
        b"GCC: (Debian 10.2.1-6) 10.2.1 20210110" in elf(ours()[package], name).get_section_by_name(".comment").data()
    )


@pytest.mark.parametrize(("package", "name"), OUR_LIBRARIES)
def test_run_path_is_origin_alone(package: str, name: str) -> None:
    library = elf(ours()[package], name)
    assert dynamic(library, "DT_RUNPATH") == ["$ORIGIN"]
    assert dynamic(library, "DT_RPATH") == []
    assert dynamic(library, "DT_SONAME") == [name.split("/")[-1]]


@pytest.mark.parametrize(("package", "name"), OUR_LIBRARIES)
def test_needs_only_the_system_and_its_siblings(package: str, name: str) -> None:
    needed = set(dynamic(elf(ours()[package], name), "DT_NEEDED"))
    assert needed - SYSTEM_LIBRARIES <= {"libtvm_ffi.so", "libtvm_runtime.so"} - {name.split("/")[-1]}


@pytest.mark.parametrize(("package", "name"), OUR_LIBRARIES)
def test_stripped_with_a_link_to_its_symbols(package: str, name: str) -> None:
    library = elf(ours()[package], name)
    assert library.get_section_by_name(".symtab") is None
    assert not [section.name for section in library.iter_sections() if section.name.startswith(".debug_")]
    assert library.get_section_by_name(".gnu_debuglink").data().startswith(name.split("/")[-1].encode() + b".debug\0")


@pytest.mark.parametrize(("package", "name"), OUR_LIBRARIES)
def test_names_no_path_of_the_machine_that_built_it(package: str, name: str) -> None:
    content = ours()[package].zip.read(name)
    for trace in MACHINE_PATHS:
        assert trace not in content, trace


@pytest.mark.parametrize("abi", ["cp311", *PYTHONS])
def test_the_module_of_each_python_is_for_its_abi_and_finds_its_libraries(abi: str) -> None:
    wheel = ours()["tvm_ffi"] if abi == "cp311" else open_wheel(f"TVM_FFI_{abi.upper()}")
    assert_auditwheel_agrees_with_the_tag(wheel, ELSEWHERE)
    (name,) = [name for name in wheel.libraries() if "/core." in name]
    module = elf(wheel, name)
    assert dynamic(module, "DT_RUNPATH") == ["$ORIGIN/lib"] and dynamic(module, "DT_RPATH") == []
    # The testing library is unloaded after the module; without libpython, as a module of any interpreter must be.
    assert set(dynamic(module, "DT_NEEDED")) - SYSTEM_LIBRARIES == {"libtvm_ffi.so", "libtvm_ffi_testing.so"}
    assert symbols(module, defined=True) == {"PyInit_core"}
    # What only the interpreters with and without the global lock have.
    imported = symbols(module, defined=False)
    assert ("_Py_DecRefShared" in imported) == (abi == "cp314t")
    assert not any(trace in wheel.zip.read(name) for trace in MACHINE_PATHS)


def test_our_runtime_defines_every_symbol_that_prebuilt_libraries_import() -> None:
    """Ours define what the prebuilt compiler and CUDA runtime import from the libraries we replace. A build without
    TVM's repository ships both.
    """
    theirs: set[str] = set()
    mine: set[str] = set()
    for package, name in OUR_LIBRARIES:
        theirs |= symbols(elf(official()[package], name), defined=True)
        mine |= symbols(elf(ours()[package], name), defined=True)
    for name in ("tvm/lib/libtvm_compiler.so", "tvm/lib/libtvm_runtime_cuda.so"):
        imported = symbols(elf(official()["tvm"], name), defined=False) & theirs
        tvm = {symbol for symbol in imported if "tvm" in symbol or symbol.startswith("TVM")}
        assert tvm, name
        assert not tvm - mine, name
