"""What the pinned mlc-llm needs from this build to run on the pinned TVM, and to come out the same every time.

Importing this module changes nothing; `install` applies every change. Each is one function or class that says why it is
there and when it can
go. No file of upstream is edited.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 - registers the types' names with NumPy
import numpy as np

# It registers a function that mlc-llm registers too, with leave to take another's place: whoever imports TVM's after
# mlc-llm gets an error.
import tvm.runtime.disco
from tvm.relax.frontend import nn
from tvm.s_tir import dlight

import tvm
from mlc_llm import libinfo
from tvm import s_tir, tirx

from . import pairing, shape_functions, versions  # type: ignore[attr-defined]  # written by the build
from .model_check import METADATA_KEY

LANES = 16
"""Partial sums per output row: one AVX-512 register of float32, two AVX2, four SSE or NEON."""

ROWS_PER_TASK = 64
"""Output rows that one thread takes at a time; fewer rows than this run on one thread."""


def restore_var_name_hint() -> None:
    """Give variables their former attribute ``name_hint`` back.

    TVM renamed it to ``name`` (release 0.26); the compiler passes of the pinned mlc_llm read the
    old name. Can go once mlc_llm reads ``name``.
    """
    if not hasattr(tirx.Var, "name_hint"):
        tirx.Var.name_hint = property(lambda var: var.name)


def restore_buffer_map() -> None:
    """Give kernels their former attribute ``buffer_map`` back.

    It told the buffer of a parameter; since release 0.26 a parameter is its buffer. The passes of the pinned mlc_llm
    for GPUs, and those for
    quantised weights, read the old map. Can go once they read the parameters.
    """
    if not hasattr(tirx.PrimFunc, "buffer_map"):
        tirx.PrimFunc.buffer_map = property(
            lambda function: {parameter: parameter for parameter in function.params if tirx.is_buffer_var(parameter)}
        )


def lift_global_buffers(function: tirx.PrimFunc) -> tuple[tirx.PrimFunc, list[tvm.relax.TensorType]]:
    """Turn the buffers in global memory that a kernel allocates into parameters, after its outputs: a GPU has no
    allocator inside kernels.

    In place of mlc_llm's own, which makes the kernel with TVM's former `buffer_map`. Can go when `restore_buffer_map`
    goes.

    Returns:
        The kernel, and the type of each new parameter; the same kernel and nothing if there is none.
    """
    root = function.body.block
    lifted = [buffer for buffer in root.alloc_buffers if buffer.scope() == "global"]
    if not lifted:
        return function, []
    parameters = list(function.params)
    # Numbers stand behind the outputs.
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
    """A matrix-vector product for CPUs that compiles in a moment and reads memory in order.

    The schedule in TVM turns 64 to 128 *rows* of the matrix into one vector and unrolls the
    reduction. As the rows are not adjacent in memory, LLVM must split each such vector into single
    loads: 2 MB of LLVM IR for a 128 by 64 matrix, 9 seconds of compilation for AVX2 and 39 for
    AVX-512; a model with a few such shapes takes minutes. Here the vector runs along a row, and the
    lanes are added up at the end, which is also twice as fast on a 4096 by 4096 matrix. Can go once
    the rule in TVM keeps its vectors to the size of a register.
    """

    def sch_inner_reduction(
        self,
        sch: s_tir.Schedule,
        target: tvm.target.Target,
        block: s_tir.schedule.SBlockRV,
        vector_input_buffers: list[tirx.Buffer],
        epilogue_info: Any,
    ) -> s_tir.Schedule | None:
        """Schedule a product whose matrix is contiguous along the reduction."""
        _, _, outer, inner = sch.get_loops(block)
        extents = [sch.get(loop).extent for loop in (outer, inner)]
        if not all(isinstance(extent, tirx.IntImm) for extent in extents):
            return None
        length = math.prod(int(extent) for extent in extents)
        lanes = math.gcd(LANES, length)
        if lanes in (1, length):
            return None  # Nothing to gain: plain loops, which LLVM handles well.
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


def read_safetensors(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the tensors of a safetensors file: mlc-llm goes through torch, a gigabyte of dependency, only to turn its
    tensors into NumPy's.

    Types that NumPy has not, bfloat16 and float8, are those of ml_dtypes, which registers their names.
    """
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        for name in file.keys():  # noqa: SIM118 (it is no dict)
            yield name, file.get_tensor(name)


