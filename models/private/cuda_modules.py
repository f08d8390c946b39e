"""Builds libraries with machine code for a GPU on a machine without one.

TVM compiles its CUDA source in its CUDA runtime, which does not load without a driver. TVM then saves the source, and
the machine that loads the library would have to compile it, but servers have no compiler. Here nvcc compiles it at
build time. The bytes are those that the CUDA runtime would have saved.

    python -m models.private.cuda_modules --target TARGET --cublas-modules LIBRARY mlc_llm compile ...

Where mlc-llm would go on in silence without what its flags ask for, this fails, or says so if it may.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import runpy
import struct
import sys
from pathlib import Path
from typing import Any

import tvm_ffi
from tvm.relax.backend import gpu_generic
from tvm.support import nvcc  # Also registers a function that is called by name below.

import tvm
from models.private import (
    compile_environment,
    cublas_graphs,
    flashinfer_kernels,
    gpu_kernels,
    graph_steps,
    quantized_products,
)

LENGTH = struct.Struct("<Q")
"""TVM's encoding of a length (src/support/bytes_io.h)."""

SOURCE, MACHINE_CODE = b"cuda", b"cubin"
"""TVM's names for forms of a CUDA module. The second includes fat binaries."""


SAMPLER_WARPS = 32
"""Warps of the block that draws a token, 4096 numbers of the vocabulary at a time. With the four of TVM it is 512, and
that takes a twentieth of a small model's step.
"""


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
    several = os.environ.get(compile_environment.MULTI_ARCH)
    with target:
        try:
            if several:
                options = [f"--generate-code=arch=compute_{each},code=sm_{each}" for each in several.split(",")]
                return bytes(nvcc.compile_cuda(source.decode(), target_format="fatbin", arch=options, compiler="nvcc"))
            return bytes(tvm_ffi.get_global_func("tvm_callback_cuda_compile")(source.decode()))
        except RuntimeError as error:
            # The message is the source of all kernels, this line, and the output of nvcc.
            said = str(error).rpartition("\nCompilation error:\n")[2].rstrip()
            archs = ", ".join(f"sm_{each}" for each in several.split(",")) if several else target.attrs["arch"]
            raise NvccError(f"{said}\nnvcc failed on the kernels for {archs}, see above") from None


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
    gpu_generic.gpu_multinomial_from_uniform = functools.partial(
        gpu_generic.gpu_multinomial_from_uniform, ty_len=SAMPLER_WARPS
    )


REFUSED = {
    "cutlass": "this TVM has none of its kernels, which are for FP8 and for mixtures of experts",
    "faster_transformer": "mlc-llm itself turns it off, whatever the flag says",
    "ipc_allreduce_strategy": "TVM ignores it where no GPU is; this build's runtime has a kernel for small sums",
}
"""Flags of mlc-llm that would have no effect → why."""


FLASHINFER_ARCH = 80
"""The oldest architecture that mlc-llm and this build use FlashInfer for."""


def architectures(target: str) -> list[int]:
    """Returns the numbers of the architectures to compile for."""
    several = os.environ.get(compile_environment.MULTI_ARCH)
    names = several.split(",") if several else [json.loads(target)["arch"].removeprefix("sm_")]
    return sorted(int(name.rstrip("af")) for name in names)


def check_flags(opt: str) -> Any:
    """Returns mlc-llm's flags.

    Raises:
        SystemExit: a flag asks for what this build has not.
    """
    from mlc_llm.interface.compiler_flags import OptimizationFlags

    flags = OptimizationFlags.from_str(opt)
    for name, reason in REFUSED.items():
        if getattr(flags, name):
            sys.exit(
                f"opt {opt!r}: expected flags that this build has, found {name}: {reason}; leave opt out, or give"
                f' opt = "{compile_environment.CUDA_OPT}"'
            )
    return flags


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", required=True, help="TVM target as JSON")
    parser.add_argument("--cublas-modules", type=Path, required=True, help="library that saves calls of cuBLAS")
    compile_environment.add_kernel_options(parser)
    parser.add_argument(
        "--optional-flashinfer", action="store_true", help="say if no kernel fits the model, rather than fail"
    )
    parser.add_argument("program", help="Python module to run")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    install(tvm.target.Target(json.loads(options.target)))
    cublas_graphs.install(options.cublas_modules)
    opt = options.arguments[options.arguments.index("--opt") + 1]
    flags = check_flags(opt)
    kernels = gpu_kernels.Kernels.of(options)
    kernels.install()
    if flags.cublas_gemm and quantized_products.KERNELS in kernels.objects:
        quantized_products.install(kernels)
    attention = flashinfer_kernels.Attention(kernels)
    attention.install()
    graph_steps.install(attention)
    sys.argv = [options.program, *options.arguments]
    runpy.run_module(options.program, run_name="__main__", alter_sys=True)
    if flags.flashinfer and not attention.used:
        old = [arch for arch in architectures(options.target) if arch < FLASHINFER_ARCH]
        missing = (
            f"expected sm_{FLASHINFER_ARCH} or newer, found sm_{old[0]}"
            if old
            else "the model has no paged cache of 16-bit floats"
        )
        reason = f"no FlashInfer: {attention.reason or missing}"
        if not options.optional_flashinfer:
            sys.exit(f'{reason}; give opt = "flashinfer=0;…"')
        if attention.chosen():
            sys.exit(f"{reason}; give mlc_model(head_dim = ...) the size of the model's heads, or leave it out")
        print(f"note: {reason}; the model's attention uses TVM's kernels")


if __name__ == "__main__":
    main()
