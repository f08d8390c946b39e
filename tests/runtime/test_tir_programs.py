"""TIR compiled for LLVM gives NumPy's results with every data type and number of threads."""

# TVMScript's annotations are shapes of tensors, not types.
# mypy: disable-error-code="valid-type"

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tvm.script import tirx as T

import tvm
from tvm import te

FLOATS = ["float16", "float32", "float64"]
INTEGERS = ["int8", "uint8", "int16", "int32", "int64"]
RANDOM = np.random.default_rng(7)


def sample(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    if dtype == "bool":
        return RANDOM.integers(0, 2, shape).astype(bool)
    if dtype in FLOATS:
        return RANDOM.uniform(-2, 2, shape).astype(dtype)
    return RANDOM.integers(0, 11, shape).astype(dtype)


def build(*tensors: te.Tensor) -> tvm.runtime.Executable:
    return tvm.compile(te.create_prim_func(tensors).with_attr("global_symbol", "main"), target="llvm")


def run(executable: tvm.runtime.Executable, inputs: list[np.ndarray], shape: tuple[int, ...], dtype: str) -> np.ndarray:
    output = tvm.runtime.empty(shape, dtype)
    executable(*map(tvm.runtime.tensor, inputs), output)
    return output.numpy()


@pytest.mark.parametrize("dtype", FLOATS + INTEGERS)
def test_elementwise_with_broadcast(dtype: str) -> None:
    a, b = te.placeholder((5, 1, 7), dtype, name="a"), te.placeholder((3, 1), dtype, name="b")
    executable = build(a, b, te.compute((5, 3, 7), lambda i, j, k: a[i, 0, k] * b[j, 0] + a[i, 0, k]))
    x, y = sample((5, 1, 7), dtype), sample((3, 1), dtype)
    np.testing.assert_allclose(run(executable, [x, y], (5, 3, 7), dtype), x * y + x, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("dtype", FLOATS + ["int32", "int64"])
def test_matmul_of_any_shape(dtype: str) -> None:
    """One compiled function, shapes known only at run time."""
    n, m, k = (te.var(name, "int64") for name in "nmk")
    a, b = te.placeholder((n, k), dtype, name="a"), te.placeholder((k, m), dtype, name="b")
    axis = te.reduce_axis((0, k), name="axis")
    executable = build(a, b, te.compute((n, m), lambda i, j: te.sum(a[i, axis] * b[axis, j], axis=axis)))
    for shape in ((1, 1, 1), (2, 3, 4), (17, 5, 33), (64, 64, 64)):
        x, y = sample((shape[0], shape[2]), dtype), sample((shape[2], shape[1]), dtype)
        expected = x.astype("float64") @ y.astype("float64")
        tolerance = {"float16": 0.05, "float32": 1e-4}.get(dtype, 1e-9)
        got = run(executable, [x, y], (shape[0], shape[1]), dtype)
        np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64"])
@pytest.mark.parametrize(("reducer", "expected"), [(te.sum, np.sum), (te.max, np.max), (te.min, np.min)])
def test_reduction(dtype: str, reducer: Callable[..., te.Tensor], expected: Callable[..., np.ndarray]) -> None:
    a = te.placeholder((6, 50), dtype, name="a")
    axis = te.reduce_axis((0, 50), name="axis")
    executable = build(a, te.compute((6,), lambda i: reducer(a[i, axis], axis=axis)))
    x = sample((6, 50), dtype)
    np.testing.assert_allclose(run(executable, [x], (6,), dtype), expected(x, axis=1), rtol=1e-5)


def test_comparison_and_select() -> None:
    a, b = te.placeholder((40,), "float32", name="a"), te.placeholder((40,), "float32", name="b")
    executable = build(a, b, te.compute((40,), lambda i: a[i] < b[i]))
    x, y = sample((40,), "float32"), sample((40,), "float32")
    np.testing.assert_array_equal(run(executable, [x, y], (40,), "bool"), x < y)

    condition = te.placeholder((40,), "bool", name="condition")
    executable = build(condition, a, b, te.compute((40,), lambda i: te.if_then_else(condition[i], a[i], b[i])))
    chosen = sample((40,), "bool")
    np.testing.assert_array_equal(run(executable, [chosen, x, y], (40,), "float32"), np.where(chosen, x, y))


@pytest.mark.parametrize("source", ["float16", "float32", "int8", "int64", "bool"])
@pytest.mark.parametrize("target", ["float16", "float64", "int32"])
def test_cast(source: str, target: str) -> None:
    a = te.placeholder((33,), source, name="a")
    executable = build(a, te.compute((33,), lambda i: a[i].astype(target)))
    x = sample((33,), source)
    np.testing.assert_array_equal(run(executable, [x], (33,), target), x.astype(target))


def test_float16_conversion_is_exact_for_every_value() -> None:
    """Compiled code converts all 65536 values to float32 and back."""
    bits = np.arange(65536, dtype="uint16").view("float16")
    finite = bits[~np.isnan(bits)]
    a = te.placeholder((len(finite),), "float16", name="a")
    wide = run(build(a, te.compute(a.shape, lambda i: a[i].astype("float32"))), [finite], finite.shape, "float32")
    np.testing.assert_array_equal(wide, finite.astype("float32"))
    b = te.placeholder((len(finite),), "float32", name="b")
    narrow = run(build(b, te.compute(b.shape, lambda i: b[i].astype("float16"))), [wide], finite.shape, "float16")
    np.testing.assert_array_equal(narrow.view("uint16"), finite.view("uint16"))


def test_half_precision_helpers_agree_with_numpy() -> None:
    """Code for processors without conversion instructions calls these functions of libtvm_runtime by name."""
    library = ctypes.CDLL(tvm.libinfo.find_libtvm_runtime())
    widen, narrow, narrow_double = (library[name] for name in ("__gnu_h2f_ieee", "__gnu_f2h_ieee", "__truncdfhf2"))
    widen.argtypes, widen.restype = [ctypes.c_uint16], ctypes.c_float
    narrow.argtypes, narrow.restype = [ctypes.c_float], ctypes.c_uint16
    narrow_double.argtypes, narrow_double.restype = [ctypes.c_double], ctypes.c_uint16
    halves = np.arange(65536, dtype="uint16").view("float16")
    halves = halves[~np.isnan(halves)]
    assert [widen(int(bits)) for bits in halves.view("uint16")] == halves.astype("float64").tolist()
    # Every value, every tie between two neighbors, and values that are too large or too small.
    exact = halves[np.isfinite(halves)].astype("float64")
    values = np.concatenate(
        [exact, (np.sort(exact)[:-1] + np.sort(exact)[1:]) / 2, [65519, 65520, 1e30, 1e-30, -1e-30]]
    )
    with np.errstate(over="ignore"):
        expected = values.astype("float32").astype("float16").view("uint16").tolist()
    assert [narrow(value) for value in values] == expected
    assert [narrow_double(value) for value in values] == expected


def parallel_program() -> tvm.runtime.Executable:
    @T.prim_func(s_tir=True)
    def main(x: T.Buffer((64, 1000), "float32"), y: T.Buffer((64,), "float32")) -> None:
        T.func_attr({"global_symbol": "main"})
        for i in T.parallel(64):
            with T.sblock("row"):
                row = T.axis.spatial(64, i)
                y[row] = T.float32(0)
                for j in T.serial(1000):
                    y[row] = y[row] + x[row, j] * x[row, j]

    return tvm.compile(main, target="llvm")


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    configure = tvm.get_global_func("runtime.config_threadpool")
    yield lambda threads: configure(0, threads)
    configure(0, 0)  # The default: as many as the machine has.


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_thread_pool_gives_the_same_bits_on_any_number_of_threads(
    threads: int, set_threads: Callable[[int], None]
) -> None:
    executable = parallel_program()
    x = sample((64, 1000), "float32")
    expected = np.zeros(64, "float32")
    for column in x.T:  # Adds in the same order as the program.
        expected += column * column
    set_threads(threads)
    results = [run(executable, [x], (64,), "float32") for _ in range(5)]
    np.testing.assert_allclose(results[0], expected, rtol=1e-6)
    assert len({result.tobytes() for result in results}) == 1


def test_thread_pool_has_the_requested_number_of_threads() -> None:
    """Counts in a fresh process. The calling thread works too, so two threads need one new thread."""
    program = (
        f"import sys; sys.path[:] = {[str(Path(__file__).parent), *sys.path]!r}\n"
        "import os, numpy, test_tir_programs as tests\n"
        "executable, x = tests.parallel_program(), numpy.ones((64, 1000), 'float32')\n"
        "before = len(os.listdir('/proc/self/task'))\n"
        "assert tests.run(executable, [x], (64,), 'float32').tolist() == [1000.0] * 64\n"
        "print(len(os.listdir('/proc/self/task')) - before)\n"
    )
    for threads in (1, 3):
        environment = {**os.environ, "TVM_NUM_THREADS": str(threads)}
        result = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
        assert (result.stdout.strip(), result.returncode) == (str(threads - 1), 0), result.stderr
