"""Looks for devices in this process. Upstream starts Python for each kind, which took most of a server's start.

Looking starts CUDA: a process that forks without exec must do so before.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
from typing import Any

import tvm_ffi
from tvm.runtime import Device
from tvm.runtime import device as tvm_device
from tvm_ffi import DLDeviceType

from . import library_parts
from .after_import import after_import
from .model_check import ModelError, why_not_loaded


class DeviceError(ModelError, argparse.ArgumentTypeError):
    """There is no such device. argparse shows the message of this error, of an option as of an engine's argument."""


def _exists(device: Device) -> bool:
    if device.dlpack_device_type() == DLDeviceType.kDLCPU:
        # TVM takes any number for the CPU.
        return bool(device.index == 0)
    try:
        return bool(device.exist)
    except Exception:
        return False


def _why_not(name: str) -> str:
    """Says why TVM has no device of this name."""
    kind = name.partition(":")[0]
    if not re.fullmatch(r"[a-z]+(:\d+)?", name):
        return "no name of a device, such as cpu or cuda:0"
    if kind != "cuda":
        return "others" if kind == "cpu" else "none: this build of TVM is for cpu and cuda"
    if not tvm_ffi.get_global_func(library_parts.CUDA.function, allow_missing=True):
        return why_not_loaded(library_parts.CUDA)
    if not _exists(tvm_device("cuda", 0)):
        return "no GPU that CUDA can use: see nvidia-smi and CUDA_VISIBLE_DEVICES; a container needs --gpus all"
    return "others"


def _change(auto_device: Any) -> None:
    auto_device._device_exists = _exists
    upstream = auto_device.detect_device

    def detect_device(name: str) -> Device:
        try:
            found = upstream(name)
        except ValueError:
            raise DeviceError(f"device {name}: expected one that TVM finds, found {_why_not(name)}") from None
        if name == "auto" and found == tvm_device("cpu", 0) and importlib.util.find_spec("tvm_cuda"):
            auto_device.logger.info("No GPU: %s", _why_not("cuda"))
        return found

    auto_device.detect_device = detect_device


def install() -> None:
    """Changes what `--device` of mlc_llm's commands and `device` of its engines look for."""
    after_import("mlc_llm.support.auto_device", _change)
