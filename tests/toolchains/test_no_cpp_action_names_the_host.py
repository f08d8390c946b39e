"""In the action graph no C++ action names the machine in its command line, environment or inputs."""

from __future__ import annotations

import json
import re

from tests.toolchains import runfiles

# Tells the compiler to leave the current folder out of its output.
ALLOWED = {"-ffile-prefix-map=/proc/self/cwd=."}
TOOLCHAIN = re.compile(r"external/[^/]*[~+]debian_cc/")
# C++ inputs may come from the toolchain, sources from PyPI, and Bazel's own files for linking.
REPOSITORIES = re.compile(r"external/([^/]*[~+](debian_cc|tvm|tvm_ffi)|bazel_tools)/")
ABSOLUTE = re.compile(r"(^|[=,:]|^-[A-Za-z]+)/")


def actions() -> list[dict]:
    reports = sorted(runfiles.HERE.glob("*_actions.jsonl"))
    assert reports, "the test was given no action report"
    return [json.loads(line) for report in reports for line in report.read_text().splitlines() if line]


def test_the_report_has_all_of_tvm() -> None:
    compiled = [action for action in actions() if action["mnemonic"] == "CppCompile" and "tvm" in action["target"]]
    # 35 sources of the runtime, 10 of its extra part, 26 of tvm_ffi, 12 of libbacktrace.
    assert len(compiled) >= 83


def test_the_report_has_every_kind_of_action() -> None:
    assert {"CppCompile", "CppLink", "Objcopy"} <= {action["mnemonic"] for action in actions()}


def test_runs_only_programs_of_the_toolchain() -> None:
    for action in actions():
        assert re.search(TOOLCHAIN, action["arguments"][0]), action["target"]


def test_no_argument_is_an_absolute_path() -> None:
    for action in actions():
        found = [argument for argument in action["arguments"] if ABSOLUTE.search(argument) and argument not in ALLOWED]
        assert found == [], action["target"]


def test_the_environment_has_only_path_and_pwd() -> None:
    for action in actions():
        assert set(action["environment"]) <= {"PATH", "PWD"}, action["target"]


def test_inputs_are_sources_and_toolchain_files() -> None:
    for action in actions():
        assert any(TOOLCHAIN.match(path) for path in action["inputs"]), (
            f"{action['target']}: the toolchain is not an input"
        )
        for path in action["inputs"]:
            assert not path.startswith("/"), path
            if path.startswith("external/"):
                assert re.search(REPOSITORIES, path), action["target"]
