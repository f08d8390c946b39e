"""The programs that the GPU tests run, as Relax modules: the build compiles each function's result (`relax_library` in BUILD.bazel).

No function here runs on the machine that has the GPU: there TVM may be its runtime alone, without a compiler. The tests read the shapes.
"""

from __future__ import annotations

import json

import tvm

if not tvm.base._RUNTIME_ONLY:
    from tvm import relax
    from tvm.contrib import cublas, cudnn
    from tvm.relax.frontend.nn.llm import kv_cache as paged_attention
    from tvm.script import tirx as T

# Of a matrix product; its rows are free.
INNER, COLUMNS = 1024, 768

# The attention that the paged cache is tested with: grouped queries, heads as wide as the two sizes that models have most often.
LAYERS, KV_HEADS, QO_HEADS = 2, 2, 8
HEAD_DIM = {"float16": 128, "float32": 64}
PAGE_SIZE = 16  # The page size that the generated kernels are written for.
ROPE_THETA = 10000

# Of the network whose layers are captured: fixed, as a captured graph needs them.
GRAPH_ROWS, GRAPH_WIDTH, GRAPH_LAYERS = 16, 256, 4

# Of the block of two layers that workers share: what goes in and comes out.
BLOCK_WIDTH = 1024


def _function(builder: relax.BlockBuilder, name: str, inputs: list[relax.Var], make, attributes: dict[str, object] | None = None) -> None:
    """Adds the function `name`, whose result is make(*inputs), to the module."""
    with builder.function(name, inputs, attrs=attributes):
        with builder.dataflow():
            result = builder.emit_output(make(*inputs))
        builder.emit_func_output(result)


def _tensor(name: str, shape: tuple[object, ...], dtype: str) -> relax.Var:
    return relax.Var(name, relax.TensorType(shape, dtype))


def generated_kernels() -> tvm.IRModule:
    """Kernels that TVM generates, n and m unknown: add_DTYPE, softmax_DTYPE and matmul_DTYPE, products being summed in float32.

    add: x, y: (n,) -> (n,). softmax: x: (n, m) -> (n, m), over the last axis. matmul: x: (n, INNER), w: (INNER, COLUMNS) -> (n, COLUMNS) float32.
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
    return builder.get()


def library_calls() -> tvm.IRModule:
    """A virtual machine's function that calls cuBLAS, then cuDNN: softmax(x @ w), x: (n, INNER), w: (INNER, COLUMNS), all float32."""
    builder = relax.BlockBuilder()
    n = T.Var("n", "int64")

    def product_then_softmax(x: relax.Var, w: relax.Var) -> relax.Expr:
        # Not call_dps_packed: it passes the output last, and these functions take it before their options.
        return builder.emit_te(cudnn.softmax, builder.emit_te(cublas.matmul, x, w, dtype="float32"))

    inputs = [_tensor("x", (n, INNER), "float32"), _tensor("w", (INNER, COLUMNS), "float32")]
    _function(builder, "product_then_softmax", inputs, product_then_softmax)
    return builder.get()


def paged_kv_cache(dtype: str, target: str) -> tvm.IRModule:
    """create(sizes, mode) makes a paged KV cache with the kernels that TVM generates for the target.

    sizes: the shape (sequences, tokens in all, tokens of one prefill, PAGE_SIZE, whether windows slide: 0 or 1). mode: the shape (RopeMode,).

    Args:
        dtype: of keys, values and queries: float16 or float32.
        target: what the kernels are for, as TVM has it in JSON: their tiles depend on the device's limits.
    """
    builder = relax.BlockBuilder()
    names = ("max_batch_size", "max_total_seq_len", "prefill_chunk_size", "page_size", "support_sliding_window")
    sizes = [T.Var(name, "int64") for name in names]
    mode = T.Var("mode", "int64")
    with builder.function("create", [relax.Var("sizes", relax.ShapeType(sizes)), relax.Var("rope_mode", relax.ShapeType([mode]))]):
        cache = paged_attention.TIRPagedKVCache(
            "mha",
            *sizes[:3],
            PAGE_SIZE,
            sizes[4],
            relax.ShapeExpr([0, LAYERS]),
            num_hidden_layers=LAYERS,
            num_attention_heads=QO_HEADS,
            num_key_value_heads=KV_HEADS,
            qk_head_dim=HEAD_DIM[dtype],
            v_head_dim=HEAD_DIM[dtype],
            mla_original_qk_head_dim=0,
            mla_original_v_head_dim=0,
            rope_mode=mode,
            rope_scale=1,
            rope_theta=ROPE_THETA,
            rope_scaling={},
            rope_ext_factors=relax.prim_value(0),
            rotary_dim=HEAD_DIM[dtype],
            enable_disaggregation=False,
            dtype=dtype,
            target=tvm.target.Target(json.loads(target)),
        )
        builder.emit_func_output(builder.emit(cache._expr))
    return builder.get()


def captured_network() -> tvm.IRModule:
    """forward(x, w0, ..., w3) = relu(... relu(x @ w0) ... @ w3) + 1, float32, the layers between first and last captured in a CUDA graph.

    x: (GRAPH_ROWS, GRAPH_WIDTH); each w: (GRAPH_WIDTH, GRAPH_WIDTH). To be compiled with relax.backend.use_cuda_graph.
    """
    builder = relax.BlockBuilder()
    x = _tensor("x", (GRAPH_ROWS, GRAPH_WIDTH), "float32")
    weights = [_tensor(f"w{index}", (GRAPH_WIDTH, GRAPH_WIDTH), "float32") for index in range(GRAPH_LAYERS)]

    def network(x: relax.Var, *weights: relax.Var) -> relax.Expr:
        for weight in weights:
            x = builder.emit(relax.op.nn.relu(relax.op.matmul(x, weight)))
        return relax.op.add(x, relax.const(1, "float32"))

    # Of the inputs the first changes from call to call; the weights stay where they are, so that a graph may hold their addresses.
    _function(builder, "forward", [x, *weights], network, {"num_input": 1})
    return builder.get()


def tensor_parallel() -> tvm.IRModule:
    """A block of two layers on one GPU, `whole`, and a worker's part of it, `part`: relu(x @ w1) @ w2, float16, products being summed in float32.

    x: (n, BLOCK_WIDTH); w1: (BLOCK_WIDTH, m), for `part` some of the columns; w2: (m, BLOCK_WIDTH), for `part` the rows that belong to them. `part` adds up
    what all workers of its session have, so that each returns the whole result. n and m are unknown: any number of workers can share the block.
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


def wrong_architecture() -> tvm.IRModule:
    """add(x, y), float32: (n,); to be compiled for a GPU that the tests' is not."""
    builder = relax.BlockBuilder()
    n = T.Var("n", "int64")
    _function(builder, "add", [_tensor("x", (n,), "float32"), _tensor("y", (n,), "float32")], relax.op.add)
    return builder.get()
