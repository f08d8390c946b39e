"""Relax modules compiled for LLVM give NumPy's results on the virtual machine, with static and symbolic shapes."""

# TVMScript's annotations are shapes of tensors, not types.
# mypy: disable-error-code="valid-type"

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tvm.relax.frontend import nn
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

import tvm
from tvm import relax

RANDOM = np.random.default_rng(11)
TOLERANCE = {"float16": 2e-2, "float32": 2e-5, "float64": 1e-10}


def machine(module: tvm.IRModule, **options: Any) -> relax.VirtualMachine:
    return relax.VirtualMachine(relax.build(module, target="llvm", **options), tvm.cpu())


def single(inputs: list[relax.Var], make: Callable[..., relax.Expr]) -> relax.VirtualMachine:
    """A virtual machine for one function `main` whose result is make(*inputs)."""
    builder = relax.BlockBuilder()
    with builder.function("main", inputs):
        with builder.dataflow():
            result = builder.emit_output(make(*inputs))
        builder.emit_func_output(result)
    return machine(builder.get())


def tensors(*arrays: np.ndarray) -> list[tvm.runtime.Tensor]:
    return [tvm.runtime.tensor(array) for array in arrays]


def softmax(x: np.ndarray) -> np.ndarray:
    exponential = np.exp(x - x.max(axis=-1, keepdims=True))
    return exponential / exponential.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_matmul_softmax_with_unknown_batch(dtype: str) -> None:
    n = T.Var("n", "int64")
    x, w = relax.Var("x", relax.TensorType((n, 24), dtype)), relax.Var("w", relax.TensorType((24, 10), dtype))
    vm = single([x, w], lambda x, w: relax.op.nn.softmax(relax.op.matmul(x, w)))
    weight = RANDOM.standard_normal((24, 10)).astype(dtype)
    for batch in (1, 2, 7, 64):
        data = RANDOM.standard_normal((batch, 24)).astype(dtype)
        expected = softmax(data.astype("float64") @ weight.astype("float64"))
        got = vm["main"](*tensors(data, weight)).numpy()
        assert got.dtype == dtype
        np.testing.assert_allclose(got, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        (relax.op.sum, np.sum),
        (relax.op.mean, np.mean),
        (relax.op.max, np.max),
        (relax.op.variance, np.var),
    ],
    ids=["sum", "mean", "max", "variance"],
)
@pytest.mark.parametrize("axis", [0, -1, (0, 2)])
def test_reduction_over_unknown_dimensions(
    operator: Callable[..., relax.Expr], expected: Callable[..., np.ndarray], axis: int | tuple[int, ...]
) -> None:
    n, m = T.Var("n", "int64"), T.Var("m", "int64")
    vm = single([relax.Var("x", relax.TensorType((n, 3, m), "float32"))], lambda x: operator(x, axis=axis))
    for shape in ((1, 3, 1), (4, 3, 9), (2, 3, 100)):
        data = RANDOM.standard_normal(shape).astype("float32")
        np.testing.assert_allclose(vm["main"](*tensors(data)).numpy(), expected(data, axis=axis), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "float32"])
def test_integer_arithmetic_gather_and_concatenation(dtype: str) -> None:
    n = T.Var("n", "int64")
    x = relax.Var("x", relax.TensorType((5, n), dtype))
    index = relax.Var("index", relax.TensorType((3,), "int64"))
    vm = single([x, index], lambda x, i: relax.op.concat([relax.op.take(x, i, axis=0), relax.op.add(x, x)], axis=0))
    for n_value in (1, 6):
        data = RANDOM.integers(-9, 9, (5, n_value)).astype(dtype)
        chosen = np.array([4, 0, 4])
        expected = np.concatenate([data[chosen], data + data])
        np.testing.assert_array_equal(vm["main"](*tensors(data, chosen)).numpy(), expected)


def test_comparison_gives_bool_and_where_selects() -> None:
    n = T.Var("n", "int64")
    x, y = (relax.Var(name, relax.TensorType((n,), "float32")) for name in "xy")
    vm = single([x, y], lambda x, y: relax.Tuple([relax.op.less(x, y), relax.op.where(relax.op.less(x, y), x, y)]))
    a, b = RANDOM.standard_normal((2, 33)).astype("float32")
    less, smaller = vm["main"](*tensors(a, b))
    assert less.numpy().dtype == bool
    np.testing.assert_array_equal(less.numpy(), a < b)
    np.testing.assert_array_equal(smaller.numpy(), np.minimum(a, b))


@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (1, 1), (2, 1)])
def test_convolution(stride: int, padding: int) -> None:
    x = relax.Var("x", relax.TensorType((2, 3, 9, 8), "float32"))
    w = relax.Var("w", relax.TensorType((4, 3, 3, 3), "float32"))
    vm = single([x, w], lambda x, w: relax.op.nn.conv2d(x, w, strides=stride, padding=padding))
    data = RANDOM.standard_normal((2, 3, 9, 8)).astype("float32")
    weight = RANDOM.standard_normal((4, 3, 3, 3)).astype("float32")
    padded = np.pad(data, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))[:, :, ::stride, ::stride]
    expected = np.einsum("nchwij,ocij->nohw", windows, weight)
    np.testing.assert_allclose(vm["main"](*tensors(data, weight)).numpy(), expected, rtol=1e-4, atol=1e-5)


