"""What the pinned mlc_llm needs from our side to run on the pinned TVM.

Importing this module changes nothing. :func:`install` applies every change; it must run before a
command of mlc_llm does its work. Each change is one function or class, which says why it is there
and when it can go. No upstream file is edited.

``python compat.py compile ...`` runs a command of mlc_llm with the changes in place.
"""

from __future__ import annotations

import json
import math
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import tvm
from tvm import s_tir, tirx
from tvm.s_tir import dlight

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


class RowGEMV(dlight.cpu.GEMV):
    """A matrix-vector product for CPUs that compiles in a moment and reads memory in order.

    The schedule in TVM turns 64 to 128 *rows* of the matrix into one vector and unrolls the
    reduction. As the rows are not adjacent in memory, LLVM must split each such vector into single
    loads: 2 MB of code for a 128 by 64 matrix, 9 seconds of compilation for AVX2 and 39 for
    AVX-512. Here the vector runs along a row, and the lanes are added up at the end.
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


SAFETENSORS_DTYPES: dict[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


def read_safetensors(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the tensors of a safetensors file, mapped from the file rather than read.

    mlc_llm goes through torch, a gigabyte of dependency, only to turn its tensors into NumPy
    arrays. The format is a JSON header followed by the raw data.
    """
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header: dict[str, Any] = json.loads(file.read(length))
    header.pop("__metadata__", None)
    data = np.memmap(path, np.uint8, mode="r", offset=8 + length) if header else None
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        array = np.asarray(data)[begin:end].view(SAFETENSORS_DTYPES[entry["dtype"]])
        yield name, array.reshape(entry["shape"])


def install() -> None:
    """Apply all changes. Imports mlc_llm, and with it the native library."""
    restore_var_name_hint()
    # The pipeline looks the rule up by this name each time it runs.
    dlight.cpu.GEMV = RowGEMV

    from mlc_llm.loader import huggingface_loader

    huggingface_loader.load_safetensor_shard = read_safetensors


def main() -> None:
    """Run a command of mlc_llm."""
    install()
    from mlc_llm.__main__ import main as run

    sys.argv[0] = "mlc_llm"
    run()


if __name__ == "__main__":
    main()
