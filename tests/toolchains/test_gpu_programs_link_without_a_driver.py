"""A program with kernels is compiled and linked on a machine without GPU and driver; started there it says what is
missing.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from elftools.elf.elffile import ELFFile

from tests.toolchains import runfiles


def actions() -> list[dict]:
    return [json.loads(line) for line in (runfiles.HERE / "kernels_actions.jsonl").read_text().splitlines() if line]


def test_the_program_starts_and_says_that_there_is_no_driver() -> None:
    libraries = runfiles.repository("debian_cc")
    cudart = runfiles.repository("nvidia_cuda_runtime") / "nvidia/cu13/lib"
    path = f"{libraries}/lib/x86_64-linux-gnu:{libraries}/usr/lib/x86_64-linux-gnu:{cudart}"
    program: list[str | Path] = [
        libraries / "lib64/ld-linux-x86-64.so.2",
        "--inhibit-cache",
        "--library-path",
        path,
        runfiles.HERE / "halve",
    ]
    done = subprocess.run(program, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (
        1,
        "halve: CUDA driver version is insufficient for CUDA runtime version\n",
    )


def test_the_program_contains_device_code() -> None:
    with open(runfiles.HERE / "halve", "rb") as file:
        elf = ELFFile(file)
        # The fat binary has one compressed entry per architecture.
        assert elf.get_section_by_name(".nv_fatbin").data_size > 1000
        needed = {entry.needed for entry in elf.get_section_by_name(".dynamic").iter_tags("DT_NEEDED")}
    assert "libcudart.so.13" in needed
    # Only code that calls the driver itself links with it.
    assert "libcuda.so.1" not in needed


def test_a_library_that_calls_the_driver_needs_it_by_name() -> None:
    with open(runfiles.HERE / "libasks_driver.so", "rb") as file:
        needed = {entry.needed for entry in ELFFile(file).get_section_by_name(".dynamic").iter_tags("DT_NEEDED")}
    assert "libcuda.so.1" in needed


def test_compiles_for_the_architectures_of_the_setting() -> None:
    (compiled,) = [action for action in actions() if action["mnemonic"] == "CudaCompile"]
    found = re.findall(r"--generate-code=arch=compute_(\w+),code=(\w+)", " ".join(compiled["arguments"]))
    assert found == [
        ("75", "sm_75"),
        ("80", "sm_80"),
        ("90", "sm_90"),
        ("100", "sm_100"),
        ("120", "sm_120"),
        ("120", "compute_120"),
    ]


def test_no_action_names_the_machine() -> None:
    (compiled,) = [action for action in actions() if action["mnemonic"] == "CudaCompile"]
    assert [argument for argument in compiled["arguments"] if re.search(r"(^|[=,:])/", argument)] == []
    assert re.search(r"^external/[^/]*[~+]cuda_nvcc/", compiled["arguments"][0])
    assert set(compiled["environment"]) <= {"PATH"}
    for path in compiled["inputs"]:
        assert re.search(r"^(tests/|bazel-out/|external/[^/]*[~+](cuda_nvcc|debian_cc|nvidia_cuda_runtime)/)", path)
