"""Products with weights of four bits on GPUs (q4f16_1), where mlc-llm dequantizes in a product that is written for
float16.

* For the tokens of a prompt, the weights are dequantized once, then cuBLAS multiplies.
* For the few rows of decoding, of drafts and of the output layer, where what is read counts, //src/cuda:four_bits
  multiplies.
"""

from __future__ import annotations

from typing import Any

import tvm_ffi
from tvm.relax.backend import get_patterns_with_prefix
from tvm.relax.backend.cuda import cublas  # noqa: F401 - registers the patterns
from tvm.relax.expr_functor import PyExprMutator, mutator
from tvm.relax.transform import FusionPattern

import tvm
from models.private.gpu_kernels import Kernels
from tvm import relax

PROMPT, PROMPT_LENGTH = "prefill", "seq_len"
"""What names of mlc-llm's functions for prompts contain, and the variable that counts a prompt's tokens. The output
layer has as many rows there as there are sequences, under another name.
"""

FEW_ROWS = ("prefill", "decode", "verify", "logits")
"""What names of functions contain whose other products have few rows. Encoders of images have others."""

KERNELS, FUNCTION = "four_bits", "mlc_bazel_four_bit_product"
"""The target in //src/cuda, and its function."""

GROUP, PER_WORD = 32, 8
"""Weights that share a scale, and that a word of 32 bits has."""


def _is_of_a_prompt(x: Any) -> bool:
    """Whether one of the dimensions that make up a product's rows counts a prompt's tokens."""
    return any(isinstance(size, tvm.tirx.Var) and size.name == PROMPT_LENGTH for size in x.ty.shape.values[:-1])


def patterns() -> list[FusionPattern]:
    """Returns those of cuBLAS that multiply by a transposed weight, for prompts only."""

    def both(check: Any) -> Any:
        return lambda context: _is_of_a_prompt(context.annotated_expr["lhs"]) and check(context)

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
            if isinstance(function, relax.Function) and PROMPT in name.name_hint:
                relax.analysis.post_order_visit(function, lambda each, found=found: found.append(_dequantizes(each)))
            if any(found):
                functions.append(name.name_hint)
        if not functions:  # An empty list would mean all.
            return module
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
        self.is_prompt = False

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
        if not _fit(x.ty, words.ty, scales.ty, dequantized.ty, call.ty) or (self.is_prompt and _is_of_a_prompt(x)):
            return call
        self.count += 1
        return relax.call_dps_packed(FUNCTION, [x, words, scales], out_ty=call.ty)


def _fit(x: Any, words: Any, scales: Any, weight: Any, out: Any) -> bool:
    """Whether the types of a product are those of q4f16_1."""
    if (str(x.dtype), str(words.dtype), str(scales.dtype)) != ("float16", "uint32", "float16") or weight.ndim != 2:
        return False
    if str(out.dtype) not in ("float16", "float32") or x.ndim < 2:
        return False
    if words.ndim != 2 or scales.ndim != 2:
        return False
    # Rows may be symbolic: the output layer's are, in many models.
    rows = [each.shape.values[0] for each in (words, scales, weight)]
    inner = [each.shape.values[1] for each in (words, scales, weight)]
    if not all(tvm_ffi.structural_equal(each, rows[0]) for each in rows):
        return False
    if not all(isinstance(size, tvm.tirx.IntImm) for size in inner):
        return False
    packed, groups, full = map(int, inner)
    return full % GROUP == 0 and packed * PER_WORD == groups * GROUP == full


@tvm.transform.module_pass(opt_level=0, name="DispatchFourBitProducts")
class DispatchFourBitProducts:
    """Makes other products with such weights calls of our kernels."""

    def __init__(self, kernels: Kernels) -> None:
        self.kernels = kernels

    def transform_module(self, module: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        products = _FourBitProducts(module)
        for name, function in module.functions_items():
            if isinstance(function, relax.Function) and any(each in name.name_hint for each in FEW_ROWS):
                products.is_prompt = PROMPT in name.name_hint
                products.builder_.update_func(name, relax.analysis.remove_all_unused(products.visit_expr(function)))
        made = products.builder_.get()
        return self.kernels.added(made, KERNELS) if products.count else made


def install(kernels: Kernels) -> None:
    """Adds the passes to mlc-llm's pipeline, before its own fusion of what dequantizes and multiplies."""
    from mlc_llm.compiler_pass import pipeline

    original = pipeline.FuseDequantizeTranspose
    passes = [DispatchPromptProducts(), DispatchFourBitProducts(kernels)]
    pipeline.FuseDequantizeTranspose = lambda: tvm.transform.Sequential([original(), *passes])
