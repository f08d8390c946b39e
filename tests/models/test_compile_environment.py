"""Models are compiled with a linker, and with nvcc for a GPU. Errors about a target list the supported ones."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from models.private.compile_environment import (
    MULTI_ARCH,
    TargetError,
    architectures,
    run_python,
    split_target,
    target_variables,
)

CPU = json.dumps({"kind": "llvm", "mcpu": "x86-64-v3"})


@pytest.fixture
def nvcc(tmp_path: Path) -> Path:
    """A fake nvcc that lists a few architectures in the form of the real one."""
    program = tmp_path / "nvcc"
    program.write_text('#!/bin/sh\ntest "$1" = --list-gpu-code && printf "sm_75\\nsm_100\\nsm_90\\ncompute_75\\n"\n')
    program.chmod(0o755)
    return program


def test_lists_architectures_with_machine_code_oldest_first(nvcc: Path) -> None:
    assert architectures(nvcc) == ["sm_75", "sm_90", "sm_100"]


def test_a_cpu_needs_only_the_linker() -> None:
    assert split_target(CPU) == (CPU, [])
    assert target_variables([], Path("bin/g++"), None) == {"CXX": str(Path.cwd() / "bin/g++")}


@pytest.mark.parametrize("arch", ["sm_75", "sm_90", "sm_90a", "sm_100f"])
def test_a_gpu_needs_absolute_paths_of_nvcc_and_its_host_compiler(
    nvcc: Path, arch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(nvcc.parent)
    compiler = str(Path.cwd() / "bin/g++")
    assert target_variables([arch], Path("bin/g++"), Path("nvcc")) == {
        "CXX": compiler,
        "NVCC_PREPEND_FLAGS": f"-ccbin={compiler}",
        "PATH": str(Path.cwd()),
        "TVM_CUDA_COMPILE_MODE": "nvcc",
    }


@pytest.mark.parametrize("arch", ["sm_20", "sm_999", "sm_89", "90", "compute_90"])
def test_the_error_of_an_unsupported_architecture_lists_the_supported_ones(nvcc: Path, arch: str) -> None:
    with pytest.raises(TargetError) as caught:
        target_variables([arch], Path("g++"), nvcc)
    assert (
        str(caught.value)
        == f"target of kind cuda: expected one of the architectures sm_75, sm_90, sm_100, found {arch}; give"
        " cuda_target(arch = ...) one of them"
    )


@pytest.mark.parametrize("target", ["llvm", "cuda -arch=sm_90", "3", "[]", "{}", '{"arch": "sm_90"}'])
def test_a_malformed_target_is_refused(target: str) -> None:
    with pytest.raises(TargetError) as caught:
        split_target(target)
    assert (
        str(caught.value)
        == f"target {target!r}: expected a TVM target as JSON, like those of cpu_target() and cuda_target() in"
        " //models:defs.bzl"
    )


def test_several_architectures_are_one_for_tvm_and_all_for_nvcc(nvcc: Path) -> None:
    one = {"kind": "cuda", "arch": "sm_75"}
    target, found = split_target(json.dumps(one | {"other_archs": ["sm_90a", "sm_100"]}))
    assert (json.loads(target), found) == (one, ["sm_75", "sm_90a", "sm_100"])
    assert target_variables(found, Path("g++"), nvcc)[MULTI_ARCH] == "75,90a,100"
    assert MULTI_ARCH not in target_variables(["sm_75"], Path("g++"), nvcc)
    with pytest.raises(TargetError, match="found sm_80; "):
        target_variables(["sm_75", "sm_80"], Path("g++"), nvcc)


def test_a_target_without_an_architecture_is_refused(nvcc: Path) -> None:
    target, found = split_target('{"kind": "cuda"}')
    with pytest.raises(TargetError, match="found None; "):
        target_variables(found, Path("g++"), nvcc)


def test_a_gpu_without_nvcc_is_refused() -> None:
    with pytest.raises(TargetError, match="expected nvcc, found none; give --nvcc"):
        target_variables(["sm_90"], Path("g++"), None)


def test_nvcc_by_another_name_is_refused(nvcc: Path) -> None:
    """TVM calls it by name."""
    with pytest.raises(TargetError, match="wrapped: expected a program named nvcc, because TVM calls it by that name"):
        target_variables(["sm_90"], Path("g++"), nvcc.rename(nvcc.with_name("wrapped")))


@pytest.mark.parametrize("content", [None, "#!/bin/sh\necho no libc >&2\nexit 127\n"])
def test_an_nvcc_that_does_not_run_is_reported(tmp_path: Path, content: str | None) -> None:
    nvcc = tmp_path / "nvcc"
    if content:
        nvcc.write_text(content)
        nvcc.chmod(0o755)
    with pytest.raises(TargetError) as caught:
        target_variables(["sm_90"], Path("g++"), nvcc)
    assert str(caught.value).startswith(
        f"{nvcc}: expected nvcc, which lists its architectures; found that it does not run ("
    )
    assert ("no libc" if content else "No such file") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_python_runs_in_temporary_folders_and_its_output_is_returned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    program = (
        "import json, os, sys; print(json.dumps(dict(os.environ)), flush=True); print('error', file=sys.stderr);"
        " sys.exit(3)"
    )
    done = run_python(["-c", program], [Path("first"), Path("second")], TVM_CUDA_COMPILE_MODE="nvcc")
    environment, error = done.stdout.splitlines()
    seen = json.loads(environment)
    assert (done.returncode, error) == (3, "error")
    assert seen["PYTHONPATH"] == f"{Path.cwd()}/first{os.pathsep}{Path.cwd()}/second"
    assert (seen["PYTHONHASHSEED"], seen["TVM_CUDA_COMPILE_MODE"]) == ("0", "nvcc")
    assert (
        Path(seen["TMPDIR"]).parents[1] == Path(seen["HOME"]).parents[1] == tmp_path and seen["TMPDIR"] != seen["HOME"]
    )
    assert list(tmp_path.iterdir()) == []
