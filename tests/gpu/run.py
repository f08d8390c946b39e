"""Runs the GPU tests out of the archive //tests/gpu:bundle, on a Linux machine that has an NVIDIA driver and NVIDIA's libraries and needs nothing else.

    ./run --nvidia-libraries /usr/lib/python3/dist-packages --results results.json
    ./run --nvidia-libraries ... --filter "nccl or paged"

Each file of tests has a process of its own, so that one that ends in a crash, or in a device that does not answer, leaves the others their turn.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent.absolute()
SECONDS = 300
"""A file of tests may take that long."""


def run_file(test: Path, record: Path, options: argparse.Namespace) -> str:
    """Runs one file of tests; returns what became of its process: "ended" for any end that pytest itself reports."""
    variables = os.environ | {
        "MLC_GPU_MODULES": str(HERE / "modules"),
        "MLC_GPU_RESULTS": str(record),
        "MLC_NVIDIA_LIBRARIES": str(options.nvidia_libraries.absolute()),
        # See BUILD.bazel.
        "NCCL_NVLS_ENABLE": "0",
    }
    if options.filter:
        variables["TESTBRIDGE_TEST_ONLY"] = options.filter
    environments = [f"--environment={folder}" for folder in sorted((HERE / "packages").iterdir())]
    try:
        status = subprocess.run(
            [sys.executable, HERE / "run_pytest.py", *environments, test.relative_to(HERE)], cwd=HERE, env=variables, timeout=SECONDS
        ).returncode
    except subprocess.TimeoutExpired:
        return f"ended after {SECONDS} s without an answer"
    # pytest's own statuses: passed, failed, interrupted, internal error, usage, none selected.
    return "ended" if 0 <= status <= 5 else f"crashed with exit status {status}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nvidia-libraries", type=Path, required=True, help="folder with nvidia/cu13/lib and so on: a site-packages")
    parser.add_argument("--results", type=Path, help="file to write the record of the run to")
    parser.add_argument("--filter", help="which tests: an expression as pytest -k takes it")
    options = parser.parse_args()
    if not (options.nvidia_libraries / "nvidia").is_dir():
        parser.error(f"--nvidia-libraries {options.nvidia_libraries}: expected a folder `nvidia` in it, found none")

    merged: dict[str, object] = {}
    tests: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for test in sorted((HERE / "tests").glob("test_*.py")):
            record = Path(temporary, test.name + ".json")
            end = run_file(test, record, options)
            if record.exists():
                merged = json.loads(record.read_text())
                tests |= merged["tests"]
            if end != "ended":
                tests[f"{test.name}::the whole file"] = {"outcome": end, "seconds": 0.0}
    failed = [f"{name}: {test['outcome']}" for name, test in tests.items() if test["outcome"] != "passed"]
    if options.results:
        options.results.write_text(json.dumps(merged | {"tests": tests}, indent=1) + "\n")
    print(f"{len(tests) - len(failed)} of {len(tests)} passed", *failed, sep="\n  ")
    return 1 if failed or not tests else 0


if __name__ == "__main__":
    sys.exit(main())
