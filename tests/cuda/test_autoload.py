"""TVM's GPU libraries load if there is a driver, otherwise say in one line why not, and never disturb the CPU."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import time

import pytest

PARTS = ["device runtime", "cublas", "cudnn", "curand", "nccl"]

NVIDIA_LIBRARIES = [str(pathlib.Path(folder).absolute()) for folder in os.environ["NVIDIA_LIBRARIES"].split()]

# Prints the parts of tvm_cuda, whether there is a GPU, the registered functions, and a sum on the CPU.
PROGRAM = """
import dataclasses, json, sys
import numpy, tvm, tvm_cuda
from tvm_ffi.registry import list_global_func_names
total = tvm.runtime.tensor(numpy.arange(4, dtype="float32")).numpy().sum()
print(json.dumps({
    "cpu": float(total),
    "exists": bool(tvm.runtime.cuda(0).exist),
    "functions": sorted(list_global_func_names()),
    "parts": {name: dataclasses.asdict(part) for name, part in tvm_cuda.status().items()},
}))
"""


def driver(name: str) -> str:
    return str(pathlib.Path(os.environ[name]).absolute().parent)


def environment(driver_folder: str, libraries: list[str] = NVIDIA_LIBRARIES, **more: str) -> dict[str, str]:
    return os.environ | {"MLC_NVIDIA_DRIVER": driver_folder, "MLC_NVIDIA_LIBRARIES": os.pathsep.join(libraries)} | more


def run(program: str, variables: dict[str, str]) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", program], env=variables, capture_output=True, text=True, timeout=1200)


def report(variables: dict[str, str]) -> dict:
    done = run(PROGRAM, variables)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["cpu"] == 6
    return found | {"log": done.stderr}


def one_line(reason: str) -> bool:
    return bool(reason) and "\n" not in reason and "Traceback" not in reason


def test_without_a_driver_nothing_loads_and_nothing_is_logged(tmp_path: pathlib.Path) -> None:
    found = report(environment(str(tmp_path)))
    assert not any(part["loaded"] for part in found["parts"].values())
    assert (
        found["parts"]["driver"]["reason"]
        == f"no NVIDIA driver on this machine: libcuda.so.1 is not in MLC_NVIDIA_DRIVER={tmp_path}"
    )
    assert not found["exists"]
    assert found["log"] == ""


@pytest.mark.parametrize("runtime_only", ["0", "1"])
@pytest.mark.parametrize("name", ["OLDEST_DRIVER_THAT_DOES", "NEWER_DRIVER"])
def test_with_a_driver_everything_loads(name: str, runtime_only: str) -> None:
    found = report(environment(driver(name), TVM_USE_RUNTIME_LIB=runtime_only))
    assert {part: found["parts"][part]["reason"] for part in ["driver", *PARTS]} == dict.fromkeys(
        ["driver", *PARTS], ""
    )
    assert all(found["parts"][part]["loaded"] for part in PARTS)
    # The fake driver has no GPU.
    assert not found["exists"]
    functions = set(found["functions"])
    assert {
        "device_api.cuda",
        "ffi.Module.load_from_bytes.cuda",
        "runtime.contrib.curand.RandomFill",
        "runtime.disco.cuda_ipc.custom_allreduce",
        "runtime.disco.nccl.allreduce",
        "tvm.contrib.cublas.matmul",
        "tvm.contrib.cublaslt.matmul",
        "tvm.contrib.cudnn.conv2d.forward",
        "vm.builtin.cuda_graph.run_or_capture",
    } <= functions


def test_reports_the_locked_versions() -> None:
    parts = report(environment(driver("OLDEST_DRIVER_THAT_DOES")))["parts"]
    assert {name: part["version"] for name, part in parts.items()} == {
        "driver": "13.0",
        "device runtime": "13.0",
        "cublas": "13.1.0",
        "cudnn": "9.19.0",
        "curand": "10.4.0",
        "nccl": "2.28.9",
    }


def test_an_old_driver_is_reported_with_the_required_version() -> None:
    found = report(environment(driver("OLD_DRIVER")))
    reason = "the NVIDIA driver has CUDA 12.8, expected 13.0 or newer: install driver 580 or newer"
    assert found["parts"]["driver"]["reason"] == reason
    assert not any(part["loaded"] for part in found["parts"].values())
    assert found["log"].strip() == f"TVM runs without GPU: {reason}"


def test_a_stub_is_not_taken_for_a_driver() -> None:
    reason = report(environment(driver("STUB")))["parts"]["driver"]["reason"]
    assert one_line(reason) and "status 34" in reason and "stub" in reason


def test_a_damaged_driver_is_reported(tmp_path: pathlib.Path) -> None:
    (tmp_path / "libcuda.so.1").write_bytes(b"\x7fELF damaged")
    reason = report(environment(str(tmp_path)))["parts"]["driver"]["reason"]
    assert one_line(reason) and str(tmp_path / "libcuda.so.1") in reason and "reinstall the driver" in reason


@pytest.mark.parametrize(
    ("part", "folder", "library", "wheel"),
    [
        ("cublas", "nvidia_cublas", "libcublasLt.so.13", "nvidia-cublas"),
        ("cudnn", "nvidia_cudnn_cu13", "libcudnn.so.9", "nvidia-cudnn-cu13"),
        ("curand", "nvidia_curand", "libcurand.so.10", "nvidia-curand"),
        ("nccl", "nvidia_nccl_cu13", "libnccl.so.2", "nvidia-nccl-cu13"),
    ],
)
def test_a_missing_library_disables_only_its_own_part(part: str, folder: str, library: str, wheel: str) -> None:
    libraries = [path for path in NVIDIA_LIBRARIES if pathlib.Path(path).name != folder]
    assert len(libraries) == len(NVIDIA_LIBRARIES) - 1
    found = report(environment(driver("OLDEST_DRIVER_THAT_DOES"), libraries))
    # cuDNN does not need cuBLAS to load: each part stands alone.
    assert [name for name in PARTS if not found["parts"][name]["loaded"]] == [part]
    reason = found["parts"][part]["reason"]
    assert (
        one_line(reason)
        and reason.startswith(f"{library} is not in MLC_NVIDIA_LIBRARIES=")
        and f"pip install --target FOLDER {wheel}" in reason
    )
    # It may have been left out on purpose: a model that calls it says so.
    assert "is not loaded" not in found["log"]


def test_without_the_cuda_runtime_nothing_else_is_tried(tmp_path: pathlib.Path) -> None:
    found = report(environment(driver("OLDEST_DRIVER_THAT_DOES"), [str(tmp_path)]))
    assert "libcudart.so.13 is not in" in found["parts"]["device runtime"]["reason"]
    assert "device runtime is not loaded: " in found["log"]
    assert {found["parts"][name]["reason"] for name in PARTS[1:]} == {
        "it needs the device runtime, which is not loaded"
    }


def test_a_damaged_library_is_reported_with_the_fix(tmp_path: pathlib.Path) -> None:
    damaged = tmp_path / "nvidia/cu13/lib/libcurand.so.10"
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"\x7fELF half a download")
    found = report(environment(driver("OLDEST_DRIVER_THAT_DOES"), [str(tmp_path), *NVIDIA_LIBRARIES]))
    assert [name for name in PARTS if not found["parts"][name]["loaded"]] == ["curand"]
    reason = found["parts"]["curand"]["reason"]
    assert one_line(reason) and str(damaged) in reason and "pip install --force-reinstall nvidia-curand" in reason
    assert "curand is not loaded: " in found["log"]


def test_tvm_of_another_build_is_refused(tmp_path: pathlib.Path) -> None:
    # The folder is first on the path, so Python finds this metadata of apache-tvm.
    metadata = tmp_path / "apache_tvm-9.9.9.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: apache-tvm\nVersion: 9.9.9\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    found = report(environment(driver("OLDEST_DRIVER_THAT_DOES"), PYTHONPATH=path))
    reason = found["parts"]["driver"]["reason"]
    assert one_line(reason) and "found 9.9.9" in reason and "pip install apache-tvm==" in reason
    assert not any(part["loaded"] for part in found["parts"].values())


def test_autoload_can_be_turned_off() -> None:
    found = report(environment(driver("OLDEST_DRIVER_THAT_DOES"), TVM_DEVICE_BACKEND_AUTOLOAD="0"))
    assert {part["reason"] for part in found["parts"].values()} == {
        "not tried: TVM loads it at `import tvm`, unless TVM_DEVICE_BACKEND_AUTOLOAD=0 is set"
    }


def command(*arguments: str, variables: dict[str, str]) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "tvm_cuda", *arguments], env=variables, capture_output=True, text=True, timeout=1200
    )


def test_the_command_shows_every_part_and_fails_without_a_gpu() -> None:
    done = command(variables=environment(driver("OLDEST_DRIVER_THAT_DOES")))
    lines = done.stdout.splitlines()
    assert [line[:15].strip() for line in lines[:6]] == ["driver", *PARTS]
    assert all(line.endswith("loaded") for line in lines[:6])
    assert lines[6].startswith("no GPU: the driver shows none")
    assert done.returncode == 1


def test_the_command_prints_json() -> None:
    done = command("--json", variables=environment(driver("OLD_DRIVER")))
    found = json.loads(done.stdout)
    assert found["devices"] == [] and list(found["parts"]) == ["driver", *PARTS]
    assert done.returncode == 1


def test_a_process_can_fork_after_importing_tvm() -> None:
    # Initialized CUDA does not survive a fork, so importing must not initialize it.
    program = (
        "import os, tvm\npid = os.fork()\nif pid == 0:\n    os._exit(0 if not tvm.runtime.cuda(0).exist else"
        " 3)\nprint(os.waitpid(pid, 0)[1])"
    )
    done = run(program, environment(driver("OLDEST_DRIVER_THAT_DOES")))
    assert done.stdout.strip() == "0", done.stderr


# A controller whose workers 1 and 2 never finish, as in a collective that waits for a dead worker.
CONTROLLER = """
import os, sys, time
import tvm
from tvm.runtime.disco import ProcessSession
session = ProcessSession(3)
session.import_python_module("never_ends")
with open(f"/proc/self/task/{os.getpid()}/children") as file:
    print(file.read(), flush=True)
