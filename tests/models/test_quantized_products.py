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


def product(rows: str, quantized: bool = True) -> tvm.IRModule:
    """main(x, ...) = x @ w.T with x of the shape (1, rows, 64), w (128, 64)."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((1, tirx.Var(rows, "int64"), 64), "float16"))
    words = relax.Var("words", relax.TensorType((128, 8), "uint32"))
    scales = relax.Var("scales", relax.TensorType((128, 2), "float16"))
    plain = relax.Var("weight", relax.TensorType((128, 64), "float16"))
    with builder.function("main", [x, words, scales, plain]):
        with builder.dataflow():
            weight = builder.emit_te(dequantize, words, scales, primfunc_name_hint="dequantize") if quantized else plain
            transposed = builder.emit(relax.op.permute_dims(weight))
            result = builder.emit_output(builder.emit(relax.op.matmul(x, transposed)))
        builder.emit_func_output(result)
    return builder.get()


def called(module: tvm.IRModule) -> list[str]:
    """What the main function calls, by name."""
    names = []

    def visit(expression: relax.Expr) -> None:
        if isinstance(expression, relax.Call):
            target = expression.args[0] if expression.op.name.startswith("relax.call_") else expression.op
            names.append(getattr(target, "global_symbol", None) or getattr(target, "name_hint", None) or target.name)

    relax.analysis.post_order_visit(module["main"], visit)
    return names


@pytest.fixture
def passes(tmp_path: Path) -> tvm.transform.Sequential:
    (tmp_path / "four_bits.o").write_bytes(b"")
    kernels = gpu_kernels.Kernels({quantized_products.KERNELS: [tmp_path / "four_bits.o"]}, [])
    return tvm.transform.Sequential(
        [quantized_products.DispatchPromptProducts(), quantized_products.DispatchFourBitProducts(kernels)]
    )


def test_a_prompts_product_dequantizes_once_and_calls_cublas(passes: tvm.transform.Sequential) -> None:
    module = passes(product("seq_len"))
    first, second = called(module)
    assert first == "dequantize" and second.endswith("_cublas")
    assert [each.kind for each in module.attrs["external_mods"]] == ["cublas_json"]


def test_a_product_of_decoding_reads_four_bits(passes: tvm.transform.Sequential) -> None:
    module = passes(product("batch_size"))
    assert called(module) == [quantized_products.FUNCTION]
    assert [each.kind for each in module.attrs["external_mods"]] == ["static_library"]


def test_other_products_stay(passes: tvm.transform.Sequential) -> None:
    before = product("batch_size", quantized=False)
    assert called(passes(before)) == called(before) and "relax.matmul" in called(before)
