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
from child import run_python, start_python
from comparison import ROUNDING, numpy_dtype, random_array, relative_error
from conftest import MODULES, Compare, Machine, Within, device_count
from modules import BLOCK_WIDTH, GRAPH_LAYERS, GRAPH_ROWS
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


PEERS = WORKERS in (2, 4, 8)
"""Whether small sums are not NCCL's (//src/cuda:peer_sums.h), on the machines with NVLink that these tests are for."""
LIMIT = (2 << 20) // WORKERS
"""Bytes."""


def _is_small(length: int) -> bool:
    """Whether the sum of so many 16-bit floats is not NCCL's."""
    return PEERS and length % 256 == 0 and 2 * length <= LIMIT


half = pytest.mark.parametrize("dtype", ["float16", "bfloat16"])


def test_small_sums_are_not_nccls(session: Session) -> None:
    limit = session.get_global_func("mlc_bazel.peer_sums_limit")()
    assert [limit.debug_get_from_remote(worker) for worker in range(WORKERS)] == [LIMIT if PEERS else 0] * WORKERS


@half
@pytest.mark.parametrize("length", [3, 255, 256, 2048, 2560, 4096, 8192, 257 * 256, LIMIT // 2, LIMIT // 2 + 256])
def test_a_small_sum_has_the_bits_of_one_in_float32(session: Session, within: Within, length: int, dtype: str) -> None:
    source, destination = _sources(session, length, dtype, 20), _poison(session, (1, length), dtype)
    session.allreduce(source, destination)
    within(max(_on_workers(session, "error_of_reduction", destination, "sum", 20, WORKERS)), WORKERS * ROUNDING[dtype])
    if _is_small(length):
        assert _on_workers(session, "wrong_sum", destination, 20, WORKERS) == [0] * WORKERS


@half
def test_a_sum_can_replace_what_it_adds(session: Session, within: Within, dtype: str) -> None:
    source = _sources(session, 4096, dtype, 21)
    session.allreduce(source, source)
    within(max(_on_workers(session, "error_of_reduction", source, "sum", 21, WORKERS)), WORKERS * ROUNDING[dtype])


def test_many_sums_of_all_sizes_and_types_by_workers_that_are_late(session: Session, within: Within) -> None:
    """Large and single-precision sums are NCCL's, in between."""
    pause = session.get_global_func("tests.gpu.pause")
    cases = []
    for number in range(300):
        dtype = ("float16", "bfloat16", "float32")[number % 3]
        length = 256 * (1, 8, 16, 100, 777, 2048, 5000)[number % 7]
        tensors = _sources(session, length, dtype, number), _poison(session, (1, length), dtype)
        cases.append((number, dtype, length, *tensors))
    for repeat in range(3):
        for number, _, _, source, destination in cases:
            if number % 5 == repeat:
                pause(number)
            session.allreduce(source, destination)
    for number, dtype, length, _, destination in cases:
        errors = _on_workers(session, "error_of_reduction", destination, "sum", number, WORKERS)
        within(max(errors), WORKERS * ROUNDING[dtype])
        if dtype != "float32" and _is_small(length):
            assert _on_workers(session, "wrong_sum", destination, number, WORKERS) == [0] * WORKERS, number


def test_sums_in_a_cuda_graph_are_new_in_each_run(session: Session, compare: Compare) -> None:
    """Each worker's input changes from run to run, and the graph that was captured in the first is launched again."""
    path = str(MODULES / "captured_sums.so")
    assert "vm.builtin.cuda_graph.run_or_capture" in tvm.runtime.load_module(path)["as_text"]()
    forward = session.load_vm_module(path)["forward"]
    for run in range(50):
        inputs = [random_array(1000 * run + worker, (GRAPH_ROWS, BLOCK_WIDTH), "float16") for worker in range(WORKERS)]
        expected = np.sum(inputs, axis=0, dtype="float64") * WORKERS ** (GRAPH_LAYERS - 1) / 2**GRAPH_LAYERS
        for got in _get(session, forward(_put(session, inputs))):
            # Only the first sum rounds: the others are of equal numbers, of which there is a power of two.
            compare(got, expected, WORKERS * ROUNDING["float16"])


# Prints what a session's small sums are limited to.
LIMITS = f"""
import json
import tvm  # Also loads tvm_cuda, which registers sessions.
from tvm.runtime.disco import ThreadedSession
session = ThreadedSession({WORKERS})
session.init_ccl("nccl", *range({WORKERS}))
limit = session.get_global_func("mlc_bazel.peer_sums_limit")()
print(json.dumps([limit.debug_get_from_remote(worker) for worker in range({WORKERS})]))
session.shutdown()
"""


def test_a_setting_leaves_all_sums_to_nccl() -> None:
    assert run_python(LIMITS, MLC_PEER_SUMS="0") == [0] * WORKERS
    assert run_python(LIMITS) == [LIMIT if PEERS else 0] * WORKERS


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
SMALL = """
small = session.empty((4096,), "float16")
session.allreduce(small, small)
session._sync_all()
"""
ENDS = {"without GPUs": ("", ASK)}
if WORKERS > 1:
    ENDS |= {
        "asked": (JOIN, ASK),
        "then all-reduce": (JOIN, "session.allreduce(source, destination)"),
        "then small all-reduce": (JOIN + SMALL, "session.allreduce(small, small)"),
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
