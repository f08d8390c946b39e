"""Prints every test target that ran with its result, then `N passed, N failed`; fails if none ran or one did not pass."""

from __future__ import annotations

import json
import pathlib
import sys


def results(events: pathlib.Path) -> dict[str, str]:
    """Test target → status (PASSED, FLAKY, FAILED, TIMEOUT, NO_STATUS, …) from a file of Bazel's build events, one JSON object a line."""
    found = {}
    for line in events.read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        if "testSummary" in event.get("id", {}) and "testSummary" in event:
            found[event["id"]["testSummary"]["label"]] = event["testSummary"].get("overallStatus", "NO_STATUS")
    return found


def main() -> int:
    statuses: dict[str, str] = {}
    for name in sys.argv[1:]:
        statuses |= results(pathlib.Path(name))
    for label, status in sorted(statuses.items()):
        print(f"{status:<10} {label}")
    passed = sum(status == "PASSED" for status in statuses.values())
    print(f"{passed} passed, {len(statuses) - passed} failed")
    return 0 if statuses and passed == len(statuses) else 1


if __name__ == "__main__":
    sys.exit(main())
