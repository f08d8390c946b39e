"""Libraries with machine code for a GPU from a machine without one.

TVM compiles its CUDA source in its CUDA runtime, which needs a driver to load. Without, it saves the source for the
machine that loads the library to
compile, with a compiler that a server does not have. Here nvcc compiles it when the library is made; the bytes are
those that the CUDA runtime would have saved.

    python -m models.private.cuda_modules TARGET mlc_llm compile ...
"""

from __future__ import annotations

import json
import runpy
import struct
import sys

import tvm_ffi
from tvm.support import nvcc  # noqa: F401 - registers what is called by its name below

import tvm

LENGTH = struct.Struct("<Q")
"""How TVM writes a length (src/support/bytes_io.h)."""

SOURCE, MACHINE_CODE = b"cuda", b"cubin"
"""Forms of a CUDA module, as TVM calls them; what is no PTX is of the second, fat binaries too."""


class NvccError(Exception):
    """nvcc refuses a kernel: what it said, then one line."""


class Reader:
    """Reads what TVM's streams write."""

    def __init__(self, data: bytes) -> None:
        self.data, self.position = data, 0

    def number(self) -> int:
        (value,) = LENGTH.unpack_from(self.data, self.position)
        self.position += LENGTH.size
        return value

    def block(self, item_size: int = 1) -> bytes:
        """The next string or vector: how many items, then the items."""
        size = self.number() * item_size
        self.position += size
        return self.data[self.position - size : self.position]


def block(data: bytes) -> bytes:
    """A string as TVM writes it."""
    return LENGTH.pack(len(data)) + data


def compile_source(source: bytes, target: tvm.target.Target) -> bytes:
    """Compiles the CUDA source of a module, as TVM's CUDA runtime does.

    Raises:
        NvccError: nvcc fails.
    """
    with target:
        try:
            return bytes(tvm_ffi.get_global_func("tvm_callback_cuda_compile")(source.decode()))
        except RuntimeError as error:
            # The message is the source of all kernels, this line, and what nvcc said.
            said = str(error).rpartition("\nCompilation error:\n")[2].rstrip()
            raise NvccError(f"{said}\nnvcc failed on the kernels for {target.attrs['arch']}, see above") from None


def with_machine_code(module: bytes, target: tvm.target.Target) -> bytes:
    """A saved CUDA module with machine code in place of source.

    Args:
        module: form, table of functions, code (CUDAModuleNode::SaveToBytes in TVM's
          src/backend/cuda/runtime/cuda_module.cc).
        target: what to compile for.

    Raises:
        ValueError: it is of another form.
    """
    reader = Reader(module)
    if reader.block() != SOURCE:
        return module
    start = reader.position
    # The table, of FunctionInfo in src/runtime/metadata.h: twice the name, types of the arguments, tags of the launch,
    # tags of the arguments.
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
            "a saved CUDA module of another form than TVM 0.26 writes: see SaveToBytes in its cuda_module.cc"
        )
    return block(MACHINE_CODE) + table + block(compile_source(source, target))


def compile_imports(blob: bytes, target: tvm.target.Target) -> bytes:
    """What a library carries beside its host code, with machine code in place of CUDA source.

    Args:
        blob: length; import tree in two vectors; kind and content of each module (ModuleSerializer in TVM's
          src/target/codegen.cc).
        target: what to compile for.
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
        # The host code, which is not in the blob.
        if kind == b"_lib":
            continue
        module = reader.block()
        content += block(with_machine_code(module, target) if kind == b"cuda" else module)
    return block(content)


def install(target: tvm.target.Target) -> None:
    """Every library that is exported from now on has machine code for a target."""
    pack_to_tensor, write_object = map(
        tvm_ffi.get_global_func, ("runtime.ModulePackImportsToTensor", "codegen.codegen_blob")
    )

    def pack(module: tvm.runtime.Module, system_library: bool, host: str, prefix: str) -> tvm.runtime.Module:
        blob = pack_to_tensor(module).numpy().tobytes()
        return write_object(compile_imports(blob, target), system_library, host, prefix)

    tvm.runtime._ffi_api.ModulePackImportsToLLVM = pack


def main() -> None:
    target, program, *arguments = sys.argv[1:]
    install(tvm.target.Target(json.loads(target)))
    sys.argv = [program, *arguments]
    runpy.run_module(program, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
