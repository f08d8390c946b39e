"""The GPU half of Apache TVM: device runtime, cuBLAS, cuDNN, cuRAND and NCCL. `import tvm` loads it if there is an
NVIDIA driver.

TVM calls `autoload` (entry point group "tvm.backends"); TVM_DEVICE_BACKEND_AUTOLOAD=0 turns that off. Without a driver
nothing is loaded, and TVM runs on the CPU. This shows what is loaded, and why the rest is not:

    python3 -m tvm_cuda

NVIDIA's libraries come from NVIDIA's wheels (nvidia/cu13/lib, nvidia/cudnn/lib and nvidia/nccl/lib in site-packages),
else from the system's loader. MLC_NVIDIA_LIBRARIES=FOLDER[:FOLDER...] names other folders that contain `nvidia`; then
only those are searched. The driver's libraries come from the system's loader, else from the folders of drivers and
container runtimes. MLC_NVIDIA_DRIVER=FOLDER names another folder; then only that is searched.
"""

from __future__ import annotations

import ctypes
import dataclasses
import importlib.metadata
import logging
import os
import platform
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["Part", "autoload", "status"]

DISTRIBUTION = "apache-tvm-cuda"

# CUDA 13.0 in the notation of cuDriverGetVersion, and the first driver branch with it.
CUDA_VERSION = 13000
DRIVER_BRANCH = 580

# Folders that Debian's and Fedora's packages, container runtimes and WSL use for the driver's libraries. A Python with
# a separate loader does not search them.
DRIVER_FOLDERS = (
    f"/usr/lib/{platform.machine()}-linux-gnu",
    "/usr/lib64",
    "/usr/local/nvidia/lib64",
    "/usr/lib/wsl/lib",
)

_SECONDS_BETWEEN_LOOKS = 0.5

_logger = logging.getLogger(__name__)
_libraries_here = Path(__file__).parent / "lib"


@dataclasses.dataclass
class Part:
    """A part of the GPU runtime.

    Attributes:
        loaded: whether it works.
        reason: why it does not, in one line that says what to do; empty if it is loaded.
        version: version of NVIDIA's library; empty if there is none.
    """

    loaded: bool = False
    reason: str = "not tried: TVM loads it at `import tvm`, unless TVM_DEVICE_BACKEND_AUTOLOAD=0 is set"
    version: str = ""


@dataclasses.dataclass(frozen=True)
class _Kind:
    """The contents of a part: NVIDIA's libraries in load order, their wheel, our library, how to get the version."""

    nvidia: tuple[str, ...]
    wheel: str
    ours: str
    version: Callable[[ctypes.CDLL], str]


def _number(library: ctypes.CDLL, function: str) -> int:
    value = ctypes.c_int()
    if status := getattr(library, function)(ctypes.byref(value)):
        raise OSError(f"{function} failed with status {status}")
    return value.value


