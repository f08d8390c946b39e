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


def run(program: str, threads: int) -> str:
    """What a Python program prints that uses so many threads, within a minute."""
    paths = {"PYTHONPATH": os.pathsep.join([str(HERE), *sys.path]), "TVM_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | paths, stdout=subprocess.PIPE, text=True, timeout=60
    )
    assert done.returncode == 0
    return done.stdout


PRODUCT = """
import os, resource, sys
import cpu_kernels, numpy as np, tvm

def product(rows=2, columns=4096, depth=1024):
    x, weights = np.ones((rows, depth), "float32"), np.ones((columns, depth), "float32")
    out = np.zeros((rows, columns), "float32")
    cpu_kernels.call("matmul", x, weights, out)
    return bool((out == depth).all())
"""


def test_a_process_that_gets_no_more_threads_works_with_those_it_has() -> None:
    program = (
        PRODUCT
        + """
x, weights, out = (tvm.runtime.tensor(np.ones(shape, "float32")) for shape in [(2, 1024), (4096, 1024), (2, 4096)])
kernel = tvm.get_global_func("mlc_bazel.cpu.matmul")
used = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20), resource.RLIM_INFINITY))
kernel(x, weights, out)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
assert len(os.listdir("/proc/self/task")) < 512
print((out.numpy() == 1024).all())
"""
    )
    assert run(program, 512) == "True\n"


def test_a_forked_process_works_without_its_parents_threads() -> None:
    program = (
        PRODUCT
        + """
for _ in range(200):
    assert product()
    child = os.fork()
    if not child:
        os._exit(0 if product() else 1)
    assert os.waitpid(child, 0)[1] == 0
print("done")
"""
    )
    assert run(program, 4) == "done\n"


def test_calls_with_few_and_with_many_parts_follow_each_other() -> None:
    """A thread that is late with one call must not take a part of the next."""
    program = (
        PRODUCT
        + """
import time
end = time.monotonic() + 5
while time.monotonic() < end:
    assert product(columns=80, depth=2048) and product(columns=3000, depth=64)
print("done")
"""
    )
    assert run(program, 4) == "done\n"
