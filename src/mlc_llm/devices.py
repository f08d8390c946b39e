"""Looks for devices in this process. Upstream starts Python for each kind, which took most of a server's start."""

from __future__ import annotations

import logging
from typing import Any

import tvm_ffi
from tvm.runtime import Device
from tvm_ffi import DLDeviceType

from . import library_parts
from .after_import import after_import
from .model_check import ModelError, why_not_loaded

logger = logging.getLogger(__name__)


def _exists(device: Device) -> bool:
    if device.dlpack_device_type() == DLDeviceType.kDLCPU:
        # TVM takes any number for the CPU.
        return bool(device.index == 0)
    try:
        return bool(device.exist)
    except Exception as error:
        logger.debug("%s: %s", device, error)
        return False


def _why_not(name: str) -> str:
    """Says why TVM has no device of this name."""
    kind = name.partition(":")[0]
    if tvm_ffi.get_global_func(f"device_api.{kind}", allow_missing=True):
        return "none of this number"
    return why_not_loaded(library_parts.CUDA) if kind == "cuda" else "none: this build of TVM is for cpu and cuda"


def _change(auto_device: Any) -> None:
    auto_device._device_exists = _exists
    upstream = auto_device.detect_device

    def detect_device(name: str) -> Device:
        try:
            found = upstream(name)
        except ValueError:
            raise ModelError(f"device {name}: expected one that TVM finds, found {_why_not(name)}") from None
        return found

    auto_device.detect_device = detect_device


def install() -> None:
    """Changes what `--device` of mlc_llm's commands and `device` of its engines look for."""
    after_import("mlc_llm.support.auto_device", _change)
