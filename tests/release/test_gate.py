"""The gate runs tests as Bazel would, takes nothing for passed that did not pass, and its stamp is about the very bytes
that were tested.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest

from oci.layout import Image, is_layout
from release.private import run_test
from tests.private import python_program

STAMP = json.loads(pathlib.Path(os.environ["STAMP"]).read_text())
ARTIFACTS = [pathlib.Path(path) for path in os.environ["ARTIFACTS"].split()]


def test_the_stamp_has_the_digest_of_every_artifact() -> None:
    expected = {}
    for artifact in ARTIFACTS:
        if is_layout(artifact):
            expected[artifact.name] = {"kind": "image", "digest": Image(artifact).digest}
        else:
            # A wheel is alone in a folder.
            (artifact,) = artifact.iterdir() if artifact.is_dir() else [artifact]
            expected[artifact.name] = {
                "kind": "wheel",
                "digest": f"sha256:{hashlib.sha256(artifact.read_bytes()).hexdigest()}",
            }
    assert STAMP["artifacts"] == expected
    assert {entry["kind"] for entry in expected.values()} == {"image", "wheel"}


def test_the_stamp_names_each_test_and_how_many_cases_passed() -> None:
    assert [test["label"] for test in STAMP["tests"]] == ["//tests/registry:image", "//tests/registry:wheel"]
    assert all(test["tests"] > 3 for test in STAMP["tests"])


class Test:
    """A program in the place of a test, as Bazel lays it out."""

    def __init__(self, folder: pathlib.Path, source: str) -> None:
        self.program = folder / "test"
        python_program.write(self.program, f"import os, pathlib, sys\n{source}\n")
        (folder / "test.runfiles/_main").mkdir(parents=True)
        self.output = folder / "result.json"

    def run(self, *arguments: str) -> subprocess.CompletedProcess:
        command = [
            sys.executable,
            run_test.__file__,
            "--test",
            str(self.program),
            "--label",
            "//a:b",
            "--output",
            str(self.output),
        ]
        return subprocess.run(
            [*command, *arguments], env={"PATH": "/usr/bin", "LEAKED": "x"}, capture_output=True, text=True
        )


UNITTEST = """
import unittest
class T(unittest.TestCase):
    def test_one(self): {one}
    def test_two(self): pass
unittest.main()
"""

JUNIT = """
report = '<testsuites><testsuite tests="{tests}" skipped="{skipped}"/></testsuites>'
pathlib.Path(os.environ["XML_OUTPUT_FILE"]).write_text(report)
"""


@pytest.mark.parametrize(("source", "cases"), [(UNITTEST.format(one="pass"), 2), (JUNIT.format(tests=3, skipped=0), 3)])
def test_a_test_that_passes_leaves_its_count(tmp_path: pathlib.Path, source: str, cases: Any) -> None:
    test = Test(tmp_path, source)
    done = test.run()
    assert done.returncode == 0, done.stderr
    assert json.loads(test.output.read_text()) == {"label": "//a:b", "tests": cases}


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (UNITTEST.format(one="self.fail('broken')"), "exit status 1"),
        (UNITTEST.format(one="self.skipTest('later')"), "1 of 2 test cases were skipped"),
        (JUNIT.format(tests=3, skipped=2), "2 of 3 test cases were skipped"),
        (JUNIT.format(tests=0, skipped=0), "no test case ran"),
        ("import unittest\nunittest.main()", "no test case ran"),
        ("", "no test case ran"),
        ("print('Ran 3 tests in 0.1s')\nsys.exit(2)", "exit status 2"),
        ("os.kill(os.getpid(), 9)", "exit status -9"),
    ],
    ids=["fails", "skips", "skips in JUnit", "none in JUnit", "no case", "nothing said", "lies", "killed"],
)
def test_anything_else_leaves_nothing_and_says_why(tmp_path: pathlib.Path, source: str, said: str) -> None:
    test = Test(tmp_path, source)
    done = test.run()
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"//a:b: {said}"), done.stderr
    assert "Nothing is published" in done.stderr.splitlines()[-1] and "tools/bazel test //a:b" in done.stderr
    assert not test.output.exists()


def test_the_log_of_a_failed_test_is_shown(tmp_path: pathlib.Path) -> None:
    done = Test(tmp_path, "print('first')\nprint('the reason')\nsys.exit(1)").run()
    assert "first\nthe reason\n" in done.stderr


def test_a_test_gets_its_arguments_and_what_bazel_promises(tmp_path: pathlib.Path) -> None:
    checks = """
assert sys.argv[1:] == ["--one=1", "two words", "three"], sys.argv
assert os.environ["OWN"] == "value=with equals" and "LEAKED" not in os.environ and os.environ["TEST_TARGET"] == "//a:b"
here = pathlib.Path.cwd()
assert here.name == "_main"
assert here.parent == pathlib.Path(os.environ["TEST_SRCDIR"]) == pathlib.Path(os.environ["RUNFILES_DIR"])
assert os.environ["TEST_WORKSPACE"] == "_main" and list(pathlib.Path(os.environ["TEST_TMPDIR"]).iterdir()) == []
folder = pathlib.Path(os.environ["TEST_TMPDIR"], "locked")
folder.mkdir()
(folder / "file").touch()
folder.chmod(0o500)
"""
    test = Test(tmp_path, checks + JUNIT.format(tests=1, skipped=0))
    done = test.run("--env=OWN=value=with equals", "--", "--one=1", "'two words' three")
    assert done.returncode == 0, done.stderr
