"""Runs the GPU tests of the bundle on a Linux machine with an NVIDIA driver and NVIDIA's libraries; it needs nothing
else.

    ./run tests --results results.json
    ./run tests --filter "nccl or paged" --nvidia-libraries /usr/lib/python3/dist-packages

Each test file runs in its own process, so a crash or a GPU that no longer answers does not stop the others.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import machine

BUNDLE = Path(__file__).absolute().parent.parent
ENVIRONMENTS = ("ours", "shared", "test_packages")
"""Folders of the bundle with Python packages, the first wins."""
LIMIT = 300
"""Seconds that a test file may take."""


def run_file(test: Path, record: Path, nvidia_libraries: Path, expression: str | None) -> str:
    """Runs one test file; returns "ended" unless its process crashed or ran out of time.

    Args:
        test: the file.
        record: where conftest.py writes what became of each test.
        nvidia_libraries: site-packages folder with NVIDIA's libraries.
        expression: which tests to run, as pytest -k takes it.
    """
    variables = (
        os.environ
        | machine.NCCL_ENVIRONMENT
        | {
            "MLC_GPU_MODULES": str(BUNDLE / "modules"),
            "MLC_GPU_RESULTS": str(record),
            "MLC_NVIDIA_LIBRARIES": str(nvidia_libraries),
        }
    )
    if expression:
        variables["TESTBRIDGE_TEST_ONLY"] = expression
    environments = [f"--environment={BUNDLE / name}" for name in ENVIRONMENTS]
    command: list[str | Path] = [
        sys.executable,
        BUNDLE / "tests/run_pytest.py",
        *environments,
        test.relative_to(BUNDLE),
    ]
    try:
        status = subprocess.run(command, cwd=BUNDLE, env=variables, timeout=LIMIT).returncode
    except subprocess.TimeoutExpired:
        return f"gave no answer within {LIMIT} s"
    # pytest's own statuses: passed, failed, interrupted, internal error, usage, no tests selected.
    return "ended" if 0 <= status <= 5 else f"crashed with exit status {status}"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="run tests", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, metavar="FILE", help="the JSON file to write, for //tests/gpu:results")
    parser.add_argument("--filter", metavar="EXPRESSION", help="which tests to run, as pytest -k takes it")
    machine.add_arguments(parser)
    options = parser.parse_args()
    machine.require_gpu()
    nvidia_libraries = machine.nvidia_libraries(options)

    merged: dict[str, Any] = {}
    tests: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for test in sorted((BUNDLE / "tests").glob("test_*.py")):
            record = Path(temporary, test.name + ".json")
            end = run_file(test, record, nvidia_libraries, options.filter)
            if record.exists():
                merged = json.loads(record.read_text(encoding="utf-8"))
                tests |= merged["tests"]
            if end != "ended":
                tests[f"{test.name}::the whole file"] = {"outcome": end, "seconds": 0.0}
    failed = [f"{name}: {test['outcome']}" for name, test in tests.items() if test["outcome"] != "passed"]
    if options.results:
        options.results.write_text(json.dumps(merged | {"tests": tests}, indent=1) + "\n", encoding="utf-8")
    print(f"{len(tests) - len(failed)} of {len(tests)} passed", *failed, sep="\n  ")
    return 1 if failed or not tests else 0


if __name__ == "__main__":
    sys.exit(main())
