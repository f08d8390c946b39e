"""Changes that let the pinned mlc-llm run on the pinned TVM and compile models reproducibly.

Importing this module changes nothing; `install` applies every change. Each is one function or class, which says why it
exists and when it can be removed. It edits no upstream file.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

# This registers a function that mlc-llm registers too. Only mlc-llm's may override another, so TVM's must come first.
import tvm.runtime.disco
from tvm.relax.frontend import nn
from tvm.s_tir import dlight

import tvm
from tvm import s_tir, tirx

from . import shape_functions, versions  # type: ignore[attr-defined]  # written by the build
from .model_check import CPU_KEY, METADATA_KEY

LANES = 16
"""Partial sums per output row: one AVX-512 register of float32, two of AVX2, four of SSE or NEON."""

ROWS_PER_TASK = 64
"""Output rows that a thread processes at a time. Fewer rows run on one thread."""


def restore_var_name_hint() -> None:
    """Restores the former attribute ``name_hint`` of variables.

    TVM 0.26 renamed it to ``name``, but the compiler passes of the pinned mlc_llm read the old name. Remove this once
    mlc_llm reads ``name``.
    """
    if not hasattr(tirx.Var, "name_hint"):
        tirx.Var.name_hint = property(lambda var: var.name)


def restore_buffer_map() -> None:
    """Restores the former attribute ``buffer_map`` of kernels.

    It mapped parameters to buffers. Since TVM 0.26 a parameter is its buffer, but mlc_llm's passes for GPUs and for
    quantized weights read the old map. Remove this once they read the parameters.
    """
    if not hasattr(tirx.PrimFunc, "buffer_map"):
        tirx.PrimFunc.buffer_map = property(
            lambda function: {parameter: parameter for parameter in function.params if tirx.is_buffer_var(parameter)}
        )


def lift_global_buffers(function: tirx.PrimFunc) -> tuple[tirx.PrimFunc, list[tvm.relax.TensorType]]:
    """Turns the global-memory buffers that a kernel allocates into parameters after its outputs.

    GPUs cannot allocate memory in kernels. This replaces mlc_llm's function, which needs TVM's former `buffer_map`.
    Remove it together with `restore_buffer_map`.

    Returns:
        The kernel and the type of each new parameter, or the unchanged kernel and an empty list.
    """
    root = function.body.block
    lifted = [buffer for buffer in root.alloc_buffers if buffer.scope() == "global"]
    if not lifted:
        return function, []
    parameters = list(function.params)
    # Numbers follow the outputs.
    end = max(position for position, parameter in enumerate(parameters, start=1) if tirx.is_buffer_var(parameter))
    block = tirx.SBlock(
        iter_vars=[],
        reads=[],
        writes=[],
        name_hint=root.name_hint,
        body=root.body,
        alloc_buffers=[buffer for buffer in root.alloc_buffers if buffer.scope() != "global"],
        annotations=root.annotations,
    )
    body = tirx.SBlockRealize(iter_values=[], predicate=True, block=block)
    kernel = tirx.PrimFunc([*parameters[:end], *lifted, *parameters[end:]], body, function.ret_type, function.attrs)
    return kernel, [tvm.relax.TensorType(buffer.shape, buffer.dtype) for buffer in lifted]


class RowGEMV(dlight.cpu.GEMV):
    """A schedule of matrix-vector products for CPUs that compiles quickly and reads memory in order.

    TVM's schedule turns 64 to 128 *rows* of the matrix into one vector and unrolls the reduction. Because rows are not
    adjacent in memory, LLVM must split each vector into single loads: 2 MB of LLVM IR for a 128 by 64 matrix, which
    takes 9 seconds to compile for AVX2 and 39 for AVX-512, and minutes for a model with a few such shapes. Here the
    vector runs along a row, and the lanes are added at the end, which is also twice as fast on a 4096 by 4096 matrix.
    Remove this once TVM's rule limits its vectors to the size of a register.
    """

    def sch_inner_reduction(
        self,
        sch: s_tir.Schedule,
        target: tvm.target.Target,
        block: s_tir.schedule.SBlockRV,
        vector_input_buffers: list[tirx.Buffer],
        epilogue_info: Any,
    ) -> s_tir.Schedule | None:
        """Schedules a product whose matrix is contiguous along the reduction."""
        _, _, outer, inner = sch.get_loops(block)
        extents = [sch.get(loop).extent for loop in (outer, inner)]
        if not all(isinstance(extent, tirx.IntImm) for extent in extents):
            return None
        length = math.prod(int(extent) for extent in extents)
        lanes = math.gcd(LANES, length)
        if lanes in (1, length):
            return None  # No gain: LLVM handles plain loops well.
        _, lane = sch.split(sch.fuse(outer, inner), factors=[None, lanes])
        partial = sch.rfactor(lane, factor_axis=0)
        # The product is now two blocks: one sum per lane, then the sum of the lanes (`block`).
        row = sch.get_loops(block)[1]
        rows = sch.get(row).extent
        if not isinstance(rows, tirx.IntImm) or int(rows) > ROWS_PER_TASK:
            task, row = sch.split(row, factors=[None, ROWS_PER_TASK])
            sch.parallel(task)
        sch.compute_at(partial, row)
        *_, lane, step = sch.get_loops(partial)
        sch.reorder(step, lane)
        sch.vectorize(lane)
        start = sch.decompose_reduction(partial, step)
        sch.vectorize(sch.get_loops(start)[-1])
        return sch


def find_safetensors(folder: Path) -> Path | None:
    """Returns the weights of a checkpoint: the index of several files, else the single file.

    mlc-llm writes an index next to a single file, which needs torch.
    """
    for name in ("model.safetensors.index.json", "model.safetensors"):
        if (folder / name).is_file():
            return folder / name
    return None


def numbers_before_outputs(function: tirx.PrimFunc, outputs: int) -> tirx.PrimFunc:
    """Moves a kernel's numbers before its outputs if they come last.

    Args:
        function: the kernel.
        outputs: the number of outputs among its parameters.
    """
    parameters = list(function.params)
    numbers = sum(isinstance(parameter.ty, tvm.ir.PrimType) for parameter in parameters)
    if not numbers or not all(isinstance(parameter.ty, tvm.ir.PrimType) for parameter in parameters[-numbers:]):
        return function
    first_output = len(parameters) - numbers - outputs
    ordered = [*parameters[:first_output], *parameters[-numbers:], *parameters[first_output:-numbers]]
    return tirx.PrimFunc(ordered, function.body, function.ret_type, function.attrs)


def widen_numbers(function: tirx.PrimFunc, arguments: list[Any]) -> tirx.PrimFunc:
    """Makes a kernel accept the numbers that it gets in their own width and narrow them itself.

    Args:
        function: the kernel.
        arguments: its arguments in the order of its parameters: tensors, and numbers as expressions.
    """
    parameters = list(function.params)
    narrowed = {}
    for position, (parameter, argument) in enumerate(zip(parameters, arguments)):
        if (
            tvm.ir.is_prim_expr(argument)
            and isinstance(parameter.ty, tvm.ir.PrimType)
            and argument.ty.dtype != parameter.ty.dtype
        ):
            parameters[position] = tirx.Var(parameter.name, argument.ty.dtype)
            narrowed[parameter] = parameters[position].astype(parameter.ty.dtype)
    if not narrowed:
        return function
    return tirx.PrimFunc(
        parameters, tirx.stmt_functor.substitute(function.body, narrowed), function.ret_type, function.attrs
    )


def call_with_numbers_as_kernels_take_them(upstream: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps TVM's `tensor_ir_op` for mlc-llm's mixture-of-experts kernels and its sampler on GPUs.

    Since TVM 0.26 it passes numbers before outputs, but kernels of the pinned mlc-llm take them last, so Mixtral,
    DeepSeek, Qwen2-MoE and Phi-3-vision do not compile. Since then a number must also have the type of its parameter,
    but the sampler passes 64 bits for 32. Remove this once mlc-llm follows TVM.
    """

    @functools.wraps(upstream)
    def tensor_ir_op(func: tirx.PrimFunc, name_hint: str, args: Any, out: Any) -> Any:
        outputs = len(out) if isinstance(out, (list, tuple)) else 1
        arguments: list[Any] = []
        for argument in args if isinstance(args, (list, tuple)) else [args]:
            arguments.extend(argument.values if isinstance(argument, tvm.relax.ShapeExpr) else [argument])
        return upstream(widen_numbers(numbers_before_outputs(func, outputs), arguments), name_hint, args, out)

    return tensor_ir_op


