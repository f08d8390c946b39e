"""Builds libraries with machine code for a GPU on a machine without one.

TVM compiles its CUDA source in its CUDA runtime, which does not load without a driver. TVM then saves the source, and
the machine that loads the library would have to compile it, but servers have no compiler. Here nvcc compiles it at
build time. The bytes are those that the CUDA runtime would have saved.

    python -m models.private.cuda_modules TARGET CUBLAS_MODULES mlc_llm compile ...

CUBLAS_MODULES is the library that saves calls of cuBLAS.
"""

from __future__ import annotations

import json
import runpy
import struct
import sys
from pathlib import Path

import tvm_ffi
from tvm.support import nvcc  # noqa: F401 - registers a function that is called by name below

import tvm
from models.private import cublas_graphs

LENGTH = struct.Struct("<Q")
"""TVM's encoding of a length (src/support/bytes_io.h)."""

SOURCE, MACHINE_CODE = b"cuda", b"cubin"
"""TVM's names for forms of a CUDA module. The second includes fat binaries."""


class NvccError(Exception):
    """nvcc rejects a kernel. The message is its output, then one line."""


class Reader:
    """Reads the format of TVM's streams."""

    def __init__(self, data: bytes) -> None:
        self.data, self.position = data, 0

    def number(self) -> int:
        (value,) = LENGTH.unpack_from(self.data, self.position)
        self.position += LENGTH.size
        return value

    def block(self, item_size: int = 1) -> bytes:
        """Reads the next string or vector: the number of items, then the items."""
        size = self.number() * item_size
        self.position += size
        return self.data[self.position - size : self.position]


def block(data: bytes) -> bytes:
    """Encodes a string like TVM."""
    return LENGTH.pack(len(data)) + data


def compile_source(source: bytes, target: tvm.target.Target) -> bytes:
    """Compiles the CUDA source of a module like TVM's CUDA runtime.

    Raises:
        NvccError: nvcc fails.
    """
    with target:
        try:
            return bytes(tvm_ffi.get_global_func("tvm_callback_cuda_compile")(source.decode()))
        except RuntimeError as error:
            # The message is the source of all kernels, this line, and the output of nvcc.
            said = str(error).rpartition("\nCompilation error:\n")[2].rstrip()
            raise NvccError(f"{said}\nnvcc failed on the kernels for {target.attrs['arch']}, see above") from None


def with_machine_code(module: bytes, target: tvm.target.Target) -> bytes:
    """Replaces the source in a saved CUDA module by machine code.

    Args:
        module: form, table of functions, code (CUDAModuleNode::SaveToBytes in TVM's
          src/backend/cuda/runtime/cuda_module.cc).
        target: the target to compile for.

    Raises:
        ValueError: the module has another format.
    """
    reader = Reader(module)
    if reader.block() != SOURCE:
        return module
    start = reader.position
    # The table of FunctionInfo (src/runtime/metadata.h): the name twice, argument types, launch tags, argument tags.
    for _ in range(reader.number()):
        reader.block()
        reader.block()
        reader.block(item_size=4)
        for _ in range(reader.number()):
            reader.block()
        reader.block(item_size=4)
    table = module[start : reader.position]
    source = reader.block()
    if reader.position != len(module):
        raise ValueError(
            "expected a saved CUDA module in the format of TVM 0.26, found another: see SaveToBytes in cuda_module.cc"
        )
    return block(MACHINE_CODE) + table + block(compile_source(source, target))


def compile_imports(blob: bytes, target: tvm.target.Target) -> bytes:
    """Replaces CUDA source by machine code in the modules that a library carries in addition to its host code.

    Args:
        blob: length; import tree in two vectors; kind and content of each module (ModuleSerializer in TVM's
          src/target/codegen.cc).
        target: the target to compile for.
    """
    reader = Reader(blob)
    size = reader.number()
    start = reader.position
    reader.block(item_size=LENGTH.size)
    reader.block(item_size=LENGTH.size)
    content = blob[start : reader.position]
    while reader.position < start + size:
        kind = reader.block()
        content += block(kind)
        # The blob does not contain the host code.
        if kind == b"_lib":
            continue
        module = reader.block()
        content += block(with_machine_code(module, target) if kind == b"cuda" else module)
    return block(content)


def install(target: tvm.target.Target) -> None:
    """Makes every library that is exported from now on contain machine code for a target."""
    pack_to_tensor, write_object = map(
        tvm_ffi.get_global_func, ("runtime.ModulePackImportsToTensor", "codegen.codegen_blob")
    )

    def pack(module: tvm.runtime.Module, system_library: bool, host: str, prefix: str) -> tvm.runtime.Module:
        blob = pack_to_tensor(module).numpy().tobytes()
        return write_object(compile_imports(blob, target), system_library, host, prefix)

    tvm.runtime._ffi_api.ModulePackImportsToLLVM = pack


def main() -> None:
    target, modules, program, *arguments = sys.argv[1:]
    install(tvm.target.Target(json.loads(target)))
    cublas_graphs.install(Path(modules))
    sys.argv = [program, *arguments]
    runpy.run_module(program, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
