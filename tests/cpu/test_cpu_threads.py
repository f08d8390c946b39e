"""The kernels use the cores that the process has, or what TVM's variables say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


def threads(cpus: int | None = None, **variables: str) -> int:
    """How many a new process uses that may run on so many processors."""
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    program = "import cpu_kernels, tvm; print(tvm.get_global_func('mlc_bazel.cpu.threads')())"
    if cpus:
        program = f"import os; os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:{cpus}]); {program}"
    paths = {"PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment | paths | variables, stdout=subprocess.PIPE, text=True
    )
    assert done.returncode == 0
    return int(done.stdout)


def test_one_processor_is_one_thread() -> None:
    assert threads(cpus=1) == 1


def test_there_are_no_more_threads_than_processors() -> None:
    assert 1 <= threads() <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"TVM_NUM_THREADS": "5"}, 5),
        ({"OMP_NUM_THREADS": "4"}, 4),
        ({"TVM_NUM_THREADS": "3", "OMP_NUM_THREADS": "4"}, 3),
        ({"TVM_NUM_THREADS": "0"}, 1),
    ],
)
def test_variables_win(variables: dict[str, str], expected: int) -> None:
    assert threads(cpus=1, **variables) == expected
