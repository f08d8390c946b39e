"""Products of a prompt with weights of four bits become calls of cuBLAS; those of single tokens keep their weights in
four bits.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import tvm
from models.private import cublas_graphs, gpu_kernels, quantized_products
from tvm import relax, te, tirx

cublas_graphs.install(Path(os.environ["CUBLAS_MODULES"]))


def dequantize(words: te.Tensor, scales: te.Tensor) -> te.Tensor:
    """Four bits each, in groups of 32 that share a scale: q4f16_1."""

    def value(row: tirx.Var, column: tirx.Var) -> tirx.Expr:
        shifted = words[row, column // 8] >> (column % 8 * 4).astype("uint32")
        return ((shifted & tirx.const(15, "uint32")).astype("float16") - tirx.const(7, "float16")) * scales[
            row, column // 32
        ]

    return te.compute((words.shape[0], words.shape[1] * 8), value, name="dequantize")


def product(
    function: str, shape: tuple[str | int, ...], columns: str | int = 128, quantized: bool = True
) -> tvm.IRModule:
    """function(x, ...) = x @ w.T with w of the shape (columns, 64).

    Args:
        function: its name.
        shape: of x, without the last size; a text is a variable's name.
        columns: of the result.
        quantized: whether w is made of words of four bits.
    """
    variables: dict[str, tirx.Var] = {}

    def size(each: str | int) -> tirx.Var | int:
        return variables.setdefault(each, tirx.Var(each, "int64")) if isinstance(each, str) else each

    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((*map(size, shape), 64), "float16"))
    words = relax.Var("words", relax.TensorType((size(columns), 8), "uint32"))
    scales = relax.Var("scales", relax.TensorType((size(columns), 2), "float16"))
    plain = relax.Var("weight", relax.TensorType((size(columns), 64), "float16"))
    with builder.function(function, [x, words, scales, plain]):
        with builder.dataflow():
            weight = builder.emit_te(dequantize, words, scales, primfunc_name_hint="dequantize") if quantized else plain
            transposed = builder.emit(relax.op.permute_dims(weight))
            result = builder.emit_output(builder.emit(relax.op.matmul(x, transposed)))
        builder.emit_func_output(result)
    return builder.get()


def called(module: tvm.IRModule) -> list[str]:
    """What the function calls, by name."""
    names = []

    def visit(expression: relax.Expr) -> None:
        if isinstance(expression, relax.Call):
            target = expression.args[0] if expression.op.name.startswith("relax.call_") else expression.op
            names.append(getattr(target, "global_symbol", None) or getattr(target, "name_hint", None) or target.name)

    (function,) = (each for _, each in module.functions_items() if isinstance(each, relax.Function))
    relax.analysis.post_order_visit(function, visit)
    return names


@pytest.fixture
def passes(tmp_path: Path) -> tvm.transform.Sequential:
    (tmp_path / "four_bits.o").write_bytes(b"")
    kernels = gpu_kernels.Kernels({quantized_products.KERNELS: [tmp_path / "four_bits.o"]}, [])
    return tvm.transform.Sequential(
        [quantized_products.DispatchPromptProducts(), quantized_products.DispatchFourBitProducts(kernels)]
    )


@pytest.mark.parametrize("shape", [(1, "seq_len"), (1, "seq_len", 1)])
def test_a_prompts_product_dequantizes_once_and_calls_cublas(
    passes: tvm.transform.Sequential, shape: tuple[str | int, ...]
) -> None:
    module = passes(product("batch_prefill", shape))
    first, second = called(module)
    assert first == "dequantize" and second.endswith("_cublas")
    assert [each.kind for each in module.attrs["external_mods"]] == ["cublas_json"]


@pytest.mark.parametrize(
    ("function", "shape", "columns"),
    [
        ("decode", (1, 1), 128),
        ("batch_decode", ("batch_size", 1), 128),
        ("batch_verify", (1, "seq_len"), 128),
        ("get_logits", (1, "seq_len"), "vocab_size"),
        # The output layer.
        ("batch_prefill", (1, "batch_size"), "vocab_size"),
    ],
)
def test_a_product_of_few_rows_reads_four_bits(
    passes: tvm.transform.Sequential, function: str, shape: tuple[str | int, ...], columns: str | int
) -> None:
    module = passes(product(function, shape, columns))
    assert called(module) == [quantized_products.FUNCTION]
    assert [each.kind for each in module.attrs["external_mods"]] == ["static_library"]


@pytest.mark.parametrize(("function", "quantized"), [("batch_decode", False), ("image_embed", True)])
def test_other_products_stay(passes: tvm.transform.Sequential, function: str, quantized: bool) -> None:
    before = product(function, ("rows", 1), quantized=quantized)
    assert called(passes(before)) == called(before) and "relax.matmul" in called(before)
