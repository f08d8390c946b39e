"""From the action graph: no C++ action's command line, environment or input names anything of the machine it runs on."""

from __future__ import annotations

import json
import re
import unittest

from tests.toolchains import runfiles

# Bazel's name for the current folder, which the compiler is told to leave out; and the search path of shells.
ALLOWED = {"-ffile-prefix-map=/proc/self/cwd=."}
TOOLCHAIN = re.compile(r"external/[^/]*[~+]debian_cc/")
# Repositories that C++ inputs may come from: the toolchain, sources from PyPI, and Bazel's own files for linking.
REPOSITORIES = re.compile(r"external/([^/]*[~+](debian_cc|tvm|tvm_ffi)|bazel_tools)/")
ABSOLUTE = re.compile(r"(^|[=,:]|^-[A-Za-z]+)/")


def actions() -> list[dict]:
    reports = sorted(runfiles.HERE.glob("*_actions.jsonl"))
    assert reports, "the test was given no action report"
    return [json.loads(line) for report in reports for line in report.read_text().splitlines() if line]


class Actions(unittest.TestCase):
    def test_the_report_has_all_of_tvm(self):
        compiled = [action for action in actions() if action["mnemonic"] == "CppCompile" and "tvm" in action["target"]]
        # 35 sources of the runtime, 10 of its extra part, 26 of tvm_ffi, 12 of libbacktrace.
        self.assertGreaterEqual(len(compiled), 83)

    def test_the_report_has_every_kind_of_action(self):
        self.assertLessEqual({"CppCompile", "CppLink", "Objcopy"}, {action["mnemonic"] for action in actions()})

    def test_programs_are_the_toolchains(self):
        for action in actions():
            self.assertRegex(action["arguments"][0], TOOLCHAIN, action["target"])

    def test_no_argument_is_an_absolute_path(self):
        for action in actions():
            found = [argument for argument in action["arguments"] if ABSOLUTE.search(argument) and argument not in ALLOWED]
            self.assertEqual(found, [], action["target"])

    def test_the_environment_names_no_folder_but_the_shells(self):
        for action in actions():
            self.assertLessEqual(set(action["environment"]), {"PATH", "PWD"}, action["target"])

    def test_inputs_are_sources_and_the_toolchain(self):
        for action in actions():
            self.assertTrue(any(TOOLCHAIN.match(path) for path in action["inputs"]), f"{action['target']}: the toolchain is no input")
            for path in action["inputs"]:
                self.assertFalse(path.startswith("/"), path)
                if path.startswith("external/"):
                    self.assertRegex(path, REPOSITORIES, action["target"])


if __name__ == "__main__":
    unittest.main()
