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


def test_there_is_a_limit() -> None:
    assert threads(cpus=1, OMP_NUM_THREADS="99999999999") == 1024


def test_a_process_that_gets_no_more_threads_works_with_those_it_has() -> None:
    program = """
import os, resource
import cpu_kernels, numpy as np, tvm
x, weights, out = (tvm.runtime.tensor(np.ones(shape, "float32")) for shape in [(2, 1024), (4096, 1024), (2, 4096)])
kernel = tvm.get_global_func("mlc_bazel.cpu.matmul")
used = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20), resource.RLIM_INFINITY))
kernel(x, weights, out)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
assert len(os.listdir("/proc/self/task")) < 512
print((out.numpy() == 1024).all())
"""
    paths = {"PYTHONPATH": os.pathsep.join([str(HERE), *sys.path]), "TVM_NUM_THREADS": "512"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | paths, stdout=subprocess.PIPE, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "True\n")


def share_work(*arguments: int) -> str:
    """What share_work.cc prints with four threads."""
    program = [str(Path(os.environ["SHARE_WORK"]).absolute()), *map(str, arguments)]
    environment = os.environ | {"TVM_NUM_THREADS": "4"}
    done = subprocess.run(program, env=environment, stdout=subprocess.PIPE, text=True, timeout=300)
    assert done.returncode == 0
    return done.stdout


def test_forked_processes_work_without_their_parents_threads() -> None:
    assert share_work(0, 1000) == "end\n"


def test_every_part_of_every_call_runs_once_before_it_returns() -> None:
    """A thread that was late with one call took a part of the next, a few times in a million calls."""
    assert share_work(10) == "end\n"
