"""How long each kernel, copy and fill of a GPU takes, by CUPTI, the part of CUDA under NVIDIA's profilers.

Called through ctypes, since packages with bindings (PyTorch's profiler among them) need more than a machine may have.
"""

from __future__ import annotations

import ctypes
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIBRARY = "libcupti.so.13"
_COPY, _FILL, _KERNEL = 1, 2, 10  # CUPTI_ACTIVITY_KIND_MEMCPY, _MEMSET, _CONCURRENT_KERNEL: of each in a graph too
_KINDS = (_COPY, _FILL, _KERNEL)
_BUFFER = 8 << 20
_BY_FORCE = 1  # CUPTI_ACTIVITY_FLAG_FLUSH_FORCED

# Offsets in cupti_activity.h of CUDA 13: start and end in nanoseconds, the same in all three; a kernel's name.
_TIMES, _NAME = 16, 104


class _Times(ctypes.Structure):
    _fields_ = (("start", ctypes.c_uint64), ("end", ctypes.c_uint64))


_REQUESTED = ctypes.CFUNCTYPE(
    None, ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(ctypes.c_size_t), ctypes.POINTER(ctypes.c_size_t)
)
_COMPLETED = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t)


class Recorder:
    """Records what the GPU does for this process."""

    def __init__(self, nvidia: Path) -> None:
        """
        Args:
            nvidia: a site-packages folder with `nvidia/cu13/lib`.

        Raises:
            OSError: CUPTI is not there.
        """
        self._cupti = ctypes.CDLL(str(nvidia / "nvidia/cu13/lib" / LIBRARY))
        # By name as a text: a class would put its own in front of the underscores.
        self._demangle = getattr(ctypes.CDLL("libstdc++.so.6"), "__cxa_demangle")
        self._demangle.restype = ctypes.c_char_p
        # What it returns is never freed, so each name is asked for once.
        self._short: dict[bytes, str] = {}
        self._buffers: dict[int, ctypes.Array[ctypes.c_char]] = {}
        self._records: list[tuple[str, int, int]] = []
        self._callbacks = _REQUESTED(self._requested), _COMPLETED(self._completed)
        self._call("cuptiActivityRegisterCallbacks", *self._callbacks)

    def _call(self, name: str, *arguments: object) -> None:
        """Calls a function of CUPTI; raises RuntimeError unless it succeeds."""
        if status := getattr(self._cupti, name)(*arguments):
            raise RuntimeError(f"{name}: expected success, found CUPTI's error {status}")

    def _requested(self, buffer: Any, size: Any, records: Any) -> None:
        memory = ctypes.create_string_buffer(_BUFFER + 8)
        start = -(-ctypes.addressof(memory) // 8) * 8
        self._buffers[start] = memory
        buffer[0], size[0], records[0] = start, _BUFFER, 0

    def _completed(self, _context: int, _stream: int, buffer: int, _size: int, valid: int) -> None:
        record = ctypes.c_void_p()
        while not self._cupti.cuptiActivityGetNextRecord(
            ctypes.c_void_p(buffer), ctypes.c_size_t(valid), ctypes.byref(record)
        ):
            address = record.value or 0
            kind = ctypes.c_uint32.from_address(address).value
            if kind in _KINDS:
                times = _Times.from_address(address + _TIMES)
                name = {_COPY: "copy", _FILL: "fill"}.get(kind) or self._name(address)
                self._records.append((name, times.start, times.end))
        del self._buffers[buffer]

    def _name(self, address: int) -> str:
        mangled = ctypes.c_char_p.from_address(address + _NAME).value or b""
        if mangled not in self._short:
            self._short[mangled] = short(self._demangle(mangled, None, None, None) or mangled)
        return self._short[mangled]

    def record(self, work: Callable[[], object]) -> list[tuple[str, int, int]]:
        """What the GPU did during `work`, which waits for it: name, start and end in nanoseconds, sorted by start."""
        for kind in _KINDS:
            self._call("cuptiActivityEnable", kind)
        self._records.clear()
        work()
        self._call("cuptiActivityFlushAll", _BY_FORCE)
        for kind in _KINDS:
            self._call("cuptiActivityDisable", kind)
        return sorted(self._records, key=lambda each: each[1])


def short(name: bytes) -> str:
    """A kernel's name without its type, parameters and template's arguments."""
    text = name.decode().replace("(anonymous namespace)::", "")
    text = re.sub(r"^void ", "", text)
    before = re.match(r"[\w:~]+", text)
    return before[0] if before else text


def totals(records: list[tuple[str, int, int]]) -> dict[str, tuple[int, float]]:
    """Name → how often, and seconds in all."""
    found: dict[str, tuple[int, float]] = defaultdict(lambda: (0, 0.0))
    for name, start, end in records:
        count, seconds = found[name]
        found[name] = count + 1, seconds + (end - start) / 1e9
    return dict(found)


def busy(records: list[tuple[str, int, int]]) -> float:
    """Seconds in which at least one of the records ran.

    Args:
        records: sorted by start.
    """
    seconds, until = 0, 0
    for _, start, end in records:
        seconds += max(0, end - max(start, until))
        until = max(until, end)
    return seconds / 1e9
