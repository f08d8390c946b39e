"""Makes a step of decoding one CUDA graph, with the attention in it (//src/tvm:graph_steps.h).

TVM captures what is between two calls of its paged KV cache, so a model with 16 layers launches 17 graphs a step, and
each layer's attention. Here `decode` and `batch_decode` have two forms: one whose attention is captured too, and TVM's
for the steps that fit no graph.
"""

from __future__ import annotations

from collections.abc import Callable

from tvm.relax.expr_functor import PyExprMutator, mutator

import tvm
from models.private.flashinfer_kernels import Attention
from tvm import relax

FUNCTIONS = ("decode", "batch_decode")
"""mlc-llm's functions for a step."""

SETTING = "relax.backend.use_cuda_graph"
"""TVM's setting that makes its pipelines capture graphs."""

ATTENTION = "vm.builtin.attention_kv_cache_attention_with_fused_qkv"
BEGIN, COPY, IN_STEP = "mlc_bazel.begin_step", "mlc_bazel.copy_into_step", "mlc_bazel.attention_in_step"


def _calls_attention(expression: relax.Expr) -> bool:
    """Whether an expression is the attention of a layer."""
    return (
        isinstance(expression, relax.Call)
        and expression.op == tvm.ir.Op.get("relax.call_dps_packed")
        and expression.args[0].global_symbol == ATTENTION
    )


@mutator
class _InStep(PyExprMutator):
    """Replaces attention by that of the step's cache, and a variable by another."""

    def __init__(self, module: tvm.IRModule, old: relax.Var, new: relax.Var) -> None:
        super().__init__(module)
        self.old, self.new = old, new

    def visit_var_(self, variable: relax.Var) -> relax.Expr:
        return self.new if variable.same_as(self.old) else super().visit_var_(variable)

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = self.visit_expr_post_order(call)
        if not _calls_attention(call):
            return call
        return relax.call_dps_packed(IN_STEP, list(call.args[1].fields[1:]), out_ty=call.ty)


def _in_graph(module: tvm.IRModule, function: relax.Function) -> relax.Function:
    """The form for a graph. What a graph reads must stay in place, so the input is copied first."""
    function = relax.utils.copy_with_new_vars(function)
    embedding = function.params[0]
    copied = relax.Var("embedding_in_step", embedding.ty)
    body = _InStep(module, embedding, copied).visit_expr(function.body)
    copy = relax.call_dps_packed(COPY, [embedding], out_ty=embedding.ty)
    blocks = [relax.BindingBlock([relax.VarBinding(copied, copy)]), *body.blocks]
    return relax.Function(
        function.params, relax.SeqExpr(blocks, body.body), function.ret_ty, function.is_pure, function.attrs
    )


def _either(function: relax.Function, forms: list[tvm.ir.GlobalVar]) -> relax.Function:
    """A function that calls the first form if the step fits a graph, otherwise the second."""
    function = relax.utils.copy_with_new_vars(function)
    fits = relax.Var("fits", relax.TensorType((), "bool"))
    begin = relax.Call(
        tvm.ir.Op.get("relax.call_builtin_with_ctx"),
        [relax.ExternFunc(BEGIN), relax.Tuple([function.params[1], function.params[0]])],
        ty_args=[fits.ty],
    )
    branches = []
    for form in forms:
        made = relax.Var("made", function.ret_ty)
        called = relax.Call(form, list(function.params))
        branches.append(relax.SeqExpr([relax.BindingBlock([relax.VarBinding(made, called)])], made))
    result = relax.Var("result", function.ret_ty)
    bindings = [relax.VarBinding(fits, begin), relax.VarBinding(result, relax.If(fits, *branches))]
    body = relax.SeqExpr([relax.BindingBlock(bindings)], result)
    return relax.Function(function.params, body, function.ret_ty, False, function.attrs)


@tvm.transform.module_pass(opt_level=0, name="MakeGraphSteps")
class MakeGraphSteps:
    """Gives a model's functions for a step both forms, before TVM plans their memory."""

    def __init__(self, is_wanted: Callable[[], bool]) -> None:
        """
        Args:
            is_wanted: whether a graph is captured and can hold the model's attention, known when the pass runs.
        """
        self.is_wanted = is_wanted

    def transform_module(self, module: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        if not self.is_wanted():
            return module
        builder = relax.BlockBuilder(module)
        for variable, function in module.functions_items():
            name = variable.name_hint
            if name not in FUNCTIONS or not isinstance(function, relax.Function):
                continue
            caches: list[relax.Expr] = []

            def visit(each: relax.Expr, caches: list[relax.Expr] = caches) -> None:
                if _calls_attention(each):
                    caches.append(each.args[1].fields[0])

            relax.analysis.post_order_visit(function, visit)
            # A step begins with the second parameter; no other cache may be in it.
            if not caches or not all(cache.same_as(function.params[1]) for cache in caches):
                continue
            private = function.without_attr("global_symbol")
            # The attribute tells a form from the function, which the builder would otherwise take for it.
            forms = [
                builder.add_func(form.with_attr("mlc_bazel.form_of", name), f"{name}_{suffix}")
                for suffix, form in (("in_graph", _in_graph(module, private)), ("by_layer", private))
            ]
            builder.update_func(variable, _either(function, forms))
        return relax.transform.Normalize()(builder.get())


def install(attention: Attention) -> None:
    """Adds the pass to mlc-llm's pipeline, after the passes on graphs and kernels."""
    from mlc_llm.compiler_pass import pipeline

    def is_wanted() -> bool:
        return attention.used and tvm.transform.PassContext.current().config.get(SETTING, False)

    original = pipeline.PipelineParallelRewrite
    pipeline.PipelineParallelRewrite = lambda: tvm.transform.Sequential([original(), MakeGraphSteps(is_wanted)])
