"""Operators become calls of the kernels where these compute the same, and stay as they are elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tvm.relax import op

import tvm
from src.mlc_llm.cpu_kernels import CpuKernels
from tvm import relax, te, tirx

Build = Callable[..., relax.Expr]

ROWS = tirx.Var("rows", "int64")


def changed(module: tvm.IRModule) -> tvm.IRModule:
    return tvm.transform.Sequential([CpuKernels()])(module)


def calls(build: Build, *types: relax.TensorType) -> list[str]:
    """The kernels that a function calls in the end.

    Args:
        build: returns the function's result, given a builder and its arguments.
        types: of the arguments.
    """
    builder = relax.BlockBuilder()
    arguments = [relax.Var(f"x{number}", each) for number, each in enumerate(types)]
    with builder.function("main", arguments):
        with builder.dataflow():
            result = builder.emit_output(build(builder, *arguments))
        builder.emit_func_output(result)
    script = changed(builder.get()).script(show_meta=False)
    names = (line.partition('"mlc_bazel.cpu.')[2].partition('"')[0] for line in script.splitlines())
    return [name for name in names if name]


def tensor(*shape: int | tirx.Var, dtype: str = "float32") -> relax.TensorType:
    return relax.TensorType(list(shape), dtype)


def product(axes: list[int] | None = None) -> Build:
    return lambda builder, x, weights: op.matmul(x, builder.emit(op.permute_dims(weights, axes)))


def of_unknown_shape(dtype: str = "float32") -> relax.TensorType:
    return relax.TensorType(dtype=dtype, ndim=2)


@pytest.mark.parametrize(
    ("build", "types", "expected"),
    [
        (product(), [tensor(ROWS, 8), tensor(6, 8)], ["matmul"]),
        (product([1, 0]), [tensor(2, ROWS, 8, dtype="float16"), tensor(6, 8, dtype="float16")], ["matmul"]),
        # No transposition at all.
        (product([0, 1]), [tensor(4, 8), tensor(8, 8)], []),
        (product(), [tensor(4, 8, dtype="bfloat16"), tensor(6, 8, dtype="bfloat16")], []),
        (product(), [tensor(8), tensor(6, 8)], []),
        (product([0, 2, 1]), [tensor(2, 4, 8), tensor(2, 6, 8)], []),
        (product(), [of_unknown_shape(), of_unknown_shape()], []),
    ],
)
def test_products(build: Build, types: list[relax.TensorType], expected: list[str]) -> None:
    assert calls(build, *types) == expected


def norm(axes: int | list[int]) -> Build:
    return lambda _builder, x, weight: op.nn.rms_norm(x, weight, axes, 1e-5)


@pytest.mark.parametrize(
    ("build", "types", "expected"),
    [
        (norm(-1), [tensor(ROWS, 8), tensor(8)], ["rms_norm"]),
        (norm([1]), [tensor(ROWS, 8), tensor(8)], ["rms_norm"]),
        (norm(0), [tensor(4, 8), tensor(4)], []),
        (norm([0, 1]), [tensor(4, 8), tensor(4, 8)], []),
        (norm(-1), [tensor(ROWS, 8, dtype="float16"), tensor(8, dtype="float16")], []),
        (norm(-1), [relax.TensorType(dtype="float32", ndim=-1), tensor(8)], []),
    ],
)
def test_norms(build: Build, types: list[relax.TensorType], expected: list[str]) -> None:
    assert calls(build, *types) == expected


def gate(
    activation: Callable[[relax.Expr], relax.Expr] = op.nn.silu,
    halves: tuple[int, int] = (0, 1),
    axis: int = -1,
    sections: int | list[int] = 2,
) -> Build:
    def build(builder: relax.BlockBuilder, x: relax.Expr) -> relax.Expr:
        split = builder.emit(op.split(x, sections, axis))
        first, second = (builder.emit(relax.TupleGetItem(split, index)) for index in halves)
        return op.multiply(builder.emit(activation(first)), second)

    return build


@pytest.mark.parametrize(
    ("build", "of", "expected"),
    [
        (gate(), tensor(ROWS, 16), ["silu_multiply"]),
        (gate(op.nn.gelu_tanh, axis=1), tensor(ROWS, 16), ["gelu_multiply"]),
        (gate(op.nn.gelu), tensor(ROWS, 16), []),
        (gate(halves=(1, 0)), tensor(ROWS, 16), []),
        (gate(halves=(0, 0)), tensor(ROWS, 16), []),
        (gate(axis=0), tensor(16, 16), []),
        (gate(sections=3), tensor(ROWS, 24), []),
        (gate(sections=[1]), tensor(ROWS, 16), []),
        (gate(), tensor(ROWS, 16, dtype="float16"), []),
        (gate(), of_unknown_shape(), []),
    ],
)
def test_gates(build: Build, of: relax.TensorType, expected: list[str]) -> None:
    assert calls(build, of) == expected


def dequantized(builder: relax.BlockBuilder, words: relax.Expr, scales: relax.Expr) -> relax.Expr:
    """Weights as mlc-llm dequantizes them: eight in a word, or one in anything else."""
    dtype, per_word = str(scales.ty.dtype.dtype), 8 if str(words.ty.dtype.dtype) == "uint32" else 1
    shape = [int(each) for each in words.ty.shape]
    shape[-1] *= per_word
    packed, factors = (
        te.placeholder([int(size) for size in each.ty.shape], str(each.ty.dtype.dtype)) for each in (words, scales)
    )

    def value(*at: tirx.PrimExpr) -> tirx.PrimExpr:
        word = packed(*at[:-1], at[-1] // per_word)
        factor = factors(*at[:-1], at[-1] // 32) if len(factors.shape) == len(at) else factors(0)
        return word.astype(dtype) * factor

    kernel = te.create_prim_func([packed, factors, te.compute(shape, value)])
    function = builder.add_func(kernel, "dequantize")
    made = relax.call_tir(function, [words, scales], out_ty=relax.TensorType(shape, dtype))
    return builder.emit(made)


def quantized_product(builder: relax.BlockBuilder, x: relax.Expr, *weights: relax.Expr) -> relax.Expr:
    return op.matmul(x, builder.emit(op.permute_dims(dequantized(builder, *weights))))


def rows(builder: relax.BlockBuilder, numbers: relax.Expr, *weights: relax.Expr) -> relax.Expr:
    return op.take(dequantized(builder, *weights), numbers, axis=0)


WORDS = tensor(6, 8, dtype="uint32")


@pytest.mark.parametrize(
    ("build", "types", "expected"),
    [
        (quantized_product, [tensor(ROWS, 64), WORDS, tensor(6, 2)], ["matmul_q4"]),
        (rows, [tensor(ROWS, dtype="int32"), WORDS, tensor(6, 2)], ["take_q4"]),
        (rows, [tensor(ROWS, dtype="int64"), WORDS, tensor(6, 2)], []),
        (rows, [tensor(ROWS, dtype="int32"), WORDS, tensor(6, 2, dtype="bfloat16")], []),
        (
            quantized_product,
            [tensor(ROWS, 64, dtype="bfloat16"), WORDS, tensor(6, 2, dtype="bfloat16")],
            [],
        ),
        # One scale for all: the product is one of floats.
        (quantized_product, [tensor(ROWS, 64), WORDS, tensor(1)], ["matmul"]),
        (rows, [tensor(ROWS, dtype="int32"), tensor(8, dtype="uint32"), tensor(2)], []),
        (quantized_product, [tensor(ROWS, 64), tensor(6, 64, dtype="uint8"), tensor(1)], ["matmul"]),
    ],
)
def test_weights_of_four_bits(build: Build, types: list[relax.TensorType], expected: list[str]) -> None:
    assert calls(build, *types) == expected


@pytest.mark.parametrize(
    ("dtype", "size", "ours"),
    [("float32", 64, True), ("float16", 64, True), ("bfloat16", 64, False), ("float32", 24, False)],
)
def test_caches(dtype: str, size: int, ours: bool) -> None:
    from tvm.relax.frontend.nn.llm.kv_cache import RopeMode, TIRPagedKVCache

    target = tvm.target.Target({"kind": "llvm", "mcpu": "x86-64-v3"})
    builder = relax.BlockBuilder()
    sizes = [tirx.Var(name, "int64") for name in ("sequences", "tokens", "chunk", "page", "window")]
    shapes = [relax.Var(str(each), relax.ShapeType([each])) for each in sizes]
    with target, builder.function("create", shapes):
        with builder.dataflow():
            cache = TIRPagedKVCache(
                "mha", *sizes, relax.ShapeExpr([0, 1]), 1, 4, 2, size, size, 0, 0, RopeMode.NORMAL, 1, 10000, {},
                relax.op.zeros((), "float32"), size, False, dtype, target,
            )  # fmt: skip
            result = builder.emit_output(cache._expr)
        builder.emit_func_output(result)
    script = changed(builder.finalize())["create"].script(show_meta=False)
    assert ("mlc_bazel.cpu.attention_decode" in script) == ours
