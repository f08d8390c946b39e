"""Programs that the GPU tests run, as Relax modules. The build compiles what each function returns (`relax_library` in
BUILD.bazel).

The machine with the GPU calls none of these functions, since its TVM may lack the compiler; the tests only read the
shapes.
"""

from __future__ import annotations

from collections.abc import Callable

import tvm

if not tvm.base._RUNTIME_ONLY:
    from tvm.contrib import cublas, cudnn
    from tvm.script import tirx as T

    from tvm import relax

# Shape of the matrix products; the number of rows is free.
INNER, COLUMNS = 1024, 768

# Shape of the network whose layers are captured; a captured graph needs fixed shapes.
GRAPH_ROWS, GRAPH_WIDTH, GRAPH_LAYERS = 16, 256, 4

# Rows and inner size of weights with four bits: odd ones, those of SmolLM2, and of Llama 3 8B.
FOUR_BIT_SHAPES = [(200, 96), (24, 32), (576, 576), (576, 1536), (4096, 4096), (4096, 14336)]

# Width of the input and output of the two-layer block that workers share.
BLOCK_WIDTH = 1024


def _function(
    builder: relax.BlockBuilder,
    name: str,
    inputs: list[relax.Var],
    make: Callable[..., relax.Expr],
    attributes: dict[str, object] | None = None,
) -> None:
    """Adds the function `name` to the module; its result is make(*inputs)."""
    with builder.function(name, inputs, attrs=attributes):
        with builder.dataflow():
            result = builder.emit_output(make(*inputs))
        builder.emit_func_output(result)


def _tensor(name: str, shape: tuple[object, ...], dtype: str) -> relax.Var:
    return relax.Var(name, relax.TensorType(shape, dtype))


def generated_kernels() -> tvm.IRModule:
    """Kernels that TVM generates for symbolic n and m: add_DTYPE, softmax_DTYPE, and matmul_DTYPE, which sums in
    float32.

    add: x, y: (n,) → (n,).
    softmax: x: (n, m) → (n, m), over the last axis.
    matmul: x: (n, INNER), w: (INNER, COLUMNS) → (n, COLUMNS) float32.

    And draw, as mlc-llm draws tokens: probabilities (n, m), uniform numbers and rows (k, 1) → columns (k, 1).
    """
    builder = relax.BlockBuilder()
    for dtype in ("float16", "float32"):
        n, m = T.Var("n", "int64"), T.Var("m", "int64")
        _function(builder, f"add_{dtype}", [_tensor("x", (n,), dtype), _tensor("y", (n,), dtype)], relax.op.add)
        _function(builder, f"softmax_{dtype}", [_tensor("x", (n, m), dtype)], relax.op.nn.softmax)
    for dtype in ("float16", "bfloat16"):
        n = T.Var("n", "int64")
        inputs = [_tensor("x", (n, INNER), dtype), _tensor("w", (INNER, COLUMNS), dtype)]
        _function(builder, f"matmul_{dtype}", inputs, lambda x, w: relax.op.matmul(x, w, out_dtype="float32"))
    n, m, k = (T.Var(name, "int64") for name in "nmk")
    inputs = [
        _tensor("probabilities", (n, m), "float32"),
        _tensor("uniform", (k, 1), "float32"),
        _tensor("rows", (k, 1), "int64"),
    ]
    _function(builder, "draw", inputs, lambda *each: relax.op.multinomial_from_uniform(*each, dtype="int32"))
    return builder.get()


def library_calls() -> tvm.IRModule:
    """product_then_softmax(x, w) = softmax(x @ w) through cuBLAS, then cuDNN. x: (n, INNER), w: (INNER, COLUMNS), all
    float32.
    """
    builder = relax.BlockBuilder()
    n = T.Var("n", "int64")

    def product_then_softmax(x: relax.Var, w: relax.Var) -> relax.Expr:
        # Not call_dps_packed, which passes the output last: these functions take it before their options.
        return builder.emit_te(cudnn.softmax, builder.emit_te(cublas.matmul, x, w, dtype="float32"))

    inputs = [_tensor("x", (n, INNER), "float32"), _tensor("w", (INNER, COLUMNS), "float32")]
    _function(builder, "product_then_softmax", inputs, product_then_softmax)
    return builder.get()


