"""How TVM's own libraries are compiled, for the overlays of its sources."""

load("//:version.bzl", "TVM_VERSION")
load("//toolchains/cuda:defs.bzl", "NEEDS_CUDA")

# As upstream's CMake: C++20, hidden visibility. The toolchain adds -O2: with -O3 throughout the library is larger than the official one.
COPTS = [
    "-std=c++20",
    "-fvisibility=hidden",
    "-fvisibility-inlines-hidden",
]

LINKOPTS = [
    "-Wl,-rpath,$ORIGIN",
    "-lpthread",
    "-ldl",
]

# Where NVIDIA's wheels put their libraries, beside the package tvm_cuda.
_NVIDIA_LINKOPTS = ["-Wl,-rpath,$ORIGIN/../../nvidia/{}/lib".format(part) for part in ["cu13", "cudnn", "nccl"]]

def defines():
    """Macros that TVM's sources are compiled with, for local_defines."""
    return [
        "TVM_FFI_EXPORTS",
        "TVM_INDEX_DEFAULT_I64=1",
        "TVM_RUNTIME_EXPORTS",
        'TVM_VERSION=\\"{}\\"'.format(TVM_VERSION),
    ]

def cuda_part(name, srcs, deps, copts = [], library = None, local_defines = [], **kwargs):
    """A shared library of the runtime that needs CUDA.

    Args:
        name: the target, cc_shared_library.
        srcs: its sources.
        deps: what it needs beside TVM's headers.
        copts: more options of the compiler.
        library: its file name; default: `<name>.so`.
        local_defines: more macros.
        **kwargs: what cc_library takes.
    """
    library = library or name + ".so"
    native.cc_library(
        name = name + "_part",
        srcs = srcs,
        # Errors name their source: a mended one by its place among the others.
        copts = COPTS + ["-fmacro-prefix-map={}$(BINDIR)/=".format(prefix) for prefix in ["", "./"]] + copts,
        local_defines = defines() + local_defines,
        target_compatible_with = NEEDS_CUDA,
        deps = deps + [
            "@tvm//:headers",
            Label("//toolchains/cc:libstdcxx_compat"),
        ],
        **kwargs
    )
    native.cc_shared_library(
        name = name,
        dynamic_deps = [
            "@tvm//:libtvm_runtime",
            "@tvm//:libtvm_runtime_extra",
            "@tvm_ffi//:libtvm_ffi",
        ],
        shared_lib_name = library,
        target_compatible_with = NEEDS_CUDA,
        # What it calls and nothing it names brings is an error here, not on somebody's machine.
        user_link_flags = ["-Wl,-z,defs", "-Wl,-soname," + library] + LINKOPTS + _NVIDIA_LINKOPTS,
        deps = [":{}_part".format(name)],
    )
