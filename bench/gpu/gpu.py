"""The little of CUDA that the measurements need beside TVM, through ctypes: where its libraries are, and a clock on the device."""

from __future__ import annotations

import ctypes
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

RUNTIME = "libcudart.so.13"
DRIVER = "libcuda.so.1"
_DRIVER_FOLDERS = ("/usr/local/nvidia/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib/wsl/lib")


def driver() -> Path:
    """The driver's library: in the folder MLC_NVIDIA_DRIVER, as tvm_cuda has it; else where the machine's loader finds it, or containers get it.

    Raises:
        FileNotFoundError: there is none.
    """
    if named := os.environ.get("MLC_NVIDIA_DRIVER"):
        return Path(named, DRIVER)
    try:
        listing = subprocess.run(["/sbin/ldconfig", "-p"], stdout=subprocess.PIPE, text=True, check=False).stdout
    except OSError:
        listing = ""
    found = [line.rsplit(" ", 1)[1] for line in listing.splitlines() if line.split()[:1] == [DRIVER] and "x86-64" in line]
    for path in map(Path, [*found, *(f"{folder}/{DRIVER}" for folder in _DRIVER_FOLDERS)]):
        if path.exists():
            return path
    raise FileNotFoundError(f"{DRIVER}: expected NVIDIA's driver, found it neither in ldconfig's list nor in {', '.join(_DRIVER_FOLDERS)}")


def load(nvidia: Path, *names: str) -> list[ctypes.CDLL]:
    """Loads the driver and NVIDIA's libraries, for all who need them by name later: the packaged Python looks in no folder of the machine.

    Args:
        nvidia: a site-packages folder with `nvidia/cu13/lib`, as NVIDIA's wheels make it.
        names: file names in that folder.

    Returns:
        The libraries `names`.
    """
    ctypes.CDLL(str(driver()), mode=ctypes.RTLD_GLOBAL)
    return [ctypes.CDLL(str(nvidia / "nvidia/cu13/lib" / name), mode=ctypes.RTLD_GLOBAL) for name in names]


class DeviceClock:
    """Times work on the device's default stream by CUDA events, in seconds."""

    def __init__(self, runtime: ctypes.CDLL) -> None:
        self._runtime = runtime
        self._events = []
        for _ in range(2):
            event = ctypes.c_void_p()
            self._call("cudaEventCreate", ctypes.byref(event))
            self._events.append(event)

    def _call(self, name: str, *arguments: object) -> None:
        """Raises: RuntimeError, if CUDA says anything else than success."""
        if status := getattr(self._runtime, name)(*arguments):
            self._runtime.cudaGetErrorString.restype = ctypes.c_char_p
            raise RuntimeError(f"{name}: {self._runtime.cudaGetErrorString(status).decode()}")

    def synchronize(self) -> None:
        """Waits until the device has done all that it was given; an error of an earlier kernel is raised here."""
        self._call("cudaDeviceSynchronize")

    def seconds(self, work: Callable[[], object], count: int = 1) -> float:
        """Seconds of one `work`, of `count` that follow each other without a pause; it may return before the device has done it."""
        first, last = self._events
        self.synchronize()
        self._call("cudaEventRecord", first, None)
        for _ in range(count):
            work()
        self._call("cudaEventRecord", last, None)
        self._call("cudaEventSynchronize", last)
        milliseconds = ctypes.c_float()
        self._call("cudaEventElapsedTime", ctypes.byref(milliseconds), first, last)
        return milliseconds.value / 1000 / count


class HostClock:
    """The same where work is done when it returns: on the CPU, to try the measurements."""

    def synchronize(self) -> None:
        pass

    def seconds(self, work: Callable[[], object], count: int = 1) -> float:
        began = time.perf_counter()
        for _ in range(count):
            work()
        return (time.perf_counter() - began) / count


def host_seconds(work: Callable[[], object], wait: Callable[[], object], count: int) -> float:
    """Seconds of one `work`, of `count` in a row, by the host's clock: for work on several devices, which have no clock in common.

    Args:
        work: starts it.
        wait: returns when all of it is done.
        count: how many are timed; before them as many warm up.
    """
    for _ in range(count):
        work()
    wait()
    began = time.perf_counter()
    for _ in range(count):
        work()
    wait()
    return (time.perf_counter() - began) / count
