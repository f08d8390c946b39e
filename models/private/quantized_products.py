"""Products with weights of four bits on GPUs (q4f16_1), where mlc-llm dequantizes in a product that is written for
float16.

* For the tokens of a prompt, the weights are dequantized once, then cuBLAS multiplies.
* For the few rows of decoding, where what is read counts, //src/cuda:four_bits multiplies.
"""

from __future__ import annotations

from typing import Any

from tvm.relax.backend import get_patterns_with_prefix
from tvm.relax.backend.cuda import cublas  # noqa: F401 - registers the patterns
from tvm.relax.expr_functor import PyExprMutator, mutator
from tvm.relax.transform import FusionPattern

import tvm
from models.private.gpu_kernels import Kernels
from tvm import relax

QUANTIZATION = "q4f16_1"

PROMPT_LENGTH = "seq_len"
"""mlc-llm's name of the variable that counts a prompt's tokens. The output layer has as many rows as there are
sequences, under another name.
"""

KERNELS, FUNCTION = "four_bits", "mlc_bazel_four_bit_product"
"""The target in //src/cuda, and its function."""

GROUP, PER_WORD = 32, 8
"""Weights that share a scale, and that a word of 32 bits has."""


def _is_of_a_prompt(rows: Any) -> bool:
    return isinstance(rows, tvm.tirx.Var) and rows.name == PROMPT_LENGTH


def patterns() -> list[FusionPattern]:
    """Returns those of cuBLAS that multiply by a transposed weight, for prompts only."""

    def both(check: Any) -> Any:
        return lambda context: _is_of_a_prompt(context.annotated_expr["lhs"].ty.shape.values[-2]) and check(context)

    return [
        FusionPattern(each.name, each.pattern, each.annotation_patterns, both(each.check), each.attrs_getter)
        for each in get_patterns_with_prefix("cublas.matmul_transposed")
    ]


def _is_call(expression: Any, name: str) -> bool:
    return isinstance(expression, relax.Call) and expression.op == tvm.ir.Op.get(name)


def _dequantizes(expression: Any) -> bool:
    """Whether an expression calls a kernel that dequantizes."""
    return _is_call(expression, "relax.call_tir") and expression.args[0].name_hint.startswith("dequantize")


@tvm.transform.module_pass(opt_level=0, name="DispatchPromptProducts")
class DispatchPromptProducts:
    """Makes products of prompts with dequantized weights calls of cuBLAS."""

    def transform_module(self, module: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        functions = []
        for name, function in module.functions_items():
            found: list[bool] = []
            if isinstance(function, relax.Function):
                relax.analysis.post_order_visit(function, lambda each, found=found: found.append(_dequantizes(each)))
            if any(found):
                functions.append(name.name_hint)
        return tvm.transform.Sequential(
            [
                relax.transform.FuseOpsByPattern(
                    patterns(), bind_constants=False, annotate_codegen=True, entry_functions=functions
                ),
                relax.transform.RunCodegen({}, entry_functions=functions),
            ]
        )(module)


@mutator
class _FourBitProducts(PyExprMutator):
    """Replaces products with dequantized weights by calls of FUNCTION."""

    def __init__(self, module: tvm.IRModule) -> None:
        super().__init__(module)
        self.count = 0

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = self.visit_expr_post_order(call)
        if not _is_call(call, "relax.matmul"):
            return call
        transposed = self.lookup_binding(call.args[1])
        if not _is_call(transposed, "relax.permute_dims") or transposed.attrs.axes is not None:
            return call
        dequantized = self.lookup_binding(transposed.args[0])
        if not _dequantizes(dequantized) or len(dequantized.args[1].fields) != 2:
            return call
        words, scales = dequantized.args[1].fields
        x = call.args[0]
        if not _fit(x.ty, words.ty, scales.ty, dequantized.ty, call.ty) or _is_of_a_prompt(x.ty.shape.values[-2]):
            return call
        self.count += 1
        return relax.call_dps_packed(FUNCTION, [x, words, scales], out_ty=call.ty)


def _fit(x: Any, words: Any, scales: Any, weight: Any, out: Any) -> bool:
    """Whether the types of a product are those of q4f16_1."""
    if (str(x.dtype), str(words.dtype), str(scales.dtype)) != ("float16", "uint32", "float16") or weight.ndim != 2:
        return False
    if str(out.dtype) not in ("float16", "float32") or x.ndim < 2:
        return False
    sizes = [*words.shape.values, *scales.shape.values, *weight.shape.values]
    if not all(isinstance(size, tvm.tirx.IntImm) for size in sizes):
        return False
    rows, inner = map(int, weight.shape.values)
    return [int(size) for size in sizes[:4]] == [rows, inner // PER_WORD, rows, inner // GROUP] and inner % GROUP == 0


@tvm.transform.module_pass(opt_level=0, name="DispatchFourBitProducts")
class DispatchFourBitProducts:
    """Makes other products with such weights calls of our kernels."""

    def __init__(self, kernels: Kernels) -> None:
        self.kernels = kernels

    def transform_module(self, module: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        products = _FourBitProducts(module)
        for name, function in module.functions_items():
            if isinstance(function, relax.Function):
                products.builder_.update_func(name, relax.analysis.remove_all_unused(products.visit_expr(function)))
        made = products.builder_.get()
        return self.kernels.added(made, KERNELS) if products.count else made


def install(kernels: Kernels) -> None:
    """Adds the passes to mlc-llm's pipeline, before its own fusion of what dequantizes and multiplies."""
    from mlc_llm.compiler_pass import pipeline

    original = pipeline.FuseDequantizeTranspose
    passes = [DispatchPromptProducts(), DispatchFourBitProducts(kernels)]
    pipeline.FuseDequantizeTranspose = lambda: tvm.transform.Sequential([original(), *passes])
