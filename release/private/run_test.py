"""Runs one test for a gate (gate.bzl) as Bazel would, and writes its result only if it passed.

The environment is that of Bazel's test encyclopedia: https://bazel.build/reference/test-encyclopedia#initial-conditions
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile
from xml.etree import ElementTree

# The end of a log says why a test failed; the whole log would bury it.
_LINES_SHOWN = 80


class NotPassed(Exception):
    """The test failed, or nothing shows that it passed."""


def cases(report: pathlib.Path, log: str) -> int:
    """How many test cases ran and passed, from pytest's JUnit report or unittest's summary.

    Raises:
        NotPassed: a case was skipped, or none ran.
    """
    skipped = 0
    if report.exists():
        # Written by pytest a moment ago.
        suites = list(ElementTree.parse(report).iter("testsuite"))  # noqa: S314
        ran = sum(int(suite.get("tests", 0)) for suite in suites)
        skipped = sum(int(suite.get("skipped", 0)) for suite in suites)
    else:
        counts = re.findall(r"^Ran (\d+) tests? in ", log, re.MULTILINE)
        ran = sum(map(int, counts))
        skipped = sum(map(int, re.findall(r"^OK \(.*?skipped=(\d+)", log, re.MULTILINE)))
    if skipped:
        raise NotPassed(f"{skipped} of {ran} test cases were skipped: nothing is published untested")
    if not ran:
        raise NotPassed("no test case ran: expected a JUnit report or unittest's summary with at least one")
    return ran


def run(test: pathlib.Path, arguments: list[str], environment: dict[str, str], label: str) -> int:
    """Runs the test and returns how many cases passed.

    Args:
        test: the test's executable, with its runfiles next to it.
        arguments: the test's arguments.
        environment: the test's own variables.
        label: the test's label.

    Raises:
        NotPassed: the message contains the end of the log.
    """
    runfiles = pathlib.Path(f"{test.absolute()}.runfiles")
    with tempfile.TemporaryDirectory(prefix="gate-") as scratch:
        report = pathlib.Path(scratch, "test.xml")
        temporary = pathlib.Path(scratch, "tmp")
        temporary.mkdir()
        promised = {
            "PATH": os.environ.get("PATH", os.defpath),
            "RUNFILES_DIR": str(runfiles),
            "TEST_SRCDIR": str(runfiles),
            "TEST_TARGET": label,
            "TEST_TMPDIR": str(temporary),
            "TEST_WORKSPACE": "_main",
            "TZ": "UTC",
            "XML_OUTPUT_FILE": str(report),
        }
        try:
            done = subprocess.run(
                [str(test.absolute()), *arguments],
                cwd=runfiles / "_main",
                env=promised | environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
            if done.returncode:
                raise NotPassed(f"exit status {done.returncode}")
            return cases(report, done.stdout)
        except NotPassed as failure:
            log = "\n".join(done.stdout.splitlines()[-_LINES_SHOWN:])
            raise NotPassed(
                f"{log}\n{label}: {failure}. Nothing is published. To see more: tools/bazel test {label}"
            ) from None
        finally:
            # Tests may leave folders without write permission, which could not be removed.
            for folder, folders, _ in os.walk(scratch):
                for name in folders:
                    if not os.path.islink(path := os.path.join(folder, name)):
                        os.chmod(path, 0o700)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--test", type=pathlib.Path, required=True, help="the test's executable")
    parser.add_argument("--label", required=True, help="the test's label")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="the JSON file to write if it passes")
    parser.add_argument(
        "--env", action="append", default=[], metavar="NAME=VALUE", help="a variable of the test; may be repeated"
    )
    parser.add_argument("arguments", nargs="*", help="the test's arguments, after --")
    options = parser.parse_args()
    arguments = [word for argument in options.arguments for word in shlex.split(argument)]
    try:
        ran = run(options.test, arguments, dict(entry.split("=", 1) for entry in options.env), options.label)
    except NotPassed as failure:
        print(failure, file=sys.stderr)
        return 1
    options.output.write_text(json.dumps({"label": options.label, "tests": ran}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
