"""Programs that are measured on a GPU, as Relax modules; `relax_library` compiles them where there is none (BUILD.bazel).

Each function returns a tvm.IRModule. worker.py knows their functions by name.
"""

from __future__ import annotations

import json

import tvm
from tvm import relax, s_tir, te
from tvm.relax.frontend.nn.llm import kv_cache

CHAIN = 64
"""Kernels that one call of `chain` and `chain_symbolic` launches."""

VECTOR = 256
"""Elements of the vector of `overhead`: one block, so that a call is all launch and no work."""

_OPAQUE = 8  # OpPatternKind::kOpaque, which has no name in Python: fusion leaves it alone.


def generated_gemm(size: int, dtype: str) -> tvm.IRModule:
    """`main(a, b) = a @ b` by a kernel that TVM generates, with the schedule that its default pipeline has for the target.

    Args:
        size: rows and columns of a, b and the result.
        dtype: of a and b; products are added up and returned in float32.
    """
    builder = relax.BlockBuilder()
    a, b = (relax.Var(name, relax.TensorType((size, size), dtype)) for name in "ab")
    with builder.function("main", [a, b]):
        with builder.dataflow():
            product = builder.emit_output(builder.emit(relax.op.matmul(a, b, out_dtype="float32")))
        builder.emit_func_output(product)
    return builder.get()


def overhead(target: str) -> tvm.IRModule:
    """Functions that do next to nothing, for what a call costs: `nothing`, `one`, `chain` and `chain_symbolic`, and the kernel `add_one`.

    `nothing(x) = x` is a call of the virtual machine alone, `one` launches a kernel, `chain` launches CHAIN of them one after the other, each into a
    new tensor, and `chain_symbolic` does so for any length, which it must look up. All take and return float32 vectors, of VECTOR elements where it is fixed.

    Args:
        target: what it is for, as JSON: a GPU's kernels bind their loops to threads.
    """
    gpu = json.loads(target)["kind"] == "cuda"
    builder = relax.BlockBuilder()
    length = tvm.tirx.Var("n", "int64")
    fixed = builder.add_func(_add_one("add_one", VECTOR, gpu), "add_one")
    symbolic = builder.add_func(_add_one("add_one_symbolic", te.var("n", "int64"), gpu), "add_one_symbolic")
    for name, shape, kernel, count in (
        ("nothing", (VECTOR,), fixed, 0),
        ("one", (VECTOR,), fixed, 1),
        ("chain", (VECTOR,), fixed, CHAIN),
        ("chain_symbolic", (length,), symbolic, CHAIN),
    ):
        x = relax.Var("x", relax.TensorType(shape, "float32"))
        with builder.function(name, [x]):
            with builder.dataflow():
                value = x
                for _ in range(count):
                    value = builder.emit(relax.call_tir(kernel, [value], relax.TensorType(shape, "float32")))
                value = builder.emit_output(value)
            builder.emit_func_output(value)
    return builder.get()


def _add_one(name: str, length: int | tvm.tirx.Var, gpu: bool) -> tvm.tirx.PrimFunc:
    """The kernel y = x + 1 of float32 vectors, VECTOR threads a block, which no pass may fuse with its neighbours or schedule again."""
    x = te.placeholder((length,), "float32", name="x")
    schedule = s_tir.Schedule(te.create_prim_func([x, te.compute((length,), lambda i: x[i] + 1.0, name="y")]))
    if gpu:
        block, thread = schedule.split(schedule.get_loops(schedule.get_sblock("y"))[0], [None, VECTOR])
        schedule.bind(block, "blockIdx.x")
        schedule.bind(thread, "threadIdx.x")
    return schedule.mod["main"].with_attrs({"global_symbol": name, "op_pattern": _OPAQUE, "tirx.is_scheduled": True})


def paged_attention(target: str, layers: int, heads: int, kv_heads: int, head_dim: int, dtype: str) -> tvm.IRModule:
    """`create(batch, tokens, chunk, page_size, sliding)`: a paged KV cache with the kernels that TVM generates for the target; each argument is a shape of one number.

    Args:
        target: what it is for, as JSON; kernels of a GPU are made for its limits.
        layers: of the cache.
        heads: query heads of a layer.
        kv_heads: key and value heads of a layer.
        head_dim: elements of a head.
        dtype: of queries, keys and values.
    """
    device = tvm.target.Target(json.loads(target))
    builder = relax.BlockBuilder()
    names = ("batch", "tokens", "chunk", "page_size", "sliding")
    numbers = [tvm.tirx.Var(name, "int64") for name in names]
    parameters = [relax.Var(name, relax.ShapeType([number])) for name, number in zip(names, numbers)]
    with builder.function("create", parameters), device:
        cache = kv_cache.TIRPagedKVCache(
            "mha",
            *numbers,
            layer_partition=relax.ShapeExpr([0, layers]),
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            qk_head_dim=head_dim,
            v_head_dim=head_dim,
            mla_original_qk_head_dim=0,
            mla_original_v_head_dim=0,
            rope_mode=kv_cache.RopeMode.NORMAL,
            rope_scale=1,
            rope_theta=10000,
            rope_scaling={},
            # None, as Relax can say it.
            rope_ext_factors=relax.prim_value(0),
            rotary_dim=head_dim,
            enable_disaggregation=False,
            dtype=dtype,
            target=device,
        )
        with builder.dataflow():
            created = builder.emit_output(cache._expr)
        builder.emit_func_output(created)
    return builder.get()
