"""Collectives over NCCL give NumPy's results in sessions of threads and of processes, over as many GPUs as there are: one is enough."""

import os
import signal
import time
from collections.abc import Iterator

import numpy as np
import pytest
from child import start_python
from comparison import ROUNDING, numpy_dtype, random_array
from conftest import device_count
from tvm.runtime.disco import DRef, ProcessSession, Session, ThreadedSession

WORKERS = max(1, device_count())

SIZES = {"1 KiB": 1 << 10, "1 MiB": 1 << 20}

every_type = pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
every_size = pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)


@pytest.fixture(scope="module", params=[ThreadedSession, ProcessSession], ids=["threads", "processes"])
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    session = request.param(WORKERS)
    session.init_ccl("nccl", *range(WORKERS))
    yield session
    session.shutdown()


def _elements(size: int, dtype: str) -> int:
    return size // numpy_dtype(dtype).itemsize


def _put(session: Session, arrays: list[np.ndarray]) -> DRef:
    """arrays[i] on the GPU of worker i."""
    remote = session.empty(arrays[0].shape, str(arrays[0].dtype))
    for worker, array in enumerate(arrays):
        remote.debug_copy_from(worker, array)
    return remote


def _poison(session: Session, shape: tuple[int, ...], dtype: str) -> DRef:
    return _put(session, [np.full(shape, np.nan).astype(numpy_dtype(dtype))] * WORKERS)


def _get(session: Session, remote: DRef) -> list[np.ndarray]:
    session._sync_all()
    return [remote.debug_get_from_remote(worker).numpy() for worker in range(WORKERS)]


def test_each_worker_has_a_gpu_of_its_own(session: Session) -> None:
    identity = session.get_global_func("runtime.disco.worker_id")()
    assert [list(identity.debug_get_from_remote(worker)) for worker in range(WORKERS)] == [[worker] for worker in range(WORKERS)]
    assert session.num_workers == WORKERS


@every_type
@every_size
@pytest.mark.parametrize("operation", ["sum", "max", "avg"])
def test_allreduce(session: Session, compare, operation: str, size: int, dtype: str) -> None:
    arrays = [random_array(worker, (_elements(size, dtype),), dtype) for worker in range(WORKERS)]
    source, destination = _put(session, arrays), _poison(session, arrays[0].shape, dtype)
    session.allreduce(source, destination, op=operation)
    stacked = np.stack(arrays).astype("float64")
    expected = {"sum": np.sum, "max": np.max, "avg": np.mean}[operation](stacked, axis=0)
    for got in _get(session, destination):
        # One rounding for each number that is added to the first; the mean is one more.
        compare(got, expected, 0 if operation == "max" else WORKERS * ROUNDING[dtype])


