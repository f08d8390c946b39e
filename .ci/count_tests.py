"""Prints each test target and its result, then `N passed, N failed`. Fails if no test ran or one did not pass.

    python3 .ci/count_tests.py [--gpu EVENTS] EVENTS...
    python3 .ci/count_tests.py --list EVENTS...

EVENTS are Bazel's build events, or the record of a gate (gate.json), whose tests passed. --list prints the labels of
tests that passed.

A target that ran in several builds counts once, and passes if it passed in all of them. On a machine without a GPU, the
tests of --gpu must not have run.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys

PASSED = "PASSED"

# A test that fails leaves no record.
GATE = "gate.json"

# The devices by which //toolchains/cuda:extension.bzl recognizes a GPU.
GPUS = ("/dev/nvidiactl", "/dev/dxg")


def results(events: pathlib.Path) -> dict[str, str]:
    """Returns the status of each test target (PASSED, FLAKY, FAILED, TIMEOUT, NO_STATUS, …).

    Args:
        events: a file of Bazel's build events, one JSON object per line, or the record of a gate, one JSON object.
    """
    text = events.read_text(encoding="utf-8")
    if events.name == GATE:
        return {test["label"]: PASSED for test in json.loads(text)["tests"]}
    found = {}
    for line in text.splitlines():
        event = json.loads(line)
        if "testSummary" in event.get("id", {}) and "testSummary" in event:
            found[event["id"]["testSummary"]["label"]] = event["testSummary"].get("overallStatus", "NO_STATUS")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", type=pathlib.Path, metavar="EVENTS", help="build events of the tests that need a GPU")
    parser.add_argument("--list", action="store_true", help="print the labels of tests that passed, and nothing else")
    parser.add_argument(
        "events",
        type=pathlib.Path,
        nargs="+",
        metavar="EVENTS",
        help="build events, one JSON object per line, or gate.json",
    )
    arguments = parser.parse_args()
    statuses: dict[str, str] = {}
    for path in arguments.events:
        for label, status in results(path).items():
            if statuses.get(label, PASSED) == PASSED:
                statuses[label] = status
    if arguments.list:
        for label, status in sorted(statuses.items()):
            if status == PASSED:
                print(label)
        return 0
    if arguments.gpu and not any(pathlib.Path(gpu).exists() for gpu in GPUS):
        statuses |= dict.fromkeys(results(arguments.gpu), "NO GPU")
    for label, status in sorted(statuses.items()):
        print(f"{status:<10} {label}")
    passed = sum(status == PASSED for status in statuses.values())
    print(f"{passed} passed, {len(statuses) - passed} failed")
    return 0 if statuses and passed == len(statuses) else 1


if __name__ == "__main__":
    sys.exit(main())
