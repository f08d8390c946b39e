"""What models for CPUs compute most: calls of this build's kernels (//src/cpu) instead of TVM's loops.

At the pinned commit TVM schedules only products with one row for CPUs. All others, which are all of prefill and of
batches, unpack a whole matrix of weights for each call and multiply it in plain loops on one thread. Attention is such
loops too, and an exponential is a call of libm. `CpuKernels` replaces them in the graph, before they become TVM's
kernels. Ours choose their instruction set when mlc-llm is loaded, so one library is fast on every CPU.
"""

from __future__ import annotations

from typing import Any

from tvm.relax import expr_functor
from tvm.relax.frontend.nn.llm.kv_cache import RopeMode

import tvm
from tvm import relax, tirx

MATMUL, MATMUL_Q4, TAKE_Q4, RMS_NORM, SILU_MULTIPLY, GELU_MULTIPLY, SOFTMAX = (
    f"mlc_bazel.cpu.{name}"
    for name in ("matmul", "matmul_q4", "take_q4", "rms_norm", "silu_multiply", "gelu_multiply", "softmax")
)

ACTIVATIONS = {"relax.nn.silu": SILU_MULTIPLY, "relax.nn.gelu_tanh": GELU_MULTIPLY}
"""Of gates: what multiplies their halves."""

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


def _is_matrix(expression: relax.Expr) -> bool:
    return expression.ty.ndim == 2 and expression.ty.shape is not None


@expr_functor.mutator
class _Rewriter(expr_functor.PyExprMutator):  # type: ignore[misc]
    """Rewrites one module."""

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = super().visit_call_(call)
        if call.op == tvm.ir.Op.get("relax.matmul"):
            return self._product(call)
        if call.op == tvm.ir.Op.get("relax.take"):
            return self._rows(call)
        if call.op == tvm.ir.Op.get("relax.nn.rms_norm"):
            return self._norm(call)
        if call.op == tvm.ir.Op.get("relax.multiply"):
            return self._gate(call)
        if call.args and isinstance(call.args[0], relax.ExternFunc) and call.args[0].global_symbol == CREATE_CACHE:
            return self._cache(call)
        return call

    def _cache(self, call: relax.Call) -> relax.Expr:
        """Gives a KV cache the kernels for attention, unless it rotates in them."""
        key_size, value_size, mode = (int(call.args[position].value) for position in (5, 6, 9))
        plain = key_size == value_size and key_size % HEAD_MULTIPLE == 0 and _dtype(call.args[13]) in FLOATS
        if mode == RopeMode.INLINE or not plain:
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
        if not all(map(_is_matrix, (weights, words, scales))) or _dtype(scales) not in FLOATS:
            return None
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
        axes = made.attrs.axes
        if (
            not _is_matrix(weights)
            or (axes is not None and [int(axis) for axis in axes] != [1, 0])
            or left.ty.ndim < 2
            or call.ty.shape is None
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
        if call.ty.shape is None or _dtype(call) not in FLOATS or _dtype(call.args[1]) != "int32":
            return call
        return relax.call_dps_packed(TAKE_Q4, relax.Tuple([*quantized, call.args[1]]), out_ty=call.ty)

    def _norm(self, call: relax.Call) -> relax.Expr:
        x, weight = call.args
        axes = [int(axis) for axis in call.attrs.axes]
        last = axes in ([-1], [x.ty.ndim - 1]) and weight.ty.ndim == 1 and call.ty.shape is not None
        if not last or not all(_dtype(each) == "float32" for each in (x, weight, call)):
            return call
        epsilon = relax.prim_value(tirx.FloatImm("float64", float(call.attrs.epsilon)))
        return relax.call_dps_packed(RMS_NORM, relax.Tuple([x, weight, epsilon]), out_ty=call.ty)

    def _gate(self, call: relax.Call) -> relax.Expr:
        """Replaces activation(first half) * second half."""
        activated = self._bound(call.args[0])
        name = ACTIVATIONS.get(getattr(getattr(activated, "op", None), "name", ""))
        if name is None or call.ty.shape is None or _dtype(call) != "float32":
            return call
        first, second = (self._bound(each) for each in (activated.args[0], call.args[1]))
        if not all(isinstance(each, relax.TupleGetItem) for each in (first, second)):
            return call
        if (first.index, second.index) != (0, 1) or not first.tuple_value.same_as(second.tuple_value):
            return call
        split = self._bound(first.tuple_value)
        if not (isinstance(split, relax.Call) and split.op == tvm.ir.Op.get("relax.split")):
            return call
        whole = split.args[0]
        halves = len(split.ty.fields) == 2 and int(split.attrs.axis) in (-1, whole.ty.ndim - 1)
        if whole.ty.shape is None:
            return call
        width, half = whole.ty.shape[-1], call.ty.shape[-1]
        if not (
            halves and all(isinstance(each, tirx.IntImm) for each in (width, half)) and int(width) == 2 * int(half)
        ):
            return call
        return relax.call_dps_packed(name, relax.Tuple([whole]), out_ty=call.ty)


@tvm.transform.module_pass(opt_level=0, name="CpuKernels")
class CpuKernels:
    """Replaces products with weights, looking up rows of quantized weights, attention, norms and gates."""

    def transform_module(self, module: tvm.IRModule, _: Any) -> tvm.IRModule:
        rewriter = _Rewriter(module)
        for name, function in module.functions_items():
            if isinstance(function, relax.Function):
                rewriter.builder_.update_func(name, rewriter.visit_expr(function))
        return rewriter.builder_.get()


@tvm.transform.module_pass(opt_level=0, name="AttachSoftmaxWithTemperature")
class _AttachSoftmax:
    """Adds softmax_with_temperature, which mlc-llm's sampler calls.

    (logits: (b, 1, v) float32, temperatures: (b,) float32) -> probabilities: (b, 1, v) float32
    """

    def __init__(self, active: int | None) -> None:
        self._active = active

    def transform_module(self, module: tvm.IRModule, _: Any) -> tvm.IRModule:
        builder = relax.BlockBuilder(module)
        batch, vocabulary = tirx.Var("batch_size", "int64"), tirx.Var("vocab_size", "int64")
        logits = relax.Var("logits", relax.TensorType([batch, 1, vocabulary], "float32"))
        temperatures = relax.Var("temperature", relax.TensorType([batch], "float32"))
        active = relax.prim_value(self._active or vocabulary)
        with builder.function("softmax_with_temperature", params=[logits, temperatures]):
            with builder.dataflow():
                made = relax.call_dps_packed(SOFTMAX, relax.Tuple([logits, temperatures, active]), out_ty=logits.ty)
                result = builder.emit_output(made)
            builder.emit_func_output(result)
        return builder.get()


def install() -> None:
    """Adds the passes to mlc-llm's pipeline for CPUs."""
    from mlc_llm.compiler_pass import pipeline

    products, softmax = pipeline.FuseTransposeMatmul, pipeline.AttachSoftmaxWithTemperature

    def fuse() -> tvm.transform.Pass:
        target = tvm.target.Target.current()
        own = [CpuKernels()] if target is not None and target.kind.name == "llvm" else []
        return tvm.transform.Sequential([*own, products()])

    def attach(target: tvm.target.Target, metadata: dict[str, Any] | None = None) -> tvm.transform.Pass:
        if target.kind.name != "llvm":
            return softmax(target, metadata)
        return _AttachSoftmax((metadata or {}).get("active_vocab_size"))

    pipeline.FuseTransposeMatmul = fuse
    pipeline.AttachSoftmaxWithTemperature = attach
