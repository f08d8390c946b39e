"""Products and attention of models for CPUs: calls of this build's kernels (//src/cpu) instead of TVM's loops.

At the pinned commit TVM schedules only products with one row for CPUs. All others, which are all of prefill and of
batches, unpack a whole matrix of weights for each call and multiply it in plain loops on one thread, and attention is
such loops too. `CpuKernels` replaces them in the graph, before they become TVM's kernels. Ours choose their instruction
set when mlc-llm is loaded, so one library is fast on every CPU.
"""

from __future__ import annotations

from typing import Any

from tvm.relax import expr_functor
from tvm.relax.frontend.nn.llm.kv_cache import RopeMode

import tvm
from tvm import relax, tirx

MATMUL, MATMUL_Q4, TAKE_Q4 = (f"mlc_bazel.cpu.{name}" for name in ("matmul", "matmul_q4", "take_q4"))

CREATE_CACHE = "vm.builtin.paged_attention_kv_cache_create"

ATTENTION = {
    f"batch_{theirs}{window}": f"mlc_bazel.cpu.attention_{ours}"
    for theirs, ours in (
        ("prefill_ragged_kv", "ragged"),
        ("prefill_paged_kv_cpu", "prefill"),
        ("decode_paged_kv_cpu", "decode"),
    )
    for window in ("", "_sliding_window")
}
"""TVM's kernels for attention on CPUs, and ours with the same arguments."""

HEAD_MULTIPLE = 16
"""Of numbers in a head, that our kernels read at once."""

FLOATS = ("float16", "float32")

GROUP = 32
"""Weights with one scale, in mlc-llm's quantizations of 4 bits."""


def _dtype(expression: relax.Expr) -> str:
    return str(expression.ty.dtype.dtype)


@expr_functor.mutator
class _Rewriter(expr_functor.PyExprMutator):  # type: ignore[misc]
    """Rewrites one module."""

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = super().visit_call_(call)
        if call.op == tvm.ir.Op.get("relax.matmul"):
            return self._product(call)
        if call.op == tvm.ir.Op.get("relax.take"):
            return self._rows(call)
        if call.args and isinstance(call.args[0], relax.ExternFunc) and call.args[0].global_symbol == CREATE_CACHE:
            return self._cache(call)
        return call

    def _cache(self, call: relax.Call) -> relax.Expr:
        """Gives a KV cache the kernels for attention, unless it rotates in them."""
        key_size, value_size, mode = (int(call.args[position].value) for position in (5, 6, 9))
        if mode == RopeMode.INLINE or key_size != value_size or key_size % HEAD_MULTIPLE:
            return call
        return relax.Call(call.op, [self._attention(each) for each in call.args], call.attrs, call.ty_args, call.span)

    def _attention(self, argument: relax.Expr) -> relax.Expr:
        if not isinstance(argument, relax.Tuple) or len(argument.fields) != 2:
            return argument
        kind, function = argument.fields
        name = ATTENTION.get(getattr(function, "name_hint", ""))
        return relax.Tuple([kind, relax.ExternFunc(name)]) if name else argument

    def _bound(self, expression: relax.Expr) -> relax.Expr:
        """What a variable stands for."""
        found = self.lookup_binding(expression) if isinstance(expression, relax.Var) else expression
        return expression if found is None else found

    def _quantized(self, weights: relax.Expr) -> tuple[relax.Expr, relax.Expr] | None:
        """Words and scales of weights with four bits in groups of 32, or None for others."""
        made = self._bound(weights)
        if not (isinstance(made, relax.Call) and made.op == tvm.ir.Op.get("relax.call_tir")):
            return None
        function, arguments = made.args[0], made.args[1]
        if not function.name_hint.startswith("dequantize") or len(arguments.fields) != 2:
            return None
        words, scales = arguments.fields
        depth = weights.ty.shape[1]
        wide, groups = words.ty.shape[1], scales.ty.shape[1]
        exact = isinstance(depth, tirx.IntImm) and int(depth) == 8 * int(wide) == GROUP * int(groups)
        return (words, scales) if exact and _dtype(words) == "uint32" else None

    def _product(self, call: relax.Call) -> relax.Expr:
        left, right = call.args
        made = self._bound(right)
        if not (isinstance(made, relax.Call) and made.op == tvm.ir.Op.get("relax.permute_dims")):
            return call
        weights = made.args[0]
        if (
            weights.ty.ndim != 2
            or left.ty.ndim < 2
            or not all(_dtype(each) in FLOATS for each in (left, weights, call))
        ):
            return call
        if not isinstance(weights.ty.shape[1], tirx.IntImm):
            return call
        quantized = self._quantized(weights)
        name, arguments = (MATMUL_Q4, [left, *quantized]) if quantized else (MATMUL, [left, weights])
        return relax.call_dps_packed(name, relax.Tuple(arguments), out_ty=call.ty)

    def _rows(self, call: relax.Call) -> relax.Expr:
        quantized = self._quantized(call.args[0])
        if quantized is None or call.args[1].ty.ndim != 1 or call.attrs.axis is None or int(call.attrs.axis) != 0:
            return call
        return relax.call_dps_packed(TAKE_Q4, relax.Tuple([*quantized, call.args[1]]), out_ty=call.ty)


@tvm.transform.module_pass(opt_level=0, name="CpuKernels")
class CpuKernels:
    """Replaces products with weights, looking up rows of quantized weights, and attention."""

    def transform_module(self, module: tvm.IRModule, _: Any) -> tvm.IRModule:
        rewriter = _Rewriter(module)
        for name, function in module.functions_items():
            if isinstance(function, relax.Function):
                rewriter.builder_.update_func(name, rewriter.visit_expr(function))
        return rewriter.builder_.get()


def install() -> None:
    """Adds the pass to mlc-llm's pipeline for CPUs."""
    from mlc_llm.compiler_pass import pipeline

    upstream = pipeline.FuseTransposeMatmul

    def first() -> tvm.transform.Pass:
        target = tvm.target.Target.current()
        own = [CpuKernels()] if target is not None and target.kind.name == "llvm" else []
        return tvm.transform.Sequential([*own, upstream()])

    pipeline.FuseTransposeMatmul = first
