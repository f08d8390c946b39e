"""Without a driver TVM leaves CUDA source in a library; cuda_modules compiles it and changes nothing else."""

from __future__ import annotations

import sys
import types

import affine
import pytest
import tvm_ffi

import tvm
from models.private import compile_relax, cuda_modules

HOST = {"kind": "llvm", "mtriple": "x86_64-unknown-linux-gnu"}
TARGET = tvm.target.Target(
    {"kind": "cuda", "arch": "sm_90", "max_threads_per_block": 1024, "max_shared_memory_per_block": 49152, "host": HOST}
)
CODE = b"\x7fELF machine code"


def packed(module: tvm.IRModule, target: tvm.target.Target = TARGET) -> bytes:
    """The device modules that TVM packs into a library."""
    executable = tvm.compile(compile_relax.schedule(module, target), target=target)
    return tvm_ffi.get_global_func("runtime.ModulePackImportsToTensor")(executable.mod).numpy().tobytes()


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The sources given to a fake compiler, which always returns CODE."""
    compiled = []

    def compile_source(source: bytes, target: tvm.target.Target) -> bytes:
        assert target.same_as(TARGET)
        compiled.append(source)
        return CODE

    monkeypatch.setattr(cuda_modules, "compile_source", compile_source)
    return compiled


@pytest.mark.parametrize("module", [affine.kernel(), affine.module()], ids=["kernel", "relax"])
def test_replaces_source_by_machine_code_and_keeps_the_rest(sources: list[bytes], module: tvm.IRModule) -> None:
    before = packed(module)
    after = cuda_modules.compile_imports(before, TARGET)
    (source,) = sources
    assert b"__global__" in source and cuda_modules.block(source) in before
    kind = cuda_modules.block(b"cuda")
    start = before.index(kind) + len(kind)
    saved = cuda_modules.Reader(before[start:]).block()
    table = saved[len(kind) : -len(cuda_modules.block(source))]
    compiled = cuda_modules.block(cuda_modules.block(b"cubin") + table + cuda_modules.block(CODE))
    end = start + len(cuda_modules.block(saved))
    assert after == cuda_modules.block(before[cuda_modules.LENGTH.size : start] + compiled + before[end:])
    # Nothing is left to compile.
    assert cuda_modules.compile_imports(after, TARGET) == after
    assert len(sources) == 1


def test_other_modules_stay(sources: list[bytes]) -> None:
    before = packed(affine.module(), tvm.target.Target(HOST, host=HOST))
    assert cuda_modules.compile_imports(before, TARGET) == before
    assert sources == []


def test_the_format_of_another_tvm_is_refused(sources: list[bytes]) -> None:
    saved = cuda_modules.block(b"cuda") + cuda_modules.LENGTH.pack(0) + cuda_modules.block(b"source") + b"more"
    with pytest.raises(ValueError, match="expected a saved CUDA module in the format of TVM 0.26"):
        cuda_modules.with_machine_code(saved, TARGET)
    assert sources == []


def test_an_error_of_nvcc_is_shown_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_name: str) -> object:
        def compile_cuda(source: str) -> bytes:
            assert tvm.target.Target.current().attrs["arch"] == "sm_90"
            raise RuntimeError(f"{source}\nCompilation error:\nkernels.cu(1): error: no such thing\n")

        return compile_cuda

    monkeypatch.setattr(tvm_ffi, "get_global_func", refuse)
    with pytest.raises(cuda_modules.NvccError) as caught:
        cuda_modules.compile_source(b"__global__", TARGET)
    assert str(caught.value) == "kernels.cu(1): error: no such thing\nnvcc failed on the kernels for sm_90, see above"


@pytest.mark.parametrize("flag", cuda_modules.REFUSED)
def test_flags_without_effect_are_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch, flag: str) -> None:
    flags = types.SimpleNamespace(flashinfer=True, **dict.fromkeys(cuda_modules.REFUSED, 0))
    stand_in = types.ModuleType("mlc_llm.interface.compiler_flags")
    stand_in.OptimizationFlags = types.SimpleNamespace(from_str=lambda _: flags)  # type: ignore[attr-defined]
    for name in ("mlc_llm", "mlc_llm.interface"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, stand_in.__name__, stand_in)
    assert cuda_modules.check_flags("O2") is flags
    setattr(flags, flag, 1)
    with pytest.raises(SystemExit) as caught:
        cuda_modules.check_flags("O3")
    line = str(caught.value)
    assert line.startswith(f"opt 'O3': expected flags that this build has, found {flag}: ") and "\n" not in line
