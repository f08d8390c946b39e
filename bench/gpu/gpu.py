"""The little of CUDA that tests and measurements need besides TVM, through ctypes: its libraries, the number of GPUs,
and a device clock.
"""

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
    """Path of the driver's library: in the folder MLC_NVIDIA_DRIVER, as for tvm_cuda; otherwise where the loader or a
    container has it.

    Raises:
        FileNotFoundError: no driver is installed.
    """
    if named := os.environ.get("MLC_NVIDIA_DRIVER"):
        return Path(named, DRIVER)
    try:
        listing = subprocess.run(["/sbin/ldconfig", "-p"], stdout=subprocess.PIPE, text=True, check=False).stdout
    except OSError:
        listing = ""
    found = [
        line.rsplit(" ", 1)[1] for line in listing.splitlines() if line.split()[:1] == [DRIVER] and "x86-64" in line
    ]
    for path in map(Path, [*found, *(f"{folder}/{DRIVER}" for folder in _DRIVER_FOLDERS)]):
        if path.exists():
            return path
    raise FileNotFoundError(
        f"{DRIVER}: expected NVIDIA's driver in ldconfig's list or in {', '.join(_DRIVER_FOLDERS)}, found it in"
        " neither; MLC_NVIDIA_DRIVER can name its folder"
    )


def device_count() -> int:
    """Number of GPUs that this process may use.

    Raises:
        FileNotFoundError: no driver is installed.
        OSError: the driver's library cannot be loaded.
        RuntimeError: the driver does not start, for example because there is no GPU.
    """
    path = driver()
    library = ctypes.CDLL(str(path))
    count = ctypes.c_int()
    for name, arguments in (("cuInit", (0,)), ("cuDeviceGetCount", (ctypes.byref(count),))):
        if status := getattr(library, name)(*arguments):
            raise RuntimeError(f"{path}: {name}: expected success, found CUDA error {status}")
    return count.value


def load(nvidia: Path, *names: str) -> list[ctypes.CDLL]:
    """Loads the driver and NVIDIA's libraries with global symbols, since the packaged Python searches no folder of the
    machine.

    Args:
        nvidia: a site-packages folder with `nvidia/cu13/lib`, the layout of NVIDIA's wheels.
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
        self._events: list[ctypes.c_void_p] = []
        for _ in range(2):
            event = ctypes.c_void_p()
            self._call("cudaEventCreate", ctypes.byref(event))
            self._events.append(event)

    def _call(self, name: str, *arguments: object) -> None:
        """Calls a function of CUDA's runtime; raises RuntimeError unless it succeeds."""
        if status := getattr(self._runtime, name)(*arguments):
            self._runtime.cudaGetErrorString.restype = ctypes.c_char_p
            raise RuntimeError(f"{name}: {self._runtime.cudaGetErrorString(status).decode()}")

    def synchronize(self) -> None:
        """Waits until the device is idle; errors of earlier kernels are raised here."""
        self._call("cudaDeviceSynchronize")

    def seconds(self, work: Callable[[], object], count: int = 1, ahead: Callable[[], object] = lambda: None) -> float:
        """Seconds per `work`, over `count` calls in a row; `work` may return before the device is done.

        Args:
            ahead: keeps the device busy while the host starts the rest, so that the device's time counts only.
        """
        first, last = self._events
        self.synchronize()
        ahead()
        self._call("cudaEventRecord", first, None)
        for _ in range(count):
            work()
        self._call("cudaEventRecord", last, None)
        self._call("cudaEventSynchronize", last)
        milliseconds = ctypes.c_float()
        self._call("cudaEventElapsedTime", ctypes.byref(milliseconds), first, last)
        return milliseconds.value / 1000 / count


class HostClock:
    """The same for work that is done when it returns: for trying the measurements on the CPU."""

    def synchronize(self) -> None:
        pass

    def seconds(self, work: Callable[[], object], count: int = 1, ahead: Callable[[], object] = lambda: None) -> float:
        began = time.perf_counter()
        for _ in range(count):
            work()
        return (time.perf_counter() - began) / count


def host_seconds(work: Callable[[], object], wait: Callable[[], object], count: int) -> float:
    """Seconds per `work`, over `count` calls in a row, by the host's clock: several devices have no clock in common.

    Args:
        work: starts the work.
        wait: returns when all of it is done.
        count: number of timed calls; as many warm-up calls come first.
    """
    for _ in range(count):
        work()
    wait()
    began = time.perf_counter()
    for _ in range(count):
        work()
    wait()
    return (time.perf_counter() - began) / count
