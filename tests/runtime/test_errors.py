"""Errors cross between C++ and Python in both directions with type, message and traceback; the process goes on."""

# TVMScript's annotations are shapes of tensors, not types.
# mypy: disable-error-code="valid-type"

import gc
import traceback
import weakref

import numpy as np
import pytest
import tvm_ffi
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

import tvm
from tvm import relax


def call(name: str, *arguments: object) -> object:
    return tvm.get_global_func(name)(*arguments)


@pytest.mark.parametrize(
    ("error", "message", "name", "arguments"),
    [
        (
            ValueError,
            "Cannot find parameter in cache: absent",
            "vm.builtin.param_array_from_cache_by_name",
            [["absent"]],
        ),
        (TypeError, "Expected `Array<str>` but got `int`", "vm.builtin.param_array_from_cache_by_name", [3]),
        (TypeError, "Expected 1 but got 0 arguments", "vm.builtin.kv_state_clear", []),
        (tvm.error.InternalError, "Cannot open .*tensor-cache.json", "vm.builtin.tensor_cache.load", ["absent", 1, 0]),
        (RuntimeError, "Cannot find absent_0 in cache", "vm.builtin.param_array_from_cache", ["absent", 1]),
    ],
)
def test_a_cpp_error_has_its_python_type_and_message(
    error: type[Exception], message: str, name: str, arguments: list[object]
) -> None:
    with pytest.raises(error, match=message) as caught:
        call(name, *arguments)
    assert type(caught.value).__module__ in ("builtins", "tvm.error")


def test_internal_error_is_a_runtime_error() -> None:
    assert issubclass(tvm.error.InternalError, RuntimeError)


def test_the_traceback_names_the_cpp_function_and_the_python_line() -> None:
    with pytest.raises(tvm.error.InternalError) as caught:
        call("vm.builtin.param_array_from_cache", "absent", 1)
    text = "".join(traceback.format_exception(caught.value))
    assert "test_errors.py" in text
    assert "tensor_cache_support.cc" in text


def test_unknown_function_is_an_error_or_none() -> None:
    with pytest.raises(ValueError, match="Cannot find global function tests.no_such_function"):
        tvm.get_global_func("tests.no_such_function")
    assert tvm.get_global_func("tests.no_such_function", allow_missing=True) is None


@pytest.mark.parametrize("error", [ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError])
def test_a_python_error_returns_through_cpp_unchanged(error: type[Exception]) -> None:
    def fail() -> None:
        raise error("from the callback")

    with pytest.raises(error, match="from the callback") as caught:
        tvm_ffi.convert(fail)()
    assert type(caught.value) is error
    assert "in fail" in "".join(traceback.format_exception(caught.value))


def test_an_unregistered_python_error_becomes_a_runtime_error() -> None:
    class Unknown(Exception):
        pass

    def fail() -> None:
        raise Unknown("still says why")

    with pytest.raises(RuntimeError, match="still says why"):
        tvm_ffi.convert(fail)()


def test_a_python_error_crosses_the_virtual_machine() -> None:
    @I.ir_module
    class Module:
        @R.function(pure=False)
        def main(x: R.Tensor((2,), "float32")):  # type: ignore[no-untyped-def]  # TVM infers the result
            # Add a kernel, because TVM builds a module without machine code with the system's compiler.
            y = R.add(x, x)
            return R.call_packed("tests.errors.refuse", y, ty_args=(R.Any,))

    @tvm.register_global_func("tests.errors.refuse", override=True)
    def refuse(x: tvm.runtime.Tensor) -> None:
        raise ValueError(f"refused {x.numpy().tolist()}")

    vm = relax.VirtualMachine(tvm.compile(Module, target="llvm"), tvm.cpu())
    for _ in range(3):
        with pytest.raises(ValueError, match=r"refused \[2.0, 2.0\]"):
            vm["main"](tvm.runtime.tensor(np.ones(2, "float32")))


@pytest.fixture(scope="module")
def kernel() -> tvm.runtime.Executable:
    @T.prim_func(s_tir=True)
    def main(x: T.Buffer((4, 3), "float32"), y: T.Buffer((4, 3), "float32")) -> None:
        T.func_attr({"global_symbol": "main"})
        for i, j in T.grid(4, 3):
            with T.sblock("copy"):
                vi, vj = T.axis.remap("SS", [i, j])
                y[vi, vj] = x[vi, vj]

    return tvm.compile(main, target="llvm")


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((5, 3), "float32", "shape"),
        ((4,), "float32", "ndim"),
        ((4, 3), "float64", "dtype"),
        ((4, 3), "int32", "dtype"),
    ],
    ids=["shape", "rank", "float64", "int32"],
)
def test_a_kernel_refuses_a_wrong_argument(
    kernel: tvm.runtime.Executable, shape: tuple[int, ...], dtype: str, message: str
) -> None:
    good = tvm.runtime.tensor(np.arange(12, dtype="float32").reshape(4, 3))
    with pytest.raises((TypeError, ValueError), match=message):
        kernel(tvm.runtime.empty(shape, dtype), good)
    output = tvm.runtime.empty((4, 3), "float32")
    kernel(good, output)
    np.testing.assert_array_equal(output.numpy(), good.numpy())


def test_a_kernel_refuses_a_missing_argument(kernel: tvm.runtime.Executable) -> None:
    with pytest.raises(TypeError, match="argument"):
        kernel(tvm.runtime.empty((4, 3), "float32"))


def test_the_virtual_machine_refuses_a_wrong_shape_and_says_which() -> None:
    @I.ir_module
    class Module:
        @R.function
        def main(x: R.Tensor(("n", 4), "float32"), y: R.Tensor(("n",), "float32")):  # type: ignore[no-untyped-def]
            return R.add(R.sum(x, axis=[1]), y)

    vm = relax.VirtualMachine(tvm.compile(Module, target="llvm"), tvm.cpu())
    x = tvm.runtime.tensor(np.ones((2, 4), "float32"))
    for wrong in (np.ones(3, "float32"), np.ones((2, 1), "float32"), np.ones(2, "float64")):
        with pytest.raises((ValueError, TypeError, RuntimeError), match="main.*param"):
            vm["main"](x, tvm.runtime.tensor(wrong))
    assert vm["main"](x, tvm.runtime.tensor(np.ones(2, "float32"))).numpy().tolist() == [5, 5]


def test_the_virtual_machine_refuses_a_wrong_rank_where_shapes_are_unknown() -> None:
    @I.ir_module
    class Module:
        @R.function
        def main(x: R.Tensor(dtype="float32", ndim=2), y: R.Tensor((2,), "float32")):  # type: ignore[no-untyped-def]
            return R.add(y, y)

    vm = relax.VirtualMachine(tvm.compile(Module, target="llvm"), tvm.cpu())
    with pytest.raises(ValueError, match="expect Tensor with ndim 2 but get 1"):
        vm["main"](tvm.runtime.tensor(np.ones(2, "float32")), tvm.runtime.tensor(np.ones(2, "float32")))


def test_errors_keep_nothing_alive() -> None:
    """A failed call releases its argument and its callback."""

    class Argument:
        pass

    argument = Argument()
    alive = weakref.ref(argument)

    def fail(value: object) -> None:
        raise ValueError(f"refused {value}")

    callback = tvm_ffi.convert(fail)
    for _ in range(100):
        with pytest.raises(ValueError, match="refused"):
            callback(argument)
    del argument, callback, fail
    gc.collect()
    assert alive() is None
