"""The wheel with TVM's GPU libraries: they run wherever the tag says, contain nothing of NVIDIA's, and belong to one
build of TVM.
"""

from __future__ import annotations

import configparser
import os
import re

import pytest
from elf import SYSTEM_LIBRARIES, assert_auditwheel_agrees_with_the_tag, dynamic, elf, symbols
from elftools.elf.elffile import ELFFile
from wheels_under_test import MACHINE_PATHS, official, open_wheel, ours

WHEEL = open_wheel("TVM_CUDA_WHEEL")

# Our library → the NVIDIA libraries it calls.
NEEDS = {
    "libtvm_cublas.so": {"libcublas.so.13", "libcublasLt.so.13", "libcudart.so.13"},
    "libtvm_cudnn.so": {"libcudart.so.13", "libcudnn.so.9"},
    "libtvm_curand.so": {"libcudart.so.13", "libcurand.so.10"},
    "libtvm_nccl.so": {"libcudart.so.13", "libnccl.so.2"},
    "libtvm_runtime_cuda.so": {"libcuda.so.1", "libcudart.so.13"},
}
TVM_LIBRARIES = {"libtvm_ffi.so", "libtvm_runtime.so", "libtvm_runtime_extra.so"}

# A build with TVM's repository compiles the device runtime too; otherwise it is the official one.
FROM_SOURCE = sorted(set(NEEDS) - (set() if os.environ["WITH_SOURCES"] == "True" else {"libtvm_runtime_cuda.so"}))


def library(name: str) -> ELFFile:
    return elf(WHEEL, f"tvm_cuda/lib/{name}")


def test_there_are_five_libraries() -> None:
    assert sorted(WHEEL.libraries()) == [f"tvm_cuda/lib/{name}" for name in sorted(NEEDS)]


def test_auditwheel_agrees_with_the_tag() -> None:
    elsewhere = frozenset(TVM_LIBRARIES.union(*NEEDS.values()))
    assert_auditwheel_agrees_with_the_tag(WHEEL, elsewhere)


@pytest.mark.parametrize("name", sorted(NEEDS))
def test_needs_only_its_own_nvidia_libraries(name: str) -> None:
    needed = set(dynamic(library(name), "DT_NEEDED"))
    assert needed - SYSTEM_LIBRARIES - TVM_LIBRARIES == NEEDS[name]
    assert dynamic(library(name), "DT_SONAME") == [name]


@pytest.mark.parametrize("name", FROM_SOURCE)
def test_run_path_leads_to_nvidias_wheels(name: str) -> None:
    assert dynamic(library(name), "DT_RUNPATH") == [
        "$ORIGIN:$ORIGIN/../../nvidia/cu13/lib:$ORIGIN/../../nvidia/cudnn/lib:$ORIGIN/../../nvidia/nccl/lib"
    ]
    assert dynamic(library(name), "DT_RPATH") == []


@pytest.mark.parametrize("name", FROM_SOURCE)
def test_compiled_by_the_pinned_gcc(name: str) -> None:
    assert b"GCC: (Debian 10.2.1-6) 10.2.1 20210110" in library(name).get_section_by_name(".comment").data()


@pytest.mark.parametrize("name", sorted(NEEDS))
def test_names_no_path_of_the_machine_that_built_it(name: str) -> None:
    content = WHEEL.zip.read(f"tvm_cuda/lib/{name}")
    for trace in (*MACHINE_PATHS, b"tmpxft"):
        assert trace not in content, trace


@pytest.mark.parametrize("name", FROM_SOURCE)
def test_stripped(name: str) -> None:
    assert library(name).get_section_by_name(".symtab") is None


def test_tvm_defines_every_symbol_that_they_import_from_tvm() -> None:
    defined: set[str] = set()
    for package, names in {
        "tvm": ["libtvm_runtime.so", "libtvm_runtime_extra.so"],
        "tvm_ffi": ["libtvm_ffi.so"],
    }.items():
        for name in names:
            defined |= symbols(elf(ours()[package], f"{package}/lib/{name}"), defined=True)
    for name in NEEDS:
        taken = {
            symbol for symbol in symbols(library(name), defined=False) if "tvm" in symbol or symbol.startswith("TVM")
        }
        weak = symbols(library(name), defined=True)
        assert not taken - defined - weak, name


def test_the_device_runtime_defines_what_the_official_one_defines() -> None:
    theirs = symbols(elf(official()["tvm"], "tvm/lib/libtvm_runtime_cuda.so"), defined=True)
    mine = symbols(library("libtvm_runtime_cuda.so"), defined=True)
    functions = {
        symbol for symbol in theirs if "GetCudaDeviceCount" in symbol or "CUDA" in symbol and "Module" in symbol
    }
    assert functions and not functions - mine


def test_tvm_loads_it_through_the_entry_point() -> None:
    entry_points = configparser.ConfigParser()
    entry_points.read_string(WHEEL.zip.read(f"{WHEEL.dist_info}/entry_points.txt").decode())
    assert dict(entry_points["tvm.backends"]) == {"cuda_parts": "tvm_cuda:autoload"}


def test_requires_exactly_the_tvm_of_its_build() -> None:
    requirements = {re.sub(r"\s", "", line) for line in WHEEL.metadata().get_all("Requires-Dist", [])}
    assert f"apache-tvm=={ours()['tvm'].metadata()['Version']}" in requirements
    assert f"apache-tvm-ffi=={ours()['tvm_ffi'].metadata()['Version']}" in requirements


def test_version_names_cuda_and_the_build() -> None:
    upstream = official()["tvm"].metadata()["Version"]
    assert re.fullmatch(re.escape(upstream) + r"\+mlc\d+\.\d+\.\d+\.cu130\.b[0-9a-f]{8}", WHEEL.metadata()["Version"])


def test_licence_is_tvms() -> None:
    theirs = official()["tvm"]
    assert WHEEL.zip.read(f"{WHEEL.dist_info}/licenses/LICENSE") == theirs.zip.read(
        f"{theirs.dist_info}/licenses/LICENSE"
    )
    assert WHEEL.zip.read(f"{WHEEL.dist_info}/licenses/NOTICE") == theirs.zip.read("tvm/NOTICE")


def test_has_the_licence_of_everything_compiled_in() -> None:
    assert {"dlpack", "kernels of TensorRT-LLM", "parts of GCC's C++ library"} <= WHEEL.license_headings()
