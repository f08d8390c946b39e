"""GPU libraries compiled without a GPU hold machine code and no source, and are the same from every folder."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from models.private import build_relax

NAMES = ("AFFINE", "FLASHINFER", "FOUR_BITS", "KERNEL", "SEVERAL", "TINY")
LIBRARIES = {name: Path(os.environ[name]).absolute() for name in NAMES if name in os.environ}
SOURCE, COMPILER, NVCC = (Path(os.environ[name]) for name in ("SOURCE", "CXX", "NVCC"))
LLVM = {"kind": "llvm", "mtriple": "x86_64-unknown-linux-gnu", "mcpu": "x86-64-v3"}
MAGIC = 0xBA55ED50
"""The first four bytes of a fat binary."""
PTX, MACHINE_CODE = 1, 2


@dataclasses.dataclass(frozen=True)
class Code:
    """A part of a fat binary."""

    kind: int
    architecture: int
    """90 is sm_90."""


def codes(data: bytes) -> Iterator[Code]:
    """The parts of all fat binaries in a file.

    The format is undocumented but stable for years: a header with magic number, version, its size, and size of
    the parts; each part with kind, version, size of its header, size of its content, and at byte 28 its architecture.
    """
    start = data.find(struct.pack("<I", MAGIC))
    while start >= 0:
        _, _, header, size = struct.unpack_from("<IHHQ", data, start)
        position, end = start + header, start + header + size
        while position < end:
            kind, _, header, size = struct.unpack_from("<HHIQ", data, position)
            (architecture,) = struct.unpack_from("<I", data, position + 28)
            yield Code(kind, architecture)
            position += header + size
        assert position == end, "a fat binary of an unknown format"
        start = data.find(struct.pack("<I", MAGIC), end)


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs build_relax in a new folder, on a source with another name."""
    environments = [Path(folder).absolute() for folder in os.environ["PYTHONPATH"].split(os.pathsep)]
    options = ["--output", tmp_path / "library.so", "--compiler", COMPILER.absolute(), "--nvcc", NVCC.absolute()]
    folder, temporary = tmp_path / "a folder", tmp_path / "temporary"
    folder.mkdir()
    temporary.mkdir()
    shutil.copy(SOURCE, folder / "renamed.py")
    monkeypatch.chdir(folder)
    monkeypatch.setattr("tempfile.tempdir", str(temporary))

    def call(function: str, target: dict | None = None, **arguments: int) -> int:
        # What cuda_target() returns.
        target = target or {
            "arch": "sm_90",
            "host": LLVM,
            "keys": ["cuda", "gpu"],
            "kind": "cuda",
            "max_shared_memory_per_block": 49152,
            "max_threads_per_block": 1024,
            "registers_per_block": 65536,
            "thread_warp_size": 32,
        }
        command = [
            "--source",
            "renamed.py",
            "--function",
            function,
            "--arguments",
            json.dumps(arguments),
            "--target",
            json.dumps(target),
        ]
        for environment in environments:
            command += ["--environment", str(environment)]
        monkeypatch.setattr(sys, "argv", ["build_relax", *map(str, options + command)])
        return build_relax.main()

    return call


@pytest.mark.parametrize("name", LIBRARIES)
def test_has_machine_code_of_its_architectures_and_no_source(name: str) -> None:
    data = LIBRARIES[name].read_bytes()
    expected = {Code(MACHINE_CODE, arch) for arch in ((80, 90) if name in ("FOUR_BITS", "SEVERAL") else (90,))}
    assert set(codes(data)) == expected
    assert b"__global__" not in data and b"#include" not in data


@pytest.mark.parametrize("name", LIBRARIES)
def test_names_no_folder_of_the_build(name: str) -> None:
    data = LIBRARIES[name].read_bytes()
    for trace in (b"tmpxft", b"tvm_kernels", b"/tmp/", b"bazel-out", b"execroot"):
        assert trace not in data


