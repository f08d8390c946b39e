"""A program with kernels is compiled and linked on a machine without GPU and driver; started there it says what is missing."""

from __future__ import annotations

import json
import re
import subprocess
import unittest

from elftools.elf.elffile import ELFFile

from tests.toolchains import runfiles


def actions() -> list[dict]:
    return [json.loads(line) for line in (runfiles.HERE / "kernels_actions.jsonl").read_text().splitlines() if line]


class GpuPrograms(unittest.TestCase):
    def test_the_program_starts_and_says_that_there_is_no_driver(self):
        libraries = runfiles.repository("debian_cc")
        cudart = runfiles.repository("nvidia_cuda_runtime") / "nvidia/cu13/lib"
        path = f"{libraries}/lib/x86_64-linux-gnu:{libraries}/usr/lib/x86_64-linux-gnu:{cudart}"
        program = [libraries / "lib64/ld-linux-x86-64.so.2", "--inhibit-cache", "--library-path", path, runfiles.HERE / "halve"]
        done = subprocess.run(program, capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stdout), (1, "halve: CUDA driver version is insufficient for CUDA runtime version\n"))

    def test_device_code_is_in_it(self):
        with open(runfiles.HERE / "halve", "rb") as file:
            elf = ELFFile(file)
            # The fat binary: one entry per architecture, compressed.
            self.assertGreater(elf.get_section_by_name(".nv_fatbin").data_size, 1000)
            needed = {entry.needed for entry in elf.get_section_by_name(".dynamic").iter_tags("DT_NEEDED")}
        self.assertIn("libcudart.so.13", needed)
        # Only what calls the driver itself is linked to it.
        self.assertNotIn("libcuda.so.1", needed)

    def test_what_calls_the_driver_is_linked_to_its_name(self):
        with open(runfiles.HERE / "libasks_driver.so", "rb") as file:
            needed = {entry.needed for entry in ELFFile(file).get_section_by_name(".dynamic").iter_tags("DT_NEEDED")}
        self.assertIn("libcuda.so.1", needed)

    def test_architectures_are_those_of_the_setting(self):
        (compiled,) = [action for action in actions() if action["mnemonic"] == "CudaCompile"]
        found = re.findall(r"--generate-code=arch=compute_(\w+),code=(\w+)", " ".join(compiled["arguments"]))
        self.assertEqual(found, [("75", "sm_75"), ("80", "sm_80"), ("90", "sm_90"), ("100", "sm_100"), ("120", "sm_120"), ("120", "compute_120")])

    def test_no_action_names_anything_of_the_machine(self):
        (compiled,) = [action for action in actions() if action["mnemonic"] == "CudaCompile"]
        self.assertEqual([argument for argument in compiled["arguments"] if re.search(r"(^|[=,:])/", argument)], [])
        self.assertRegex(compiled["arguments"][0], r"^external/[^/]*[~+]cuda_nvcc/")
        self.assertLessEqual(set(compiled["environment"]), {"PATH"})
        for path in compiled["inputs"]:
            self.assertRegex(path, r"^(tests/|bazel-out/|external/[^/]*[~+](cuda_nvcc|debian_cc|nvidia_cuda_runtime)/)")


if __name__ == "__main__":
    unittest.main()
