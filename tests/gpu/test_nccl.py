"""Collectives over NCCL match NumPy in sessions of threads and of processes, over all GPUs of the machine; one is
enough.
"""

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import comparison
import numpy as np
import on_workers  # Registers its functions for workers that are threads, as the first one always is.
import pytest
from child import start_python
from comparison import ROUNDING, numpy_dtype, random_array, relative_error
from conftest import MODULES, Compare, Machine, Within, device_count
from modules import BLOCK_WIDTH
from tvm.runtime.disco import DRef, ProcessSession, Session, ThreadedSession

import tvm

WORKERS = max(1, device_count())

# NCCL uses different protocols for small and large messages, and splits large ones.
SIZES = {"1 KiB": 1 << 10, "32 KiB": 1 << 15, "1 MiB": 1 << 20, "32 MiB": 1 << 25, "1 GiB": 1 << 30}

every_type = pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
every_size = pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)


@pytest.fixture(scope="module", params=["threads", "processes"])
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    with pytest.MonkeyPatch.context() as patch:
        # Worker processes import on_workers, and it imports comparison.
        for module in (comparison, on_workers):
            patch.setenv("PYTHONPATH", str(Path(str(module.__file__)).parent), prepend=os.pathsep)
        session = (
            ThreadedSession(WORKERS) if request.param == "threads" else ProcessSession(WORKERS, entrypoint="on_workers")
        )
    session.init_ccl("nccl", *range(WORKERS))
    yield session
    session.shutdown()


def _on_workers(session: Session, function: str, *arguments: object) -> list[Any]:
    """Results of a function of on_workers.py, by worker."""
    session._sync_all()
    result = session.get_global_func(f"tests.gpu.{function}")(*arguments)
    return [result.debug_get_from_remote(worker) for worker in range(WORKERS)]


def _source(session: Session, shape: tuple[int, int], dtype: str, seed: int) -> DRef:
    """Random rows on worker 0, and nothing on the others."""
    remote = session.empty(shape, dtype, worker0_only=True)
    _on_workers(session, "fill", remote, seed)
    return remote


def _sources(session: Session, length: int, dtype: str, seed: int) -> DRef:
    """A different random row on each worker."""
    remote = session.empty((1, length), dtype)
    _on_workers(session, "fill_own", remote, seed)
    return remote


def _poison(session: Session, shape: tuple[int, ...], dtype: str) -> DRef:
    remote = session.empty(shape, dtype)
    _on_workers(session, "poison", remote)
    return remote


def _elements(size: int, dtype: str) -> int:
    return size // numpy_dtype(dtype).itemsize


def _put(session: Session, arrays: list[np.ndarray]) -> DRef:
    """arrays[i] on the GPU of worker i."""
    remote = session.empty(arrays[0].shape, str(arrays[0].dtype))
    for worker, array in enumerate(arrays):
        remote.debug_copy_from(worker, array)
    return remote


def _get(session: Session, remote: DRef) -> list[np.ndarray]:
    session._sync_all()
    return [remote.debug_get_from_remote(worker).numpy() for worker in range(WORKERS)]


def test_multicast_is_off() -> None:
    """See BUILD.bazel."""
    assert os.environ["NCCL_NVLS_ENABLE"] == "0"


def test_each_worker_has_a_gpu_of_its_own(session: Session) -> None:
    identity = session.get_global_func("runtime.disco.worker_id")()
    assert [list(identity.debug_get_from_remote(worker)) for worker in range(WORKERS)] == [
        [worker] for worker in range(WORKERS)
    ]
    devices = session.get_global_func("runtime.disco.device")()
    assert [devices.debug_get_from_remote(worker).index for worker in range(WORKERS)] == list(range(WORKERS))
    assert session.num_workers == WORKERS


