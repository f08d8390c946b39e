"""The wheel of TVM's GPU half: its libraries run where the tag says, bring nothing of NVIDIA's, and belong to one build
of TVM.
"""

from __future__ import annotations

import configparser
import os
import re

import pytest
from auditwheel.architecture import Architecture
from auditwheel.libc import Libc
from auditwheel.wheel_abi import analyze_wheel_abi
from elf import SYSTEM_LIBRARIES, dynamic, elf, symbols
from wheels_under_test import official, open_wheel, ours

WHEEL = open_wheel("TVM_CUDA_WHEEL")

# NVIDIA's libraries that each of ours calls.
NEEDS = {
    "libtvm_cublas.so": {"libcublas.so.13", "libcublasLt.so.13", "libcudart.so.13"},
    "libtvm_cudnn.so": {"libcudart.so.13", "libcudnn.so.9"},
    "libtvm_curand.so": {"libcudart.so.13", "libcurand.so.10"},
    "libtvm_nccl.so": {"libcudart.so.13", "libnccl.so.2"},
    "libtvm_runtime_cuda.so": {"libcuda.so.1", "libcudart.so.13"},
}
TVM_LIBRARIES = {"libtvm_ffi.so", "libtvm_runtime.so", "libtvm_runtime_extra.so"}

# With TVM's repository the device runtime is compiled too; without it is the official one.
FROM_SOURCE = sorted(set(NEEDS) - (set() if os.environ["WITH_SOURCES"] == "True" else {"libtvm_runtime_cuda.so"}))


def library(name: str):
    return elf(WHEEL, f"tvm_cuda/lib/{name}")


def test_there_are_these_libraries_and_no_other() -> None:
    assert sorted(WHEEL.libraries()) == [f"tvm_cuda/lib/{name}" for name in sorted(NEEDS)]


def test_auditwheel_agrees_with_the_tag() -> None:
    elsewhere = frozenset(TVM_LIBRARIES.union(*NEEDS.values()))
    abi = analyze_wheel_abi(
        Libc.GLIBC, Architecture.x86_64, WHEEL.path, elsewhere, disable_isa_ext_check=False, allow_graft=False
    )
    supported = {abi.overall_policy.name, *abi.overall_policy.aliases}
    newest = max(int(name.split("_")[2]) for name in supported if name.startswith("manylinux_2_"))
    assert newest <= int(re.search(r"manylinux_2_(\d+)_", WHEEL.path.name)[1]), (
        f"needs {supported}: {abi.versioned_symbols}"
    )


@pytest.mark.parametrize("name", sorted(NEEDS))
def test_needs_its_own_library_of_nvidia_and_no_other(name) -> None:
    needed = set(dynamic(library(name), "DT_NEEDED"))
    assert needed - SYSTEM_LIBRARIES - TVM_LIBRARIES == NEEDS[name]
    assert dynamic(library(name), "DT_SONAME") == [name]


@pytest.mark.parametrize("name", FROM_SOURCE)
def test_finds_nvidias_wheels_beside_it(name) -> None:
    assert dynamic(library(name), "DT_RUNPATH") == [
        "$ORIGIN:$ORIGIN/../../nvidia/cu13/lib:$ORIGIN/../../nvidia/cudnn/lib:$ORIGIN/../../nvidia/nccl/lib"
    ]
    assert dynamic(library(name), "DT_RPATH") == []


@pytest.mark.parametrize("name", FROM_SOURCE)
def test_compiled_by_the_pinned_gcc(name) -> None:
    assert b"GCC: (Debian 10.2.1-6) 10.2.1 20210110" in library(name).get_section_by_name(".comment").data()


@pytest.mark.parametrize("name", sorted(NEEDS))
def test_names_no_path_of_the_machine_that_built_it(name) -> None:
    content = WHEEL.zip.read(f"tvm_cuda/lib/{name}")
    for trace in (b"/execroot/", b"/sandbox/", b"bazel-out/", b"/home/", b"/root/", b"/tmp/", b"tmpxft"):
        assert trace not in content, trace


@pytest.mark.parametrize("name", FROM_SOURCE)
def test_stripped(name) -> None:
    assert library(name).get_section_by_name(".symtab") is None


def test_what_is_taken_from_tvm_is_there() -> None:
    defined = set()
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


def test_the_device_runtime_defines_what_the_official_one_does() -> None:
    theirs = symbols(elf(official()["tvm"], "tvm/lib/libtvm_runtime_cuda.so"), defined=True)
    mine = symbols(library("libtvm_runtime_cuda.so"), defined=True)
    functions = {
        symbol for symbol in theirs if "GetCudaDeviceCount" in symbol or "CUDA" in symbol and "Module" in symbol
    }
    assert functions and not functions - mine


def test_tvm_loads_it_through_its_extension_point() -> None:
    entry_points = configparser.ConfigParser()
    entry_points.read_string(WHEEL.zip.read(f"{WHEEL.dist_info}/entry_points.txt").decode())
    assert dict(entry_points["tvm.backends"]) == {"cuda_parts": "tvm_cuda:autoload"}


def test_requires_exactly_the_tvm_of_its_build() -> None:
    requirements = {re.sub(r"\s", "", line) for line in WHEEL.metadata().get_all("Requires-Dist")}
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


def test_licences_of_what_is_compiled_in_are_there() -> None:
    text = WHEEL.zip.read(f"{WHEEL.dist_info}/licenses/THIRD_PARTY_LICENSES.txt").decode()
    for name in ("dlpack", "kernels of TensorRT-LLM", "parts of GCC's C++ library"):
        assert re.search(rf"^-{{100}}\n(.+, )?{re.escape(name)}(, .+)?\n-{{100}}$", text, re.MULTILINE), name
