"""Devices are found, and without a process for each kind."""

from __future__ import annotations

import subprocess

import pytest
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
    with pytest.raises(ModelError, match="device cpu:1: expected one that TVM finds, found none of this number$"):
        auto_device.detect_device("cpu:1")


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
    assert any(word in str(caught.value) for word in ("apache-tvm-cuda", "driver", "of this number"))
