"""Runs pytest on the files of one Bazel test; the main program of every `pytest_test` (tests/defs.bzl)."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


class BazelPlugin:
    """Bazel's test protocol, and the project's rule that a skipped test counts as failed.

    Shards: https://bazel.build/reference/test-encyclopedia#test-sharding
    """

    def __init__(self, files: list[str], allow_skips: bool) -> None:
        self.files = {Path(file).absolute() for file in files}
        self.allow_skips = allow_skips
        self.not_run: list[str] = []

    def pytest_collection_modifyitems(
        self, session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        import pytest

        empty = self.files - {Path(item.path) for item in items}
        if empty and not self.not_run:
            raise pytest.UsageError(f"no test in {', '.join(sorted(map(str, empty)))}: name test functions test_*")
        shards = int(os.environ.get("TEST_TOTAL_SHARDS", "1"))
        if shards > 1:
            Path(os.environ["TEST_SHARD_STATUS_FILE"]).touch()
            items[:] = items[int(os.environ["TEST_SHARD_INDEX"]) :: shards]

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self.pytest_runtest_logreport(report)

    def pytest_runtest_logreport(self, report: pytest.CollectReport | pytest.TestReport) -> None:
        if report.skipped:  # A test or a whole file that is skipped, or fails as expected.
            self.not_run.append(report.nodeid)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.not_run and not self.allow_skips:
            session.exitstatus = session.exitstatus or 1

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.not_run and not self.allow_skips:
            terminalreporter.write_line(
                f"ERROR: {len(self.not_run)} skipped or expected to fail, which counts as a failure "
                f"(pytest_test: allow_skips): {', '.join(self.not_run)}",
                red=True,
            )


def main() -> int:
    """Returns pytest's exit status: 0 only if every test ran and passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environment", action="append", default=[], help="a site-packages folder; the first wins")
    parser.add_argument("--python", help="the interpreter to run on, if not on this one")
    parser.add_argument("--allow_skips", action="store_true", help="do not count skipped tests as failures")
    parser.add_argument("files", nargs="+", help="test files")
    arguments = parser.parse_args()
    if arguments.python:
        others = [argument for argument in sys.argv[1:] if not argument.startswith("--python=")]
        os.execv(arguments.python, [arguments.python, __file__, *others])

    # Read nothing from the user's home, and write nothing next to the sources.
    temporary = os.environ.get("TEST_TMPDIR")
    if temporary:
        os.environ["HOME"] = os.environ["XDG_CACHE_HOME"] = temporary
    # Find no program of the machine by name, least of all a compiler: tests start programs by path.
    os.environ["PATH"] = "/nonexistent"
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    sys.dont_write_bytecode = True
    sys.path[:0] = [str(Path(folder).absolute()) for folder in arguments.environment]
    # Child processes that run Python see the same packages.
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path[: len(arguments.environment)])

    import pytest

    options = ["-p", "no:cacheprovider", "-c", os.devnull, f"--rootdir={Path.cwd()}", "-o", "xfail_strict=true", "-ra"]
    # Otherwise pytest runs conftest.py of every folder above, as far as the user's home.
    options.append(f"--confcutdir={Path.cwd()}")
    if temporary:
        options.append(f"--basetemp={temporary}/pytest")
    if "XML_OUTPUT_FILE" in os.environ:
        options.append(f"--junitxml={os.environ['XML_OUTPUT_FILE']}")
    if "TESTBRIDGE_TEST_ONLY" in os.environ:  # bazel test --test_filter=
        options += ["-k", os.environ["TESTBRIDGE_TEST_ONLY"]]
    return pytest.main([*options, *arguments.files], plugins=[BazelPlugin(arguments.files, arguments.allow_skips)])


if __name__ == "__main__":
    sys.exit(main())