def four_bit_products() -> tvm.IRModule:
    """product_ROWS_INNER_DTYPE(x, words, scales) = x @ dequantized(words, scales).T by //src/cuda:four_bits.

    x: (n, INNER) float16; words: (ROWS, INNER / 8) uint32; scales: (ROWS, INNER / 32) float16 → (n, ROWS) DTYPE.
    """
    builder = relax.BlockBuilder()
    for rows, inner in FOUR_BIT_SHAPES:
        for dtype in ("float16", "float32"):
            n = T.Var("n", "int64")
            shapes = {"x": (n, inner), "words": (rows, inner // 8), "scales": (rows, inner // 32)}
            types = {"x": "float16", "words": "uint32", "scales": "float16"}
            out = relax.TensorType((n, rows), dtype)
            _function(
                builder,
                f"product_{rows}_{inner}_{dtype}",
                [_tensor(name, shape, types[name]) for name, shape in shapes.items()],
                lambda *inputs, out=out: relax.call_dps_packed("mlc_bazel_four_bit_product", inputs, out_ty=out),
            )
    return builder.get()


def captured_network() -> tvm.IRModule:
    """forward(x, w0, ..., w3) = relu(... relu(x @ w0) ... @ w3) + 1 in float32; a CUDA graph captures the layers
    between first and last.

    x: (GRAPH_ROWS, GRAPH_WIDTH); each w: (GRAPH_WIDTH, GRAPH_WIDTH). Compile it with relax.backend.use_cuda_graph.
    """
    builder = relax.BlockBuilder()
    x = _tensor("x", (GRAPH_ROWS, GRAPH_WIDTH), "float32")
    weights = [_tensor(f"w{index}", (GRAPH_WIDTH, GRAPH_WIDTH), "float32") for index in range(GRAPH_LAYERS)]

    def network(x: relax.Var, *weights: relax.Var) -> relax.Expr:
        for weight in weights:
            x = builder.emit(relax.op.nn.relu(relax.op.matmul(x, weight)))
        return relax.op.add(x, relax.const(1, "float32"))

    # Only the first input changes between calls; the weights stay in place, so the graph may hold their addresses.
    _function(builder, "forward", [x, *weights], network, {"num_input": 1})
    return builder.get()


def tensor_parallel() -> tvm.IRModule:
    """A two-layer block on one GPU, `whole`, and a worker's share of it, `part`: relu(x @ w1) @ w2 in float16, with
    sums in float32.

    x: (n, BLOCK_WIDTH); w1: (BLOCK_WIDTH, m), for `part` some of the columns; w2: (m, BLOCK_WIDTH), for `part` the
      matching rows. `part` sums
    the results of all workers of its session, so that each returns the whole. n and m are symbolic: any number of
    workers can share the block.
    """
    builder = relax.BlockBuilder()

    def whole(x: relax.Var, w1: relax.Var, w2: relax.Var) -> relax.Expr:
        hidden = relax.op.nn.relu(relax.op.astype(relax.op.matmul(x, w1, out_dtype="float32"), "float16"))
        return relax.op.astype(relax.op.matmul(hidden, w2, out_dtype="float32"), "float16")

    for name, make in (("whole", whole), ("part", lambda *inputs: relax.op.ccl.allreduce(whole(*inputs), "sum"))):
        n, m = T.Var("n", "int64"), T.Var("m", "int64")
        shapes = {"x": (n, BLOCK_WIDTH), "w1": (BLOCK_WIDTH, m), "w2": (m, BLOCK_WIDTH)}
        _function(builder, name, [_tensor(each, shape, "float16") for each, shape in shapes.items()], make)
    return builder.get()


def captured_sums() -> tvm.IRModule:
    """forward(x) halves the sum of x over the workers of its session, GRAPH_LAYERS times; a CUDA graph captures all but
    the first and the last.

    x: (GRAPH_ROWS, BLOCK_WIDTH), float16. Compile it with relax.backend.use_cuda_graph.
    """
    builder = relax.BlockBuilder()

    def halves(x: relax.Var) -> relax.Expr:
        for _ in range(GRAPH_LAYERS):
            total = builder.emit(relax.op.ccl.allreduce(x, "sum"))
            x = builder.emit(relax.op.multiply(total, relax.const(0.5, "float16")))
        return x

    _function(builder, "forward", [_tensor("x", (GRAPH_ROWS, BLOCK_WIDTH), "float16")], halves, {"num_input": 1})
    return builder.get()


def wrong_architecture() -> tvm.IRModule:
    """add(x, y), float32: (n,). Compile it for another GPU than that of the tests."""
    builder = relax.BlockBuilder()
    n = T.Var("n", "int64")
    _function(builder, "add", [_tensor("x", (n,), "float32"), _tensor("y", (n,), "float32")], relax.op.add)
    return builder.get()