def cpu_of(target: tvm.target.Target) -> str:
    """The CPU that a target is for, as `cpu_target` in //models:defs.bzl names it."""
    name = str(target.attrs.get("mcpu", ""))
    if not str(target.attrs.get("mtriple", "")).startswith("aarch64") or name != "generic":
        return name
    return "armv8.2-a+dotprod" if "+dotprod" in target.attrs.get("mattr", []) else "armv8-a"


def get_stamped_pipeline(upstream: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps TVM's `get_pipeline` to write TVM's version and the CPU into the metadata of models that mlc-llm compiles.

    `model_check` compares them before loading a model. Upstream's libraries do not say what they were compiled for.
    """

    @functools.wraps(upstream)
    def get_pipeline(name: str = "zero", **options: Any) -> Any:
        if name == "mlc_llm" and options.get("metadata") is not None:
            options["metadata"][METADATA_KEY] = versions.TVM
            target = options["target"]
            options["metadata"][CPU_KEY] = cpu_of(target.host or target)
        return upstream(name, **options)

    return get_pipeline


def install() -> None:
    """Applies all changes. Imports mlc_llm, and with it the native library."""
    restore_var_name_hint()
    restore_buffer_map()
    nn.op.tensor_ir_op = nn.tensor_ir_op = call_with_numbers_as_kernels_take_them(nn.op.tensor_ir_op)
    tvm.relax.get_pipeline = get_stamped_pipeline(tvm.relax.get_pipeline)
    # mlc_llm's pipeline looks it up by this name on every run.
    dlight.cpu.GEMV = RowGEMV
    shape_functions.install()

    from mlc_llm.compiler_pass import lift_global_buffer_alloc
    from mlc_llm.support import auto_weight

    lift_global_buffer_alloc.remove_global_buf_alloc = lift_global_buffers
    auto_weight.CHECK_FORMAT_METHODS["huggingface-safetensor"] = find_safetensors
