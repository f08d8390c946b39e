"""Programs that are measured on a GPU, as Relax modules. `relax_library` compiles them (BUILD.bazel); that needs no
GPU.

Each function returns a tvm.IRModule; worker.py calls their functions by name. The GPU tests use `paged_kv_cache` too.
"""

from __future__ import annotations

import json

from tvm.relax.frontend.nn.llm import kv_cache

import tvm
from tvm import relax, s_tir, te

CHAIN = 64
"""Number of kernels that one call of `chain` or `chain_symbolic` launches."""

VECTOR = 256
"""Elements of the vectors in `overhead`: one block, so that a call is all launch and no work."""

SEQUENCES = 8
"""The most sequences of a step in `batch_decode`."""

PAGE_SIZE = 16
"""Page size that TVM's generated attention kernels are written for."""

_ATTENTION = "vm.builtin.attention_kv_cache_attention_with_fused_qkv"

_OPAQUE = 8  # OpPatternKind::kOpaque, which has no name in Python; fusion leaves such kernels alone.


def generated_gemm(size: int, dtype: str) -> tvm.IRModule:
    """`main(a, b) = a @ b`, computed by a kernel that TVM generates with its default schedule for the target.

    Args:
        size: rows and columns of a, b and the result.
        dtype: of a and b; sums and the result are float32.
    """
    builder = relax.BlockBuilder()
    a, b = (relax.Var(name, relax.TensorType((size, size), dtype)) for name in "ab")
    with builder.function("main", [a, b]):
        with builder.dataflow():
            product = builder.emit_output(builder.emit(relax.op.matmul(a, b, out_dtype="float32")))
        builder.emit_func_output(product)
    return builder.get()


def overhead(target: str) -> tvm.IRModule:
    """Functions that do almost nothing, to measure what a call costs: `nothing`, `one`, `chain`, `chain_symbolic`, and
    the kernel `add_one`.

    `nothing(x) = x` only calls the virtual machine. `one` launches a kernel. `chain` launches CHAIN kernels in a row,
    each into a new tensor; `chain_symbolic` does so for any length, which it must look up. All take and return float32
    vectors, of VECTOR elements if the length is fixed.

    Args:
        target: what to compile for, as JSON; kernels for a GPU bind their loops to threads.
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
    """The kernel y = x + 1 of float32 vectors, VECTOR threads per block; no pass may fuse or reschedule it."""
    x = te.placeholder((length,), "float32", name="x")
    schedule = s_tir.Schedule(te.create_prim_func([x, te.compute((length,), lambda i: x[i] + 1.0, name="y")]))
    if gpu:
        block, thread = schedule.split(schedule.get_loops(schedule.get_sblock("y"))[0], [None, VECTOR])
        schedule.bind(block, "blockIdx.x")
        schedule.bind(thread, "threadIdx.x")
    return schedule.mod["main"].with_attrs({"global_symbol": name, "op_pattern": _OPAQUE, "tirx.is_scheduled": True})


def paged_kv_cache(
    target: str,
    layers: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    dtype: str,
    flashinfer: bool = False,
    step: bool = False,
) -> tvm.IRModule:
    """`create(sizes, rope_mode)`: a paged KV cache with the attention kernels that TVM generates for the target.

    sizes: the shape (sequences, tokens in total, tokens per prefill, PAGE_SIZE, 1 if windows slide, else 0).
    rope_mode: the shape (kv_cache.RopeMode,).

    Args:
        target: what to compile for, as JSON; the kernels' tiles depend on the GPU's limits.
        layers: of the cache.
        heads: query heads per layer.
        kv_heads: key and value heads per layer.
        head_dim: elements per head.
        dtype: of queries, keys and values.
        flashinfer: whether FlashInfer's kernels take the place of those that it has. They know no RopeMode.INLINE.
        step: whether there is also `batch_decode(qkv, cache)`, a step's attention in all layers, which is named as a
          model's. qkv: (sequences, layers · (heads + 2 · kv_heads), head_dim) → (sequences, layers · heads, head_dim).
    """
    device = tvm.target.Target(json.loads(target))
    builder = relax.BlockBuilder()
    names = ("sequences", "tokens", "chunk", "page_size", "sliding")
    sizes = [tvm.tirx.Var(name, "int64") for name in names]
    mode = tvm.tirx.Var("mode", "int64")
    parameters = [relax.Var("sizes", relax.ShapeType(sizes)), relax.Var("rope_mode", relax.ShapeType([mode]))]
    with builder.function("create", parameters), device:
        kind = kv_cache.FlashInferPagedKVCache if flashinfer else kv_cache.TIRPagedKVCache
        cache = kind(
            "mha",
            *sizes[:3],
            PAGE_SIZE,
            sizes[4],
            layer_partition=relax.ShapeExpr([0, layers]),
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            qk_head_dim=head_dim,
            v_head_dim=head_dim,
            mla_original_qk_head_dim=0,
            mla_original_v_head_dim=0,
            rope_mode=mode,
            rope_scale=1,
            rope_theta=10000,
            rope_scaling={},
            # Relax has no None; TVM treats 0 as "no factors".
            rope_ext_factors=relax.prim_value(0),
            rotary_dim=head_dim,
            enable_disaggregation=False,
            dtype=dtype,
            target=device,
        )
        with builder.dataflow():
            created = builder.emit_output(cache._expr)
        builder.emit_func_output(created)
    if step:
        _add_step(builder, layers, heads, kv_heads, head_dim, dtype)
    return builder.get().with_attr("external_mods", cache.extern_mods)


def _add_step(builder: relax.BlockBuilder, layers: int, heads: int, kv_heads: int, head_dim: int, dtype: str) -> None:
    sequences = tvm.tirx.Var("batch_size", "int64")
    width = heads + 2 * kv_heads
    qkv = relax.Var("qkv", relax.TensorType((sequences, layers * width, head_dim), dtype))
    cache = relax.Var("cache", relax.AnyType())
    attributes = {
        "num_input": 2,
        "relax.rewrite_cuda_graph.capture_symbolic_vars": ["batch_size"],
        "tir_var_upper_bound": {"batch_size": SEQUENCES},
    }
    with builder.function("batch_decode", [qkv, cache], attrs=attributes):
        with builder.dataflow():
            found = []
            for layer in range(layers):
                own = builder.emit(
                    relax.op.strided_slice(qkv, axes=[1], begin=[layer * width], end=[(layer + 1) * width])
                )
                out = relax.TensorType((sequences, heads, head_dim), dtype)
                arguments = [cache, relax.prim_value(layer), relax.prim_value(head_dim**-0.5), own]
                found.append(builder.emit(relax.call_dps_packed(_ATTENTION, arguments, out_ty=out)))
            result = builder.emit_output(relax.op.concat(found, axis=1))
        builder.emit_func_output(result)
