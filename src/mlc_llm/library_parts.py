"""What a model's library calls, read from the file's bytes without loading it. Needs neither TVM nor mlc-llm."""

from __future__ import annotations

import dataclasses
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

READ_BYTES = 16 << 20
"""Part of a library to read at once. A model's library may have gigabytes."""

OVERLAP = 256
"""More bytes than any text that is searched for in a library."""


@dataclasses.dataclass(frozen=True)
class CudaPart:
    """A part of tvm_cuda that a library may call.

    Attributes:
        title: NVIDIA's name of what the part calls.
        name: tvm_cuda's name of it, as in `tvm_cuda.status()`.
        function: one that the part registers.
    """

    title: str
    name: str
    function: str


def _module(kind: str) -> bytes:
    """Returns how a library names the kind of a module in it (TVM's src/runtime/library_module.cc)."""
    return struct.pack("<Q", len(kind)) + kind.encode()


CUDA = CudaPart("CUDA", "device runtime", "device_api.cuda")
CUBLAS = CudaPart("cuBLAS", "cublas", "ffi.Module.load_from_bytes.cublas_json")
NCCL = CudaPart("NCCL", "nccl", "runtime.disco.nccl.allreduce")
CUDA_PARTS = (CUDA, CUBLAS, NCCL)

MARKS = {
    _module("cuda"): CUDA,
    # FlashInfer's kernels, for example.
    b"\0libcudart.so.13\0": CUDA,
    _module("cublas_json"): CUBLAS,
}
"""Bytes of a library → what it calls."""

SPLIT = ("tensor_parallel_shards", "pipeline_parallel_stages")
"""In a model's metadata: the GPUs that share each layer, and those that have one layer after another."""

_PROCESSES = re.compile(rb'"(?:%s)": (\d{1,9})' % "|".join(SPLIT).encode())


def read(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yields the file from its start in parts, each with its position and OVERLAP bytes of the one before.

    All of it would be gigabytes, and a part of a mapped file that cannot be read kills the process.
    """
    position, part = 0, b""
    file.seek(0)
    while more := file.read(READ_BYTES):
        kept = part[-OVERLAP:]
        part, start = kept + more, position - len(kept)
        position += len(more)
        yield start, part


def called(part: bytes) -> set[CudaPart]:
    """Returns what a library calls, going by this part of it."""
    found = {cuda_part for mark, cuda_part in MARKS.items() if mark in part}
    return found | ({NCCL} if any(int(number) > 1 for number in _PROCESSES.findall(part)) else set())


def calls(library: Path) -> list[CudaPart]:
    """Returns what a library calls, in the order of CUDA_PARTS.

    Raises:
        OSError: the file cannot be read.
    """
    found: set[CudaPart] = set()
    with library.open("rb") as file:
        for _, part in read(file):
            found |= called(part)
    return in_order(found)


def in_order(parts: set[CudaPart]) -> list[CudaPart]:
    """Returns parts as CUDA_PARTS has them. A library without CUDA code does not use NCCL."""
    if CUBLAS in parts:
        parts = {CUDA, *parts}
    return [part for part in CUDA_PARTS if part in parts] if CUDA in parts else []
