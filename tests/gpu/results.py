"""Turns the records of `run tests`, or those of `run bench`, into a Markdown page.

    tools/bazel run //tests/gpu:results -- results.json --write tests/gpu/RESULTS.md
    tools/bazel run //tests/gpu:results -- other.json --append bench/gpu/results.md     # another machine's, or other
    parts

Records of tests (conftest.py writes them, also for Bazel's tests) make one section per device; if several records have
a test, the last one counts.
Records of measurements (bench/gpu/measure.py) make one section each.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import report
import tables

HEADER = """\
# GPU tests: results

Written by `//tests/gpu:results` from the records of real runs; see [README.md](README.md). \
An error is ‖got − expected‖ / ‖expected‖
against float64: the largest of the tests in the row that compare that way.
"""

Record = dict[str, Any]


def section(records: Sequence[Record]) -> str:
    """Device, versions and a table by test, from records of one device."""
    last = records[-1]
    tests: dict[str, dict[str, Any]] = {}
    for record in records:
        tests.update(record["tests"])
    components = ", ".join(
        f"{name} {part['version']}" if part["loaded"] else f"{name} not loaded ({part['reason']})"
        for name, part in last["components"].items()
    )
    failed = [name for name, test in tests.items() if test["outcome"] != "passed"]
    memory = f"{last['memory_bytes'] / 2**30:.0f} GiB"
    facts = {
        "date": last["date"],
        "GPUs": f"{last['devices']}, compute capability {last['compute_capability']}, {memory}",
        "NVIDIA driver": last["driver"] or "its kernel module does not tell",
        "CUDA": components,
        "TVM": last["tvm"] + (", the runtime alone" if last["runtime_only"] else ""),
        "tests": f"{len(tests) - len(failed)} of {len(tests)} passed",
    }
    rows: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
    for name, test in tests.items():
        file, _, function = name.partition("::")
        function = function.partition("[")[0].removeprefix("test_").replace("_", " ")
        rows[f"{file.removeprefix('test_').removesuffix('.py')}: {function}"].append(test)
    table = report.table(
        ["tests", "passed", "seconds", "largest relative error"], [_row(*each) for each in rows.items()]
    )
    title = f"## {last['device']}" + (f", {last['devices']} of them" if last["devices"] > 1 else "")
    parts = [title, "\n".join(f"* {name}: {text}" for name, text in facts.items()), table.rstrip()]
    if failed:
        parts.append("\n".join(f"* {name}: {tests[name]['outcome']}" for name in failed))
    return "\n\n".join(parts) + "\n"


def _row(label: str, cases: Sequence[dict[str, Any]]) -> list[str]:
    passed = sum(case["outcome"] == "passed" for case in cases)
    errors = [case["relative_error"] for case in cases if "relative_error" in case]
    seconds = sum(case["seconds"] for case in cases)
    return [label, f"{passed} of {len(cases)}", f"{seconds:.1f}", f"{max(errors):.1e}" if errors else ""]


def sections(records: Sequence[Record]) -> tuple[str, str]:
    """Header of the page, and the text below it.

    Raises:
        SystemExit: the records are not all of one kind.
    """
    kinds = {"tests" in record for record in records}
    if len(kinds) > 1:
        raise SystemExit("results: expected records of tests or records of measurements, found both")
    if kinds == {False}:
        return tables.HEADER, "\n---\n\n".join(map(tables.text, records))
    devices: dict[tuple[str, int], list[Record]] = collections.defaultdict(list)
    for record in records:
        devices[record["device"], record["devices"]].append(record)
    return HEADER, "\n".join(map(section, devices.values()))


def page(records: Sequence[Record]) -> str:
    """The page of these records alone."""
    return "\n".join(sections(records))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", type=Path, nargs="+", metavar="RECORD", help="JSON file that a run wrote")
    action = parser.add_mutually_exclusive_group()
    action.add_argument(
        "--write", type=Path, metavar="FILE", help="write the page to a file instead of standard output"
    )
    action.add_argument("--append", type=Path, metavar="FILE", help="add the sections to the end of a page")
    options = parser.parse_args()
    # `bazel run` changes the working directory.
    here = Path(os.environ.get("BUILD_WORKING_DIRECTORY", "."))
    records = [json.loads((here / path).read_text(encoding="utf-8")) for path in options.records]
    if options.append:
        with (here / options.append).open("a", encoding="utf-8") as file:
            file.write(f"\n---\n\n{sections(records)[1]}")
    elif options.write:
        (here / options.write).write_text(page(records), encoding="utf-8")
    else:
        sys.stdout.write(page(records))
    return 0


if __name__ == "__main__":
    sys.exit(main())
