"""Runs pytest on the files of one Bazel test: the main program of every `pytest_test` (tests/defs.bzl)."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path


class BazelPlugin:
    """Bazel's test protocol, and the project's rule: a test that did not run is not a test that passed.

    Shards: https://bazel.build/reference/test-encyclopedia#test-sharding
    """

    def __init__(self, files: list[str], allow_skips: bool) -> None:
        self.files = {Path(file).absolute() for file in files}
        self.allow_skips = allow_skips
        self.not_run: list[str] = []

    def pytest_collection_modifyitems(self, session, config, items: list) -> None:
        import pytest

        empty = self.files - {Path(item.path) for item in items}
        if empty and not self.not_run:
            raise pytest.UsageError(f"no test in {', '.join(sorted(map(str, empty)))}: name test functions test_*")
        shards = int(os.environ.get("TEST_TOTAL_SHARDS", "1"))
        if shards > 1:
            Path(os.environ["TEST_SHARD_STATUS_FILE"]).touch()
            items[:] = items[int(os.environ["TEST_SHARD_INDEX"]) :: shards]

    def pytest_collectreport(self, report) -> None:
        self.pytest_runtest_logreport(report)

    def pytest_runtest_logreport(self, report) -> None:
        if report.skipped:  # Skipped or an expected failure, a single test or a whole file.
            self.not_run.append(report.nodeid)

    def pytest_sessionfinish(self, session) -> None:
        if self.not_run and not self.allow_skips:
            session.exitstatus = session.exitstatus or 1

    def pytest_terminal_summary(self, terminalreporter) -> None:
        if self.not_run and not self.allow_skips:
            terminalreporter.write_line(
                f"ERROR: {len(self.not_run)} skipped or expected to fail, which counts as a failure "
                f"(pytest_test: allow_skips): {', '.join(self.not_run)}",
                red=True,
            )


def main() -> int:
    """Returns pytest's exit status: 0 only if every test ran and passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environment", action="append", default=[], help="a site-packages folder, first wins")
    parser.add_argument("--allow_skips", action="store_true", help="a skipped test is no failure")
    parser.add_argument("files", nargs="+", help="test files")
    arguments = parser.parse_args()

    # Nothing is read from the user's home, nothing is written beside the sources.
    temporary = os.environ.get("TEST_TMPDIR")
    if temporary:
        os.environ["HOME"] = os.environ["XDG_CACHE_HOME"] = temporary
    # Nothing of the machine is found by name, above all no compiler: a test says by path what it starts.
    os.environ["PATH"] = "/nonexistent"
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    sys.dont_write_bytecode = True
    sys.path[:0] = [str(Path(folder).absolute()) for folder in arguments.environment]
    # A Python that a test or what it tests starts has the same packages.
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path[: len(arguments.environment)])

    import pytest

    options = ["-p", "no:cacheprovider", "-c", os.devnull, f"--rootdir={Path.cwd()}", "-o", "xfail_strict=true", "-ra"]
    if temporary:
        options.append(f"--basetemp={temporary}/pytest")
    if "XML_OUTPUT_FILE" in os.environ:
        options.append(f"--junitxml={os.environ['XML_OUTPUT_FILE']}")
    if "TESTBRIDGE_TEST_ONLY" in os.environ:  # bazel test --test_filter=
        options += ["-k", os.environ["TESTBRIDGE_TEST_ONLY"]]
    return pytest.main([*options, *arguments.files], plugins=[BazelPlugin(arguments.files, arguments.allow_skips)])


if __name__ == "__main__":
    sys.exit(main())
