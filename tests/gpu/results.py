"""Makes RESULTS.md of the records that runs of the GPU tests wrote: `tools/bazel run //tests/gpu:results -- RECORD.json... > tests/gpu/RESULTS.md`.

A record is what conftest.py writes with MLC_GPU_RESULTS, of one file of tests or of many. Records of one device make one section; a test that is in two of
them counts as the later one says.
"""

from __future__ import annotations

import argparse
import collections
import json
import sys
from pathlib import Path

HEAD = """\
# GPU tests: results

Written by `//tests/gpu:results` from the records of real runs; see [README.md](README.md). An error is ‖got − expected‖ / ‖expected‖
against float64, the largest of the tests in the row that compare that way.
"""


def section(records: list[dict[str, object]]) -> str:
    """Device, versions and a table by file, of records of one device."""
    last = records[-1]
    tests: dict[str, dict[str, object]] = {}
    for record in records:
        tests.update(record["tests"])
    components = ", ".join(
        f"{name} {part['version']}" if part["loaded"] else f"{name} not loaded ({part['reason']})" for name, part in last["components"].items()
    )
    failed = [name for name, test in tests.items() if test["outcome"] != "passed"]
    lines = [
        f"## {last['device']}" + (f", {last['devices']} of them" if last["devices"] > 1 else ""),
        "",
        "| | |",
        "|---|---|",
        f"| date | {last['date']} |",
        f"| GPUs | {last['devices']}, compute capability {last['compute_capability']}, {last['memory_bytes'] / 2**30:.0f} GiB |",
        f"| NVIDIA driver | {last['driver'] or 'its kernel module does not say'} |",
        f"| CUDA | {components} |",
        f"| TVM | {last['tvm']}{', the runtime alone' if last['runtime_only'] else ''} |",
        f"| tests | {len(tests) - len(failed)} of {len(tests)} passed |",
        "",
        "| tests | passed | seconds | largest relative error |",
        "|---|--:|--:|--:|",
    ]
    rows: dict[tuple[str, str], list[dict[str, object]]] = collections.defaultdict(list)
    for name, test in tests.items():
        file, _, function = name.partition("::")
        rows[file, function.partition("[")[0]].append(test)
    for (file, function), cases in rows.items():
        label = f"{file.removeprefix('test_').removesuffix('.py')}: {function.removeprefix('test_').replace('_', ' ')}"
        passed = sum(case["outcome"] == "passed" for case in cases)
        errors = [case["relative_error"] for case in cases if "relative_error" in case]
        error = f"{max(errors):.1e}" if errors else ""
        lines.append(f"| {label} | {passed} of {len(cases)} | {sum(case['seconds'] for case in cases):.1f} | {error} |")
    lines += ["", *(f"* {name}: {tests[name]['outcome']}" for name in failed)]
    return "\n".join(lines).rstrip() + "\n"


def render(records: list[dict[str, object]]) -> str:
    """The page, a section for each device, in the order in which the records have them."""
    devices: dict[tuple[object, ...], list[dict[str, object]]] = collections.defaultdict(list)
    for record in records:
        devices[record["device"], record["devices"]].append(record)
    return "\n".join([HEAD, *map(section, devices.values())])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("records", type=Path, nargs="+", help="records of runs, JSON")
    options = parser.parse_args()
    sys.stdout.write(render([json.loads(path.read_text()) for path in options.records]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
