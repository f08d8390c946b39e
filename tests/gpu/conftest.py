"""Shared by the GPU tests: the device, the compiled modules, comparisons, and the record of a run.

Environment variables; paths are relative to the folder in which pytest runs:
    MLC_GPU_MODULES: folder with the compiled modules.py (default: the folder of this file).
    MLC_NVIDIA_LIBRARIES: folders with NVIDIA's `nvidia/cu13/lib` and so on; tvm_cuda searches only these.
    MLC_GPU_RESULTS: file for the record of the run, which results.py reads (default: none; under Bazel one of the
      test's outputs).
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comparison import poison, relative_error
from tvm.runtime.vm import VirtualMachine

import tvm
import tvm_cuda

Machine = Callable[[str], VirtualMachine]
Within = Callable[[float, float], None]
Compare = Callable[[np.ndarray, np.ndarray, float], None]

MODULES = Path(os.environ.get("MLC_GPU_MODULES", Path(__file__).parent)).absolute()


def pytest_configure(config: pytest.Config) -> None:
    file = os.environ.get("MLC_GPU_RESULTS")
    if not file and "TEST_UNDECLARED_OUTPUTS_DIR" in os.environ:
        file = os.path.join(os.environ["TEST_UNDECLARED_OUTPUTS_DIR"], "results.json")
    if file:
        config.pluginmanager.register(Record(Path(file).absolute()))


class Record:
    """Writes the outcome of every test and describes the device, for results.py."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.tests: dict[str, dict[str, Any]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        test = self.tests.setdefault(report.nodeid.split("/")[-1], {"outcome": "passed", "seconds": 0.0})
        test["seconds"] = round(test["seconds"] + report.duration, 3)
        if report.outcome != "passed":
            test["outcome"] = report.outcome
        test.update(report.user_properties)

    def pytest_sessionfinish(self) -> None:
        # Without a device, the record says so and why the tests failed.
        device = tvm.cuda(0)
        self.file.write_text(
            json.dumps(
                {
                    "date": time.strftime("%Y-%m-%d", time.gmtime()),
                    "device": device.device_name if device.exist else "none",
                    "devices": device_count(),
                    "driver": driver_version(),
                    "compute_capability": "{}.{}".format(*compute_capability()),
                    "memory_bytes": device.total_global_memory if device.exist else 0,
                    "runtime_only": tvm.base._RUNTIME_ONLY,
                    "tvm": tvm.__version__,
                    "components": {
                        name: {"loaded": part.loaded, "version": part.version, "reason": part.reason}
                        for name, part in tvm_cuda.status().items()
                    },
                    "tests": self.tests,
                },
                indent=1,
            )
            + "\n"
        )


def driver_version() -> str:
    """Version of NVIDIA's driver, such as 580.159.04; empty if its kernel module does not tell."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text()
    except OSError:
        return ""
    found = re.search(r"Kernel Module.*?\s(\d+(?:\.\d+)+)\s", text)
    return found[1] if found else ""


def device_count() -> int:
    """Number of GPUs that this process may use."""
    count = 0
    while tvm.cuda(count).exist:
        count += 1
    return count


def compute_capability() -> tuple[int, int]:
    """Compute capability of the first GPU; (0, 0) without one."""
    device = tvm.cuda(0)
    major, minor = (device.compute_version or "0.0").split(".") if device.exist else (0, 0)
    return int(major), int(minor)


@pytest.fixture(scope="session")
def device() -> tvm.runtime.Device:
    device = tvm.cuda(0)
    missing = [f"{name}: {part.reason}" for name, part in tvm_cuda.status().items() if not part.loaded]
    assert device.exist, "no CUDA device: " + "; ".join(missing)
    return device


@pytest.fixture(scope="session")
def machine(device: tvm.runtime.Device) -> Machine:
    """machine(NAME): a virtual machine on the GPU for the compiled module NAME (BUILD.bazel)."""
    machines: dict[str, VirtualMachine] = {}

    def load(name: str) -> VirtualMachine:
        if name not in machines:
            machines[name] = VirtualMachine(tvm.runtime.load_module(str(MODULES / f"{name}.so")), device)
        return machines[name]

    return load


@pytest.fixture
def within(record_property: Callable[[str, object], None]) -> Iterator[Within]:
    """within(error, tolerance) fails if the error exceeds the tolerance; the record keeps a test's largest error."""
    errors: list[float] = []

    def check(error: float, tolerance: float) -> None:
        errors.append(error)
        assert error <= tolerance, f"relative error {error:.3g}, expected at most {tolerance:.3g}"

    yield check
    if errors:
        record_property("relative_error", max(errors))


@pytest.fixture
def compare(within: Within) -> Compare:
    """compare(got, expected, tolerance) applies `within` to their `relative_error`."""
    return lambda got, expected, tolerance: within(relative_error(got, expected), tolerance)


def poisoned(shape: tuple[int, ...], dtype: str, device: tvm.runtime.Device) -> tvm.runtime.Tensor:
    """An output that holds what no correct result holds, so that elements a kernel leaves out show up."""
    return tvm.runtime.tensor(poison(shape, dtype), device)


def run_poisoned(machine: VirtualMachine, function: str, *arguments: tvm.runtime.Tensor) -> np.ndarray:
    """Result of a function that allocates its own output, in memory that held only NaN before.

    The machine reuses freed memory for the next output of the same size, so a first result is overwritten and freed.
    """
    first = machine[function](*arguments)
    first.copyfrom(np.full(first.shape, np.nan).astype(first.numpy().dtype))
    del first
    return machine[function](*arguments).numpy()
