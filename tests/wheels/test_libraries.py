"""The libraries in our wheels run where their tag says, find each other, and fit the prebuilt compiler."""

import pytest
from auditwheel.architecture import Architecture
from auditwheel.libc import Libc
from auditwheel.wheel_abi import analyze_wheel_abi
from elf import SYSTEM_LIBRARIES, dynamic, elf, symbols
from wheels_under_test import official, ours

# From the other wheel.
ELSEWHERE = frozenset({"libtvm_ffi.so"})

OURS = {
    "tvm": ["tvm/lib/libtvm_runtime.so", "tvm/lib/libtvm_runtime_extra.so"],
    "tvm_ffi": ["tvm_ffi/lib/libtvm_ffi.so", "tvm_ffi/lib/libtvm_ffi_testing.so"],
}
OUR_LIBRARIES = [(package, name) for package, names in OURS.items() for name in names]


@pytest.mark.parametrize("package", sorted(OURS))
def test_auditwheel_agrees_with_the_tag(package) -> None:
    abi = analyze_wheel_abi(
        Libc.GLIBC, Architecture.x86_64, ours()[package].path, ELSEWHERE, disable_isa_ext_check=False, allow_graft=False
    )
    supported = {abi.overall_policy.name, *abi.overall_policy.aliases}
    newest = max(int(name.split("_")[2]) for name in supported if name.startswith("manylinux_2_"))
    assert newest <= 28, f"needs {supported}: {abi.versioned_symbols}"


@pytest.mark.parametrize(("package", "name"), OUR_LIBRARIES)
def test_compiled_by_the_pinned_gcc(package, name) -> None:
    assert (
        b"GCC: (Debian 10.2.1-6) 10.2.1 20210110" in elf(ours()[package], name).get_section_by_name(".comment").data()
    )


@pytest.mark.parametrize(("package", "name"), OUR_LIBRARIES)
def test_run_path_is_origin_and_nothing_else(package, name) -> None:
    library = elf(ours()[package], name)
    assert dynamic(library, "DT_RUNPATH") == ["$ORIGIN"]
    assert dynamic(library, "DT_RPATH") == []
    assert dynamic(library, "DT_SONAME") == [name.split("/")[-1]]


@pytest.mark.parametrize(("package", "name"), OUR_LIBRARIES)
def test_needs_only_the_system_and_its_siblings(package, name) -> None:
    needed = set(dynamic(elf(ours()[package], name), "DT_NEEDED"))
    assert needed - SYSTEM_LIBRARIES <= {"libtvm_ffi.so", "libtvm_runtime.so"} - {name.split("/")[-1]}


@pytest.mark.parametrize(("package", "name"), OUR_LIBRARIES)
def test_stripped_with_a_link_to_its_symbols(package, name) -> None:
    library = elf(ours()[package], name)
    assert library.get_section_by_name(".symtab") is None
    assert not [section.name for section in library.iter_sections() if section.name.startswith(".debug_")]
    assert library.get_section_by_name(".gnu_debuglink").data().startswith(name.split("/")[-1].encode() + b".debug\0")


@pytest.mark.parametrize(("package", "name"), OUR_LIBRARIES)
def test_names_no_path_of_the_machine_that_built_it(package, name) -> None:
    content = ours()[package].zip.read(name)
    for trace in (b"/execroot/", b"/sandbox/", b"bazel-out/", b"/home/", b"/root/", b"/tmp/"):
        assert trace not in content, trace


def test_prebuilt_libraries_find_every_symbol_they_took_from_the_official_runtime() -> None:
    """What the prebuilt compiler and CUDA runtime, which a build without TVM's repository ships, import from the
    libraries that we exchange, ours define too.
    """
    theirs, mine = set(), set()
    for package, name in OUR_LIBRARIES:
        theirs |= symbols(elf(official()[package], name), defined=True)
        mine |= symbols(elf(ours()[package], name), defined=True)
    for name in ("tvm/lib/libtvm_compiler.so", "tvm/lib/libtvm_runtime_cuda.so"):
        imported = symbols(elf(official()["tvm"], name), defined=False) & theirs
        tvm = {symbol for symbol in imported if "tvm" in symbol or symbol.startswith("TVM")}
        assert tvm, name
        assert not tvm - mine, name
