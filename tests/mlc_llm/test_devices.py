"""Devices are found, and without a process for each kind."""

from __future__ import annotations

import subprocess
import sys

import pytest
import tvm_ffi
from mlc_llm._mlc_bazel import devices
from mlc_llm._mlc_bazel.model_check import ModelError
from mlc_llm.support import auto_device

import tvm


@pytest.fixture(autouse=True)
def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("expected no process")

    monkeypatch.setattr(subprocess, "Popen", refused)


def test_the_first_kind_that_there_is() -> None:
    expected = "cuda:0" if tvm.cuda().exist else "cpu:0"
    assert auto_device.device2str(auto_device.detect_device("auto")) == expected


def test_the_cpu_is_one_device() -> None:
    assert auto_device.device2str(auto_device.detect_device("cpu")) == "cpu:0"
    with pytest.raises(ModelError, match="device cpu:1: expected one that TVM finds, found others$"):
        auto_device.detect_device("cpu:1")


@pytest.mark.parametrize("name", ["cuda:x", "cuda:-1", "CPU", "cpu:0:0", ""])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(ModelError, match="found no name of a device, such as cpu or cuda:0$"):
        auto_device.detect_device(name)


@pytest.mark.parametrize("name", ["rocm", "vulkan", "opencl:0", "metal", "nonsense"])
def test_a_kind_that_there_is_not(name: str) -> None:
    with pytest.raises(ModelError) as caught:
        auto_device.detect_device(name)
    expected = f"device {name}: expected one that TVM finds, found none: this build of TVM is for cpu and cuda"
    assert str(caught.value) == expected


def test_a_gpu_that_there_is_not() -> None:
    with pytest.raises(ModelError, match=r"^device cuda:99: expected one that TVM finds, found \w[^\n]*$") as caught:
        auto_device.detect_device("cuda:99")
    # Why there is none, or that there are others.
    assert any(word in str(caught.value) for word in ("apache-tvm-cuda", "driver", "found others"))


def test_cuda_that_can_use_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tvm_ffi, "get_global_func", lambda name, allow_missing: True)
    monkeypatch.setattr(devices, "_exists", lambda device: False)
    assert devices._why_not("cuda:1").startswith("no GPU that CUDA can use: see nvidia-smi")
    monkeypatch.setattr(devices, "_exists", lambda device: True)
    assert devices._why_not("cuda:1") == "others"


@pytest.mark.parametrize(
    "command",
    [
        ("convert_weight", "/nonexistent", "--quantization", "q0f32", "--output", "/nonexistent", "--device", "rocm"),
        ("compile", "/nonexistent", "--output", "x.so", "--device", "rocm"),
        ("serve", "/nonexistent", "--device", "rocm"),
    ],
)
def test_a_command_says_it_in_a_line(monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]) -> None:
    monkeypatch.undo()
    done = subprocess.run([sys.executable, "-m", "mlc_llm", *command], capture_output=True, text=True)
    assert done.returncode != 0 and "Traceback" not in done.stderr