@every_type
@every_size
def test_allgather(session: Session, size: int, dtype: str) -> None:
    count = -(-_elements(size, dtype) // WORKERS)
    arrays = [random_array(worker, (count,), dtype) for worker in range(WORKERS)]
    source, destination = _put(session, arrays), _poison(session, (WORKERS, count), dtype)
    session.allgather(source, destination)
    for got in _get(session, destination):
        assert got.tobytes() == np.stack(arrays).tobytes()


@every_type
@every_size
def test_broadcast(session: Session, size: int, dtype: str) -> None:
    array = random_array(7, (_elements(size, dtype),), dtype)
    destination = _poison(session, array.shape, dtype)
    session.broadcast(array, destination)
    for got in _get(session, destination):
        assert got.tobytes() == array.tobytes()


@every_type
@every_size
def test_scatter(session: Session, size: int, dtype: str) -> None:
    array = random_array(8, (WORKERS, -(-_elements(size, dtype) // WORKERS)), dtype)
    destination = _poison(session, array.shape[1:], dtype)
    session.scatter(array, destination)
    for worker, got in enumerate(_get(session, destination)):
        assert got.tobytes() == array[worker].tobytes()


@every_type
def test_gather(session: Session, dtype: str) -> None:
    arrays = [random_array(worker, (12345,), dtype) for worker in range(WORKERS)]
    source, destination = _put(session, arrays), _poison(session, (WORKERS, 12345), dtype)
    session.gather_to_worker0(source, destination)
    assert _get(session, destination)[0].tobytes() == np.stack(arrays).tobytes()


def test_many_operations_in_a_row_need_no_wait(session: Session, compare) -> None:
    """Each doubles, or with more GPUs multiplies, what the one before left; the order is the session's."""
    count = 12 if WORKERS == 1 else 4
    first = _put(session, [np.ones(1000, "float32")] * WORKERS)
    second = _poison(session, (1000,), "float32")
    for _ in range(count):
        session.allreduce(first, second)
        session.allreduce(second, first)
    for got in _get(session, first):
        compare(got, np.full(1000, float(WORKERS) ** (2 * count)), ROUNDING["float32"])


# With one GPU nothing travels, and a larger size would show nothing more.
if WORKERS > 1:

    def test_a_gibibyte(compare) -> None:
        """Each operation; in a session of threads alone, where the test's own copies do not go through pipes."""
        session = ThreadedSession(WORKERS)
        session.init_ccl("nccl", *range(WORKERS))
        count = (1 << 30) // 4 // WORKERS
        # A block over and over: its length, a prime, is no multiple of what NCCL cuts tensors into.
        arrays = [np.resize(random_array(worker, (1000003,), "float32"), WORKERS * count) for worker in range(WORKERS)]
        source, destination = _put(session, arrays), _poison(session, arrays[0].shape, "float32")
        session.allreduce(source, destination)
        expected = np.sum([array.astype("float64") for array in arrays], axis=0)
        for got in _get(session, destination):
            compare(got, expected, WORKERS * ROUNDING["float32"])

        session.broadcast(arrays[0], destination)
        for got in _get(session, destination):
            np.testing.assert_array_equal(got, arrays[0])

        parts = [array[:count] for array in arrays]
        gathered = _poison(session, (WORKERS, count), "float32")
        session.allgather(_put(session, parts), gathered)
        for got in _get(session, gathered):
            np.testing.assert_array_equal(got, np.stack(parts))

        part = _poison(session, (count,), "float32")
        session.scatter(arrays[0].reshape(WORKERS, count), part)
        for worker, got in enumerate(_get(session, part)):
            np.testing.assert_array_equal(got, arrays[0][worker * count : (worker + 1) * count])
        session.shutdown()


# A controller with worker processes, one of which is ended while it waits. It says what came of it, and must not hang in it.
DYING = """
import json
import os
import tvm  # And with it tvm_cuda, which makes sessions known.
from tvm.runtime.disco import ProcessSession
session = ProcessSession({workers})
if {with_nccl}:
    session.init_ccl("nccl", *range({workers}))
    session._sync_all()
identity = session.get_global_func("runtime.disco.worker_id")
assert list(identity().debug_get_from_remote(1)) == [1]
with open(f"/proc/self/task/{{os.getpid()}}/children") as file:
    print(file.read(), flush=True)
input()
try:
    identity().debug_get_from_remote(1)
    print("no error", flush=True)
except Exception as error:
    print("error:", str(error).splitlines()[-1], flush=True)
"""


def _alive(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("with_nccl", [False] + [True] * (WORKERS > 1))
def test_a_dying_worker_is_an_error_at_once_and_leaves_no_process(with_nccl: bool) -> None:
    """The workers need no GPU for it; with two GPUs they have them."""
    controller = start_python(DYING.format(workers=max(2, WORKERS), with_nccl=with_nccl))
    assert controller.stdout is not None
    workers = [int(process) for process in controller.stdout.readline().split()]
    assert workers and all(map(_alive, workers)), controller.communicate(timeout=60)[1]
    os.kill(workers[0], signal.SIGKILL)
    while _alive(workers[0]):
        time.sleep(0.01)
    # TVM 0.26 ends the controller by a signal afterwards, when it says goodbye to the worker that is gone: see README.md.
    output, errors = controller.communicate("\n", timeout=30)
    assert output.startswith("error: ") and "Broken pipe" in output, (output, errors)
    deadline = time.monotonic() + 10
    while any(map(_alive, workers)):
        assert time.monotonic() < deadline, f"still there: {list(filter(_alive, workers))}"
        time.sleep(0.05)