time.sleep(100)
"""


def alive(process: int) -> bool:
    """Whether a process runs, also after it was reparented."""
    try:
        return pathlib.Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_workers_that_wait_forever_end_with_their_controller(tmp_path: pathlib.Path) -> None:
    (tmp_path / "started").mkdir()
    (tmp_path / "never_ends.py").write_text(
        f"import os, pathlib, time\npathlib.Path({str(tmp_path)!r}, 'started', str(os.getpid())).touch()\nwhile True:\n"
        "    time.sleep(100)\n"
    )
    # The runtime alone: with all of TVM, workers lack the function that imports a module by name.
    variables = environment(driver("OLDEST_DRIVER_THAT_DOES"), TVM_USE_RUNTIME_LIB="1")
    variables["PYTHONPATH"] += os.pathsep + str(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", CONTROLLER], env=variables, stdout=subprocess.PIPE, text=True
    ) as controller:
        assert controller.stdout
        workers = [int(process) for process in controller.stdout.readline().split()]
        try:
            assert len(workers) == 2
            deadline = time.monotonic() + 600
            while not {str(worker) for worker in workers} <= set(os.listdir(tmp_path / "started")):
                assert time.monotonic() < deadline and all(map(alive, workers))
                time.sleep(0.05)
        finally:
            controller.kill()
    deadline = time.monotonic() + 200
    while left := [worker for worker in workers if alive(worker)]:
        assert time.monotonic() < deadline, f"still running: {left}"
        time.sleep(0.05)