# The largest size takes seconds, so only its sum is tested.
@every_type
@pytest.mark.parametrize(
    ("operation", "size"),
    [
        pytest.param(operation, size, id=f"{operation}-{name}")
        for operation in ("sum", "max", "avg")
        for name, size in SIZES.items()
        if size <= 1 << 25 or operation == "sum"
    ],
)
def test_allreduce(session: Session, within: Within, operation: str, size: int, dtype: str) -> None:
    length = _elements(size, dtype)
    source, destination = _sources(session, length, dtype, 1), _poison(session, (1, length), dtype)
    session.allreduce(source, destination, op=operation)
    for error in _on_workers(session, "error_of_reduction", destination, operation, 1, WORKERS):
        # One rounding per number added to the first; the mean adds another.
        within(error, 0 if operation == "max" else WORKERS * ROUNDING[dtype])


@every_type
@every_size
def test_allgather(session: Session, size: int, dtype: str) -> None:
    length = -(-_elements(size, dtype) // WORKERS)
    source, destination = _sources(session, length, dtype, 2), _poison(session, (WORKERS, length), dtype)
    session.allgather(source, destination)
    assert _on_workers(session, "wrong", destination, 2) == [0] * WORKERS


@every_type
@every_size
def test_broadcast(session: Session, size: int, dtype: str) -> None:
    shape = (1, _elements(size, dtype))
    source, destination = _source(session, shape, dtype, 3), _poison(session, shape, dtype)
    session.broadcast_from_worker0(source, destination)
    assert _on_workers(session, "wrong", destination, 3) == [0] * WORKERS


@every_type
@every_size
def test_scatter(session: Session, size: int, dtype: str) -> None:
    length = -(-_elements(size, dtype) // WORKERS)
    source, destination = _source(session, (WORKERS, length), dtype, 4), _poison(session, (1, length), dtype)
    session.scatter_from_worker0(source, destination)
    assert _on_workers(session, "wrong_own", destination, 4) == [0] * WORKERS


@every_type
def test_gather(session: Session, dtype: str) -> None:
    arrays = [random_array(worker, (12345,), dtype) for worker in range(WORKERS)]
    source, destination = _put(session, arrays), _poison(session, (WORKERS, 12345), dtype)
    session.gather_to_worker0(source, destination)
    assert _get(session, destination)[0].tobytes() == np.stack(arrays).tobytes()


@every_type
def test_what_the_controller_has_reaches_the_workers(session: Session, dtype: str) -> None:
    array = random_array(8, (WORKERS, 54321), dtype)
    for got in _get(session, session.broadcast(array)):
        assert got.tobytes() == array.tobytes()
    for worker, got in enumerate(_get(session, session.scatter(array))):
        assert got.tobytes() == array[worker].tobytes()


def test_many_operations_in_a_row_need_no_wait(session: Session, compare: Compare) -> None:
    """Each operation multiplies the previous result by the number of GPUs; the session keeps their order."""
    count = 12 if WORKERS == 1 else 4
    first = _put(session, [np.ones(1000, "float32")] * WORKERS)
    second = _poison(session, (1000,), "float32")
    for _ in range(count):
        session.allreduce(first, second)
        session.allreduce(second, first)
    for got in _get(session, first):
        compare(got, np.full(1000, float(WORKERS) ** (2 * count)), ROUNDING["float32"])


def test_workers_share_a_block_of_two_layers(
    session: Session, machine: Machine, device: tvm.runtime.Device, compare: Compare
) -> None:
    """Each GPU has columns of the first matrix and rows of the second; the result is that of one GPU up to rounding."""
    share, rows = 4096 // WORKERS, 100
    inner = share * WORKERS
    x = random_array(1, (rows, BLOCK_WIDTH), "float16")
    w1 = (random_array(2, (BLOCK_WIDTH, inner), "float32") / BLOCK_WIDTH**0.5).astype("float16")
    w2 = (random_array(3, (inner, BLOCK_WIDTH), "float32") / inner**0.5).astype("float16")
    columns = np.stack(np.split(w1, WORKERS, axis=1))
    part = session.load_vm_module(str(MODULES / "tensor_parallel.so"))["part"]
    results = _get(
        session,
        part(session.broadcast(x), session.scatter(columns), session.scatter(w2.reshape(WORKERS, share, BLOCK_WIDTH))),
    )

    whole = machine("tensor_parallel")["whole"](*(tvm.runtime.tensor(each, device) for each in (x, w1, w2))).numpy()
    expected = np.maximum(x.astype("float64") @ w1.astype("float64"), 0) @ w2.astype("float64")
    # Roundings to float16: between the layers, of each worker's product, and of each number added to the first.
    tolerance, alone = (WORKERS + 1) * ROUNDING["float16"], 2 * ROUNDING["float16"]
    assert relative_error(whole, expected) <= alone
    for got in results:
        compare(got, expected, tolerance)
        compare(got, whole, tolerance + alone)


# A controller with worker processes, one of which is killed while the controller waits. It reports the outcome and must
# not hang.
DYING = """
import os
import time
import tvm  # Also loads tvm_cuda, which registers sessions.
from tvm.runtime.disco import ProcessSession
session = ProcessSession({workers})
identity = session.get_global_func("runtime.disco.worker_id")
assert list(identity().debug_get_from_remote(1)) == [1]
{prepare}
with open(f"/proc/self/task/{{os.getpid()}}/children") as file:
    print(file.read(), flush=True)
input()
began = time.monotonic()
try:
    {call}
    print("no error", flush=True)
except Exception as error:
    print(f"error after {{time.monotonic() - began:.1f}} s:", str(error).splitlines()[-1], flush=True)
"""
ASK = "identity().debug_get_from_remote(1)"
JOIN = f"""
session.init_ccl("nccl", *range({WORKERS}))
source, destination = (session.empty((1 << 27,), "float16") for _ in range(2))
session.allreduce(source, destination)
session._sync_all()
"""
# A second of sums, which never finish without the dead worker.
SUMS = "[session.allreduce(source, destination) for _ in range(1000)]"
ENDS = {"without GPUs": ("", ASK)}
if WORKERS > 1:
    ENDS |= {
        "asked": (JOIN, ASK),
        "then all-reduce": (JOIN, "session.allreduce(source, destination)"),
        "during all-reduce": (JOIN + SUMS, "session._sync_worker(1)"),
    }


def _alive(process: int) -> bool:
    """Whether any of its threads runs: the first may end before the others, which hold the pipe."""
    try:
        return any(
            stat.read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
            for stat in Path(f"/proc/{process}/task").glob("*/stat")
        )
    except (FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{process}").exists()


@pytest.mark.parametrize(("prepare", "call"), ENDS.values(), ids=ENDS)
def test_a_dying_worker_is_an_error_at_once_and_leaves_no_process(prepare: str, call: str) -> None:
    """The next call must fail. The workers need no GPU for this; with several GPUs they use them."""
    controller = start_python(DYING.format(workers=max(2, WORKERS), prepare=prepare, call=call))
    try:
        assert controller.stdout is not None
        workers = [int(process) for process in controller.stdout.readline().split()]
        assert workers and all(map(_alive, workers)), controller.communicate(timeout=60)[1]
        os.kill(workers[0], signal.SIGKILL)
        while _alive(workers[0]):
            time.sleep(0.01)
        # TVM 0.26 then aborts the controller when it notifies the dead worker (README.md), and tvm_cuda ends the other
        # workers.
        output, errors = controller.communicate("\n", timeout=30)
        # Whether the write to the worker or the read fails first is random.
        found = re.match(r"error after (\S+) s: ", output)
        assert found and float(found[1]) < 10, (output, errors)
        deadline = time.monotonic() + 10
        while any(map(_alive, workers)):
            assert time.monotonic() < deadline, f"still there: {list(filter(_alive, workers))}"
            time.sleep(0.05)
    finally:
        controller.kill()