def test_flashinfers_kernels_are_in_the_library_and_name_what_they_call() -> None:
    with LIBRARIES["FLASHINFER"].open("rb") as file:
        elf = ELFFile(file)
        dynamic = list(elf.get_section_by_name(".dynamic").iter_tags())
        symbols = list(elf.get_section_by_name(".dynsym").iter_symbols())
    assert {"libcudart.so.13", "libtvm_ffi.so"} <= {tag.needed for tag in dynamic if tag.entry.d_tag == "DT_NEEDED"}
    assert not {"DT_RPATH", "DT_RUNPATH"} & {tag.entry.d_tag for tag in dynamic}
    exported = {each.name for each in symbols if each["st_shndx"] != "SHN_UNDEF"}
    calls = {f"__tvm_ffi_batch_{name}" for name in ("decode_plan", "decode_run", "prefill_plan")}
    calls |= {f"__tvm_ffi_batch_prefill_{layout}_run" for layout in ("paged", "ragged")}
    assert calls <= exported
    # Two models in one process must not share a kernel.
    assert not [name for name in exported if "BatchPrefill" in name or "BatchDecode" in name]


if "TINY" in LIBRARIES:  # A build with mlc-llm's sources.

    def test_a_model_of_four_bits_has_all_kernels() -> None:
        data = LIBRARIES["FOUR_BITS"].read_bytes()
        for name in (b"create_flashinfer_paged_kv_cache", b"mlc_bazel_four_bit_product", b"cublas.matmul_transposed"):
            assert name in data

    def test_a_step_of_a_model_is_a_graph_if_flashinfer_has_its_attention() -> None:
        graph = b"batch_decode_in_graph_cuda_graph_capture"
        for name, expected in (("FOUR_BITS", True), ("TINY", False)):
            data = LIBRARIES[name].read_bytes()
            assert (graph in data) == (b"mlc_bazel.attention_in_step" in data) == expected

    def test_a_model_without_a_kernel_for_its_heads_has_tvms_attention() -> None:
        data = LIBRARIES["TINY"].read_bytes()
        assert b"create_tir_paged_kv_cache" in data and b"create_flashinfer_paged_kv_cache" not in data

    def test_products_of_a_model_are_calls_of_cublas() -> None:
        data = LIBRARIES["TINY"].read_bytes()
        assert struct.pack("<Q", 11) + b"cublas_json" in data and b'"name":"cublas.matmul_transposed"' in data


@pytest.mark.parametrize(
    ("name", "function", "arguments"), [("AFFINE", "module", {"width": 16}), ("KERNEL", "kernel", {})]
)
def test_is_the_same_from_another_folder(
    build: Callable[..., int], tmp_path: Path, capfd: pytest.CaptureFixture, name: str, function: str, arguments: dict
) -> None:
    expected = LIBRARIES[name].read_bytes()
    assert build(function, **arguments) == 0, capfd.readouterr().err
    assert (tmp_path / "library.so").read_bytes() == expected


def test_an_error_of_nvcc_is_shown(build: Callable[..., int], capfd: pytest.CaptureFixture) -> None:
    assert build("unknown_function") == 1
    *above, line = capfd.readouterr().err.splitlines()
    assert 'error: identifier "no_such_function" is undefined' in "\n".join(above)
    assert line == "build_relax: renamed.py: nvcc failed on the kernels for sm_90, see above"


@pytest.mark.parametrize("arch", ["sm_20", "sm_999"])
def test_the_error_of_an_unknown_architecture_lists_the_known_ones(
    build: Callable[..., int], capfd: pytest.CaptureFixture, arch: str
) -> None:
    assert build("kernel", {"kind": "cuda", "arch": arch, "host": LLVM}) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert (
        line.startswith("build_relax: target of kind cuda: expected one of the architectures sm_75, ")
        and f", found {arch}; " in line
    )


@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
def test_compiles_for_a_requested_architecture(build: Callable[..., int], tmp_path: Path, arch: str) -> None:
    assert build("kernel", {"kind": "cuda", "arch": arch, "host": LLVM}) == 0
    expected = {Code(MACHINE_CODE, int(arch.removeprefix("sm_").rstrip("a")))}
    assert set(codes((tmp_path / "library.so").read_bytes())) == expected
