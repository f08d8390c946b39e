"""cuBLAS and cuBLASLt, called through the runtime, multiply matrices as NumPy does in float64."""

import itertools
import json

import numpy as np
import pytest
from comparison import ROUNDING, numpy_dtype, random_array, softmax
from conftest import Compare, Machine, compute_capability, poisoned, run_poisoned
from modules import COLUMNS, INNER

import tvm

# Input type, output type → bound of the relative error.
#   float16 to float16: cuBLAS's Hgemm also sums in float16, whose rounding errors grow with the root of the number of
# summands.
#   To float32: products of float16 or bfloat16 are exact there; the error comes from the sum, which tensor cores
# truncate instead of rounding.
_TYPES = {
    ("float64", "float64"): 64 * ROUNDING["float64"],
    ("float32", "float32"): 64 * ROUNDING["float32"],
    ("float16", "float16"): 64 * ROUNDING["float16"],
    ("float16", "float32"): 512 * ROUNDING["float32"],
    ("bfloat16", "float32"): 512 * ROUNDING["float32"],
}


def _product(a: np.ndarray, b: np.ndarray, transpose_a: bool, transpose_b: bool) -> np.ndarray:
    """op(a) @ op(b) in float64, over the last two axes."""
    a, b = a.astype("float64"), b.astype("float64")
    return (np.swapaxes(a, -1, -2) if transpose_a else a) @ (np.swapaxes(b, -1, -2) if transpose_b else b)


def _shape(rows: int, columns: int, transposed: bool) -> tuple[int, int]:
    return (columns, rows) if transposed else (rows, columns)


@pytest.mark.parametrize(("input_type", "output_type"), _TYPES, ids=map("-".join, _TYPES))
@pytest.mark.parametrize(("transpose_a", "transpose_b"), itertools.product([False, True], repeat=2))
@pytest.mark.parametrize(("m", "n", "k"), [(1, 1, 1), (17, 31, 5), (1, 512, 384), (255, 257, 513), (1024, 1024, 1024)])
def test_matmul(
    device: tvm.runtime.Device,
    compare: Compare,
    m: int,
    n: int,
    k: int,
    transpose_a: bool,
    transpose_b: bool,
    input_type: str,
    output_type: str,
) -> None:
    a, b = (
        random_array(1, _shape(m, k, transpose_a), input_type),
        random_array(2, _shape(k, n, transpose_b), input_type),
    )
    c = poisoned((m, n), output_type, device)
    matmul = tvm.get_global_func("tvm.contrib.cublas.matmul")
    matmul(tvm.runtime.tensor(a, device), tvm.runtime.tensor(b, device), c, transpose_a, transpose_b)
    compare(c.numpy(), _product(a, b, transpose_a, transpose_b), _TYPES[input_type, output_type])


def test_matmul_of_integers_is_exact(device: tvm.runtime.Device) -> None:
    """int8 to int32; cuBLAS requires sides that are multiples of four."""
    random = np.random.default_rng(3)
    a, b = random.integers(-128, 128, (64, 260), "int8"), random.integers(-128, 128, (260, 132), "int8")
    c = poisoned((64, 132), "int32", device)
    tvm.get_global_func("tvm.contrib.cublas.matmul")(
        tvm.runtime.tensor(a, device), tvm.runtime.tensor(b, device), c, False, False
    )
    np.testing.assert_array_equal(c.numpy(), a.astype("int32") @ b.astype("int32"))


@pytest.mark.parametrize(("input_type", "output_type"), _TYPES, ids=map("-".join, _TYPES))
@pytest.mark.parametrize("batches", [(1, 1), (5, 5), (5, 1), (1, 5)], ids=str)
def test_batch_matmul(
    device: tvm.runtime.Device, compare: Compare, batches: tuple[int, int], input_type: str, output_type: str
) -> None:
    """A batch of one is broadcast to the other's."""
    a, b = random_array(4, (batches[0], 33, 65), input_type), random_array(5, (batches[1], 65, 17), input_type)
    c = poisoned((max(batches), 33, 17), output_type, device)
    tvm.get_global_func("tvm.contrib.cublas.batch_matmul")(
        tvm.runtime.tensor(a, device), tvm.runtime.tensor(b, device), c, False, False
    )
    compare(c.numpy(), _product(a, b, False, False), _TYPES[input_type, output_type])


def test_wrong_types_are_refused(device: tvm.runtime.Device) -> None:
    a = tvm.runtime.tensor(np.ones((4, 4), "float32"), device)
    half = tvm.runtime.tensor(np.ones((4, 4), "float16"), device)
    matmul = tvm.get_global_func("tvm.contrib.cublas.matmul")
    with pytest.raises(Exception, match="Check failed"):
        matmul(a, half, a, False, False)
    c = poisoned((4, 4), "float32", device)
    matmul(a, a, c, False, False)
    np.testing.assert_array_equal(c.numpy(), np.full((4, 4), 4, "float32"))