def _dotted(number: int, *divisors: int) -> str:
    """Splits a version that is encoded as a number.

    >>> _dotted(13010, 1000, 10)
    '13.1'
    """
    parts = []
    for divisor in divisors:
        parts.append(number // divisor)
        number %= divisor
    return ".".join(map(str, parts))


_KINDS = {
    "device runtime": _Kind(
        ("libcudart.so.13",),
        "nvidia-cuda-runtime",
        "libtvm_runtime_cuda.so",
        lambda library: _dotted(_number(library, "cudaRuntimeGetVersion"), 1000, 10),
    ),
    "cublas": _Kind(
        ("libcublasLt.so.13", "libcublas.so.13"),
        "nvidia-cublas",
        "libtvm_cublas.so",
        lambda library: _dotted(_cublas_version(library), 10000, 100, 1),
    ),
    "cudnn": _Kind(
        ("libcudnn.so.9",),
        "nvidia-cudnn-cu13",
        "libtvm_cudnn.so",
        lambda library: _dotted(_cudnn_version(library), 10000, 100, 1),
    ),
    "curand": _Kind(
        ("libcurand.so.10",),
        "nvidia-curand",
        "libtvm_curand.so",
        lambda library: _dotted(_number(library, "curandGetVersion"), 1000, 100, 1),
    ),
    "nccl": _Kind(
        ("libnccl.so.2",),
        "nvidia-nccl-cu13",
        "libtvm_nccl.so",
        lambda library: _dotted(_number(library, "ncclGetVersion"), 10000, 100, 1),
    ),
}

_parts = {name: Part() for name in ("driver", *_KINDS)}
_handles: list[ctypes.CDLL] = []


def _cublas_version(library: ctypes.CDLL) -> int:
    parts = []
    for property_type in range(3):
        value = ctypes.c_int()
        library.cublasGetProperty(property_type, ctypes.byref(value))
        parts.append(value.value)
    major, minor, patch = parts
    return major * 10000 + minor * 100 + patch


def _cudnn_version(library: ctypes.CDLL) -> int:
    library.cudnnGetVersion.restype = ctypes.c_size_t
    return library.cudnnGetVersion()


def status() -> dict[str, Part]:
    """Returns what is loaded in this process: "driver", then "device runtime", "cublas", "cudnn", "curand", "nccl"."""
    return {name: dataclasses.replace(part) for name, part in _parts.items()}


def autoload() -> None:
    """Loads what can be loaded. This is TVM's entry point.

    Never raises: `status` says what is missing. If there is a driver, so does a warning in the log, but not where one
    of NVIDIA's libraries was left out.
    """
    if any(part.loaded for part in _parts.values()):
        return
    if mismatch := _mismatch():
        return _set_all(mismatch)
    driver = _parts["driver"]
    driver.version, driver.reason = _driver()
    driver.loaded = not driver.reason
    if not driver.loaded:
        # A machine without a driver deserves no warning.
        return _set_all(driver.reason, level=logging.WARNING if driver.version else logging.INFO)
    _load_runtime_extra()
    for name, kind in _KINDS.items():
        part = _parts[name]
        if name != "device runtime" and not _parts["device runtime"].loaded:
            part.reason = "it needs the device runtime, which is not loaded"
            continue
        try:
            for library in kind.nvidia:
                nvidia = _load_nvidia(library, kind.wheel)
            part.version = kind.version(nvidia)
            if name == "nccl":
                _load_monitoring()
            _handles.append(ctypes.CDLL(str(_libraries_here / kind.ours)))
            part.loaded, part.reason = True, ""
        except OSError as error:
            part.reason = str(error)
            # An image may leave out a library, because few models call all of them. Without CUDA's own there is no GPU.
            left_out = isinstance(error, FileNotFoundError) and name != "device runtime"
            _logger.log(logging.INFO if left_out else logging.WARNING, "%s is not loaded: %s", name, part.reason)


def _set_all(reason: str, level: int = logging.WARNING) -> None:
    """Sets the reason why nothing is loaded on every part, in full only once."""
    for name, part in _parts.items():
        part.reason = reason if name == "driver" else "see driver"
    _logger.log(level, "TVM runs without GPU: %s", reason)


def _mismatch() -> str:
    """Returns why this package does not fit the installed TVM, or "" if it does."""
    for requirement in importlib.metadata.requires(DISTRIBUTION) or []:
        if match := re.fullmatch(r"(apache-tvm(?:-ffi)?)\s*\(?==\s*([^);\s]+)\)?", requirement):
            distribution, expected = match.groups()
            found = importlib.metadata.version(distribution)
            if found != expected:
                return (
                    f"{DISTRIBUTION} {importlib.metadata.version(DISTRIBUTION)} was built with {distribution}"
                    f" {expected}, found {found}: install the wheels of one build, pip install"
                    f" {distribution}=={expected}"
                )
    return ""


def _driver() -> tuple[str, str]:
    """Returns the driver's CUDA version, like "13.0", and why it is unsuitable ("" if it is suitable).

    This does not initialize CUDA, so the process may still fork afterwards.
    """
    try:
        library = _load_driver("libcuda.so.1")
    except FileNotFoundError:
        named = os.environ.get("MLC_NVIDIA_DRIVER")
        where = f"not in MLC_NVIDIA_DRIVER={named}" if named else "not found; in a container, start it with --gpus all"
        return "", f"no NVIDIA driver on this machine: libcuda.so.1 is {where}"
    except OSError as error:
        return "", f"NVIDIA's driver library does not load: {error}; reinstall the driver"
    try:
        version = _number(library, "cuDriverGetVersion")
    except OSError as error:
        return (
            "",
            (
                f"NVIDIA's driver library does not work: {error}; a stub instead of the driver? See `ldconfig -p | grep"
                " libcuda.so.1`"
            ),
        )
    found = _dotted(version, 1000, 10)
    if version < CUDA_VERSION:
        expected = _dotted(CUDA_VERSION, 1000, 10)
        return (
            found,
            (
                f"the NVIDIA driver has CUDA {found}, expected {expected} or newer: install driver {DRIVER_BRANCH} or"
                " newer"
            ),
        )
    return found, ""


def _is_missing(library: str, error: OSError) -> bool:
    """Returns whether the system's loader found no library of this name, rather than one that does not load."""
    return str(error).startswith(f"{library}: cannot open shared object file")


def _load_driver(library: str) -> ctypes.CDLL:
    """Loads one of the driver's libraries.

    Raises:
        FileNotFoundError: there is none.
        OSError: it does not load.
    """
    named = os.environ.get("MLC_NVIDIA_DRIVER")
    paths = [Path(folder, library) for folder in ([named] if named else DRIVER_FOLDERS)]
    if not named:
        try:
            handle = ctypes.CDLL(library)
        except OSError as error:
            if not _is_missing(library, error):
                raise
        else:
            _handles.append(handle)
            return handle
    for path in paths:
        if path.is_file():
            handle = ctypes.CDLL(str(path))
            _handles.append(handle)
            return handle
    raise FileNotFoundError(library)


def _folders() -> Iterator[Path]:
    """Yields the folders to search for NVIDIA's libraries, in order."""
    named = os.environ.get("MLC_NVIDIA_LIBRARIES")
    for folder in named.split(os.pathsep) if named else [str(Path(__file__).parents[1]), *sys.path]:
        for part in ("cu13", "cudnn", "nccl"):
            yield Path(folder or ".", "nvidia", part, "lib")


def _load_nvidia(library: str, wheel: str) -> ctypes.CDLL:
    """Loads one of NVIDIA's libraries, so that ours find it by its name.

    Raises:
        FileNotFoundError: it is not found; one line.
        OSError: it does not load; one line.
    """
    for folder in _folders():
        path = folder / library
        if path.is_file():
            try:
                handle = ctypes.CDLL(str(path))
            except OSError as error:
                raise OSError(
                    f"{path} does not load: {error}; reinstall it: pip install --force-reinstall {wheel}"
                ) from error
            _handles.append(handle)
            return handle
    if named := os.environ.get("MLC_NVIDIA_LIBRARIES"):
        raise FileNotFoundError(
            f"{library} is not in MLC_NVIDIA_LIBRARIES={named} (nvidia/*/lib): install {wheel} there, pip install"
            f" --target FOLDER {wheel}"
        )
    try:
        handle = ctypes.CDLL(library)
    except OSError as error:
        if not _is_missing(library, error):
            raise OSError(f"the system's {library} does not load: {error}; pip install {wheel}") from error
        raise FileNotFoundError(
            f"{library} is not found: pip install {wheel}, or name the folder that has it with MLC_NVIDIA_LIBRARIES"
        ) from error
    _handles.append(handle)
    return handle


def _load_monitoring() -> None:
    """Loads the driver's monitoring library, so that NCCL finds it by its name.

    Without it, NCCL itself reports what is missing.
    """
    try:
        _load_driver("libnvidia-ml.so.1")
    except OSError as error:
        _logger.warning("libnvidia-ml.so.1, which NCCL calls, does not load: %s", error)


def _load_runtime_extra() -> None:
    """Loads libtvm_runtime_extra, which NCCL's part calls, and makes its sessions work in Python.

    TVM does this itself, but only together with its compiler.
    """
    # Not at the top, because TVM imports this module during its own import.
    import tvm_ffi
    from tvm.base import _LOADED_LIBS

    from tvm import _RUNTIME_ONLY

    runtime = Path(_LOADED_LIBS["tvm_runtime"]._name).resolve()
    extra = runtime.with_name("libtvm_runtime_extra.so")
    if not extra.is_file():
        return
    _handles.append(ctypes.CDLL(str(extra)))
    # TVM bound the functions and classes before this library registered them, so bind them again.
    tvm_ffi.init_ffi_api("runtime.disco", "tvm.runtime.disco._ffi_api")
    if _RUNTIME_ONLY:
        from tvm.runtime.disco import session

        for name in ("DRef", "Session", "ThreadedSession", "ProcessSession", "SocketSession"):
            tvm_ffi.register_object(f"runtime.disco.{name}")(getattr(session, name))
    _end_workers_with_their_controller()


def _end_workers_with_their_controller() -> None:
    """Makes a worker process of a session, TVM's or mlc-llm's, end when the process that started it ends.

    Usually a worker notices the closed pipe. But one that waits in NCCL for a dead worker never reads again, and keeps
    its GPU busy forever.
    """
    import tvm_ffi

    serve = tvm_ffi.get_global_func("runtime.disco.WorkerProcess")

    def watched(*arguments: int) -> None:
        threading.Thread(target=_end_without, args=(os.getppid(),), daemon=True).start()
        serve(*arguments)

    tvm_ffi.register_global_func("runtime.disco.WorkerProcess", watched, override=True)


def _end_without(controller: int) -> None:
    """Ends this process once the controller is no longer its parent."""
    while os.getppid() == controller:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    # An ordinary exit could hang, for example while waiting for the GPU.
    os.kill(os.getpid(), signal.SIGKILL)