def find_safetensors(folder: Path) -> Path | None:
    """The weights of a checkpoint: the index of several files, else the one file. mlc-llm writes an index beside the
    one, by way of torch.
    """
    for name in ("model.safetensors.index.json", "model.safetensors"):
        if (folder / name).is_file():
            return folder / name
    return None


def numbers_before_outputs(function: tirx.PrimFunc, outputs: int) -> tirx.PrimFunc:
    """Put a kernel's numbers before its outputs, if it takes them last.

    Args:
        function: the kernel.
        outputs: how many of its parameters are outputs.
    """
    parameters = list(function.params)
    numbers = sum(isinstance(parameter.ty, tvm.ir.PrimType) for parameter in parameters)
    if not numbers or not all(isinstance(parameter.ty, tvm.ir.PrimType) for parameter in parameters[-numbers:]):
        return function
    first_output = len(parameters) - numbers - outputs
    ordered = [*parameters[:first_output], *parameters[-numbers:], *parameters[first_output:-numbers]]
    return tirx.PrimFunc(ordered, function.body, function.ret_type, function.attrs)


def widen_numbers(function: tirx.PrimFunc, arguments: list[Any]) -> tirx.PrimFunc:
    """Let a kernel take the numbers that it gets as wide as they come, and narrow them itself.

    Args:
        function: the kernel.
        arguments: what it is called with, in the order of its parameters: tensors, and numbers as expressions.
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
    """TVM's `tensor_ir_op` for mlc-llm's kernels of mixtures of experts, and for its sampler on GPUs.

    Since release 0.26 it passes numbers before outputs; the pinned mlc-llm's kernels take them last, and Mixtral,
    DeepSeek, Qwen2-MoE and Phi-3-vision
    do not compile. Since the same release a number must have the type of the parameter; the sampler passes 64 bits for
    32. Can go once
    mlc-llm's do as TVM's.
    """

    @functools.wraps(upstream)
    def tensor_ir_op(func: tirx.PrimFunc, name_hint: str, args: Any, out: Any) -> Any:
        outputs = len(out) if isinstance(out, (list, tuple)) else 1
        arguments: list[Any] = []
        for argument in args if isinstance(args, (list, tuple)) else [args]:
            arguments.extend(argument.values if isinstance(argument, tvm.relax.ShapeExpr) else [argument])
        return upstream(widen_numbers(numbers_before_outputs(func, outputs), arguments), name_hint, args, out)

    return tensor_ir_op


def get_stamped_pipeline(upstream: Callable[..., Any]) -> Callable[..., Any]:
    """TVM's `get_pipeline`, which writes the version of TVM into the metadata of a model that mlc-llm compiles.

    `model_check` compares it before it loads the model; upstream's libraries do not say what they were compiled for.
    """

    @functools.wraps(upstream)
    def get_pipeline(name: str = "zero", **options: Any) -> Any:
        if name == "mlc_llm" and options.get("metadata") is not None:
            options["metadata"][METADATA_KEY] = versions.TVM
        return upstream(name, **options)

    return get_pipeline


def install() -> None:
    """Apply all changes. Imports mlc_llm, and with it the native library."""
    restore_var_name_hint()
    restore_buffer_map()
    nn.op.tensor_ir_op = nn.tensor_ir_op = call_with_numbers_as_kernels_take_them(nn.op.tensor_ir_op)
    # Upstream's is a placeholder.
    libinfo.__version__ = pairing.own_version() or libinfo.__version__
    tvm.relax.get_pipeline = get_stamped_pipeline(tvm.relax.get_pipeline)
    # The pipeline of mlc_llm looks it up by this name each time it runs.
    dlight.cpu.GEMV = RowGEMV
    shape_functions.install()

    from mlc_llm.compiler_pass import lift_global_buffer_alloc
    from mlc_llm.loader import huggingface_loader
    from mlc_llm.support import auto_weight

    lift_global_buffer_alloc.remove_global_buf_alloc = lift_global_buffers
    huggingface_loader.load_safetensor_shard = read_safetensors
    auto_weight.CHECK_FORMAT_METHODS["huggingface-safetensor"] = find_safetensors