def _cublaslt(name: str, inputs: list[tvm.runtime.Tensor], output: tvm.runtime.Tensor, **attributes: object) -> None:
    """Runs one operation of TVM's cuBLASLt runtime from its JSON graph, which a compiler with that backend would write.

    Args:
        name: name of the operation, which tells the runtime what to do: transposed (the second matrix), bias, relu,
          gelu, multiply (by scales).
        inputs: two matrices, then a bias or two scales.
        output: tensor for the result.
        **attributes: further attributes of the operation.
    """

    def attributes_of(tensor: tvm.runtime.Tensor) -> dict[str, object]:
        return {"shape": [list(map(int, tensor.shape))], "dtype": [str(tensor.dtype)]}

    nodes = [
        {"op": "input", "name": f"input{index}", "attrs": attributes_of(tensor)} for index, tensor in enumerate(inputs)
    ]
    operation = {
        "op": "kernel",
        "name": name,
        "inputs": [[index, 0, 0] for index in range(len(inputs))],
        "attrs": attributes_of(output) | {"num_inputs": len(inputs), "num_outputs": 1} | attributes,
    }
    graph = {
        "nodes": [*nodes, operation],
        "arg_nodes": list(range(len(inputs))),
        "heads": [[len(inputs), 0, 0]],
        "node_row_ptr": list(range(len(inputs) + 2)),
    }
    module = tvm.get_global_func("runtime.CublasJSONRuntimeCreate")("main", json.dumps(graph), [])
    module["__init_main"]([])
    module["main"](*inputs, output)


# The bound is the output's rounding, or the sum's if the output is as precise.
@pytest.mark.parametrize(
    ("input_type", "output_type", "tolerance"),
    [
        ("float32", "float32", 64 * ROUNDING["float32"]),
        ("float16", "float16", ROUNDING["float16"]),
        ("bfloat16", "bfloat16", ROUNDING["bfloat16"]),
        ("bfloat16", "float32", 512 * ROUNDING["float32"]),
    ],
    ids=["float32", "float16", "bfloat16", "bfloat16-float32"],
)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("m", "n", "k"), [(1, 64, 128), (96, 160, 256), (1000, 1016, 1032)])
def test_cublaslt_matmul(
    device: tvm.runtime.Device,
    compare: Compare,
    m: int,
    n: int,
    k: int,
    transposed: bool,
    input_type: str,
    output_type: str,
    tolerance: float,
) -> None:
    a, b = random_array(6, (m, k), input_type), random_array(7, _shape(k, n, transposed), input_type)
    c = poisoned((m, n), output_type, device)
    _cublaslt("cublas.matmul" + "_transposed" * transposed, [tvm.runtime.tensor(array, device) for array in (a, b)], c)
    compare(c.numpy(), _product(a, b, False, transposed), tolerance)


def test_cublaslt_flattens_a_batch_of_first_matrices(device: tvm.runtime.Device, compare: Compare) -> None:
    a, b = random_array(8, (3, 40, 64), "float16"), random_array(9, (64, 72), "float16")
    c = poisoned((3, 40, 72), "float16", device)
    _cublaslt("cublas.matmul", [tvm.runtime.tensor(array, device) for array in (a, b)], c)
    compare(c.numpy(), _product(a, b, False, False), ROUNDING["float16"])


def test_cublaslt_adds_bias_and_cuts_negatives_off(device: tvm.runtime.Device, compare: Compare) -> None:
    a, b, bias = (
        random_array(10, (64, 128), "float16"),
        random_array(11, (128, 96), "float16"),
        random_array(12, (96,), "float16"),
    )
    c = poisoned((64, 96), "float16", device)
    _cublaslt("cublas.matmul_bias_relu", [tvm.runtime.tensor(array, device) for array in (a, b, bias)], c)
    compare(c.numpy(), np.maximum(_product(a, b, False, False) + bias.astype("float64"), 0), 2 * ROUNDING["float16"])


# Tensor cores multiply float8 from compute capability 8.9 on. On other GPUs the test does not exist: a skipped test
# would fail.
if compute_capability() >= (8, 9):

    @pytest.mark.parametrize("output_type", ["float16", "bfloat16", "float32"])
    @pytest.mark.parametrize(("m", "n", "k"), [(16, 64, 128), (512, 768, 1024)])
    def test_cublaslt_matmul_of_float8(
        device: tvm.runtime.Device, compare: Compare, m: int, n: int, k: int, output_type: str
    ) -> None:
        """e4m3 with a scale per matrix; the second is transposed, the only layout for float8 on Hopper."""
        a, b = random_array(13, (m, k), "float8_e4m3fn"), random_array(14, (n, k), "float8_e4m3fn")
        assert a.dtype == numpy_dtype("float8_e4m3fn")
        scales = [np.array([scale], "float32") for scale in (0.5, 3.0)]
        c = poisoned((m, n), output_type, device)
        _cublaslt(
            "cublas.matmul_transposed_multiply", [tvm.runtime.tensor(array, device) for array in (a, b, *scales)], c
        )
        # Hopper's float8 tensor cores keep about 14 bits of a partial sum before adding it to the float32 sum, and lose
        # some in each addition.
        compare(c.numpy(), 1.5 * _product(a, b, False, True), 2.0**-9 + ROUNDING[output_type])


@pytest.mark.parametrize("rows", [1, 77])
def test_the_virtual_machine_calls_cublas_and_cudnn(
    device: tvm.runtime.Device, machine: Machine, compare: Compare, rows: int
) -> None:
    x, w = random_array(15, (rows, INNER), "float32"), random_array(16, (INNER, COLUMNS), "float32") / np.float32(16)
    got = run_poisoned(
        machine("library_calls"), "product_then_softmax", tvm.runtime.tensor(x, device), tvm.runtime.tensor(w, device)
    )
    compare(got, softmax(_product(x, w, False, False)), 256 * ROUNDING["float32"])
