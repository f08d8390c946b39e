"""How to compile TVM's own libraries, for the overlays of its sources."""

load("//:version.bzl", "TVM_VERSION")
load("//toolchains/cuda:defs.bzl", "NEEDS_CUDA")

# Like upstream's CMake: C++20, hidden visibility. The toolchain adds -O2, because -O3 everywhere makes the library larger than the official one.
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

# The folders of NVIDIA's wheels, next to the package tvm_cuda.
_NVIDIA_LINKOPTS = ["-Wl,-rpath,$ORIGIN/../../nvidia/{}/lib".format(part) for part in ["cu13", "cudnn", "nccl"]]

def defines():
    """Returns the macros to compile TVM's sources with, for local_defines."""
    return [
        "TVM_FFI_EXPORTS",
        "TVM_INDEX_DEFAULT_I64=1",
        "TVM_RUNTIME_EXPORTS",
        'TVM_VERSION=\\"{}\\"'.format(TVM_VERSION),
    ]

def cuda_part(name, srcs, deps, copts = [], library = None, local_defines = [], **kwargs):
    """A shared library of the runtime that needs CUDA.

    Args:
        name: the cc_shared_library.
        srcs: its sources.
        deps: its dependencies, in addition to TVM's headers.
        copts: further compiler options.
        library: its file name. Default: `<name>.so`.
        local_defines: further macros.
        **kwargs: attributes of cc_library.
    """
    library = library or name + ".so"
    native.cc_library(
        name = name + "_part",
        srcs = srcs,
        # Error messages contain the path of the source. Show an edited source like the others, without the output folder.
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
        # Fail at link time on undefined symbols, not at load time on a user's machine.
        user_link_flags = ["-Wl,-z,defs", "-Wl,-soname," + library] + LINKOPTS + _NVIDIA_LINKOPTS,
        deps = [":{}_part".format(name)],
    )