@I.ir_module
class ControlFlow:
    @R.function
    def count_down(n: R.Tensor((), "int64"), total: R.Tensor((), "int64")) -> R.Tensor((), "int64"):
        finished: R.Tensor((), "bool") = R.equal(n, R.const(0, "int64"))
        if finished:
            result: R.Tensor((), "int64") = total
        else:
            total_1: R.Tensor((), "int64") = R.add(total, n)
            n_1: R.Tensor((), "int64") = R.subtract(n, R.const(1, "int64"))
            result: R.Tensor((), "int64") = ControlFlow.count_down(n_1, total_1)  # type: ignore[no-redef]
        return result

    @R.function
    def nested(x: R.Tensor(("n",), "float32")):  # type: ignore[no-untyped-def]  # TVM infers the result
        n = T.int64()
        return (x, (R.add(x, x), R.shape([n, n + 1])), R.const(3, "int32"))

    @R.function
    def adder(x: R.Tensor(("n",), "float32")) -> R.Tensor(("n",), "float32"):
        n = T.int64()

        @R.function
        def inner(y: R.Tensor((n,), "float32")) -> R.Tensor((n,), "float32"):
            return R.add(x, y)

        return inner(R.multiply(x, x))


@pytest.fixture(scope="module")
def control_flow() -> relax.VirtualMachine:
    return machine(relax.transform.LambdaLift()(ControlFlow))  # The closure of `adder` becomes a function.


@pytest.mark.parametrize("n", [0, 1, 50])
def test_branch_and_recursion(control_flow: relax.VirtualMachine, n: int) -> None:
    assert control_flow["count_down"](*tensors(np.array(n), np.array(100))).numpy() == 100 + n * (n + 1) // 2


def test_nested_tuple_output(control_flow: relax.VirtualMachine) -> None:
    x = np.arange(5, dtype="float32")
    first, (second, shape), third = control_flow["nested"](*tensors(x))
    np.testing.assert_array_equal(first.numpy(), x)
    np.testing.assert_array_equal(second.numpy(), 2 * x)
    assert (list(shape), third.numpy().item()) == ([5, 6], 3)


def test_closure_over_a_value(control_flow: relax.VirtualMachine) -> None:
    x = np.arange(5, dtype="float32")
    np.testing.assert_array_equal(control_flow["adder"](*tensors(x)).numpy(), x + x * x)


def test_saved_and_stateful_calls(control_flow: relax.VirtualMachine) -> None:
    x = np.arange(4, dtype="float32")
    control_flow.save_function("adder", "adder_of_x", *tensors(x))
    np.testing.assert_array_equal(control_flow["adder_of_x"]().numpy(), x + x * x)
    control_flow.set_input("nested", *tensors(x))
    control_flow.invoke_stateful("nested")
    np.testing.assert_array_equal(control_flow.get_outputs("nested")[1][0].numpy(), 2 * x)


def test_instrument_sees_every_kernel_call(control_flow: relax.VirtualMachine) -> None:
    calls: list[tuple[str, bool]] = []
    control_flow.set_instrument(lambda func, name, before, ret, *args: calls.append((name, before)))
    try:
        control_flow["adder"](*tensors(np.ones(3, "float32")))
    finally:
        control_flow.set_instrument(lambda *args: None)
    assert [call for call in calls if call[0] in ("multiply", "add")] == [
        ("multiply", True),
        ("multiply", False),
        ("add", True),
        ("add", False),
    ]


@pytest.mark.parametrize("mode", ["bytecode", "compiled"])
def test_two_layer_network(mode: str) -> None:
    """An nn.Module with parameters passed at run time, in both execution modes of the virtual machine."""

    class Network(nn.Module):
        def __init__(self) -> None:
            self.up = nn.Linear(8, 32)
            self.down = nn.Linear(32, 8, bias=False)
            self.norm = nn.RMSNorm(8, axes=-1, bias=False)

        def forward(self, x: nn.Tensor) -> nn.Tensor:
            return x + self.down(nn.op.silu(self.up(self.norm(x))))

    module, parameters = Network().export_tvm({"forward": {"x": nn.spec.Tensor([1, "tokens", 8], "float32")}})
    vm = machine(module, exec_mode=mode)
    values = {name: RANDOM.standard_normal(parameter.shape).astype("float32") for name, parameter in parameters}
    for count in (1, 5, 16):
        x = RANDOM.standard_normal((1, count, 8)).astype("float32")
        normal = x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * values["norm.weight"]
        hidden = normal @ values["up.weight"].T + values["up.bias"]
        expected = x + (hidden / (1 + np.exp(-hidden))) @ values["down.weight"].T
        got = vm["forward"](*tensors(x, *values.values())).numpy()
        np.testing.assert_allclose(got, expected, rtol=2e-4, atol=2e-4)


def test_many_python_threads_run_the_same_code() -> None:
    """Each thread has its virtual machine; they share the code and the thread pool."""
    from concurrent.futures import ThreadPoolExecutor

    n = T.Var("n", "int64")
    x, w = relax.Var("x", relax.TensorType((n, 32), "float32")), relax.Var("w", relax.TensorType((32, 32), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x, w]):
        builder.emit_func_output(builder.emit(relax.op.matmul(x, w)))
    executable = tvm.compile(builder.get(), target="llvm")
    weight = RANDOM.standard_normal((32, 32)).astype("float32")
    batches = [RANDOM.standard_normal((1 + i % 9, 32)).astype("float32") for i in range(32)]

    def run(batch: np.ndarray) -> np.ndarray:
        return relax.VirtualMachine(executable, tvm.cpu())["main"](*tensors(batch, weight)).numpy()

    with ThreadPoolExecutor(4) as pool:
        for batch, got in zip(batches, pool.map(run, batches)):
            np.testing.assert_allclose(got, batch @ weight, rtol=1e-4, atol=1e-4)
