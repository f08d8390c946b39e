"""`python_module`: the extension module of apache-tvm-ffi for one CPython."""

load("//platforms:defs.bzl", "by_cpu")
load("//toolchains/cc:defs.bzl", "stripped_library")

def python_module(name, abi, defines, headers):
    """Compiles and links the module as upstream's CMakeLists.txt does, against the ABI of exactly one CPython.

    Args:
        name: the target, a stripped library for the folder of the package.
        abi: the ABI's tag, for example cp312.
        defines: macros that tell the headers which ABI it is.
        headers: the CPython's headers.
    """
    native.cc_library(
        name = name + "_objects",
        srcs = [":core.cpp"],
        copts = [
            "-std=c++17",
            "-fvisibility=hidden",
            "-fvisibility-inlines-hidden",
        ],
        local_defines = defines,
        deps = [
            headers,
            "//toolchains/cc:libstdcxx_compat",
            "@tvm_ffi//:cython_headers",
            "@tvm_ffi//:headers",
            # The library of tests must be unloaded after the module.
            "@tvm_ffi//:testing_objects",
        ],
    )
    native.cc_shared_library(
        name = name + "_linked",
        dynamic_deps = [
            "@tvm_ffi//:libtvm_ffi",
            "@tvm_ffi//:libtvm_ffi_testing",
        ],
        shared_lib_name = name + ".so",
        user_link_flags = ["-Wl,-rpath,$ORIGIN/lib"],
        deps = [":" + name + "_objects"],
    )
    stripped_library(
        name = name,
        src = name + "_linked",
        library = by_cpu(**{
            cpu: "tvm_ffi/core.cpython-{}-{}-linux-gnu.so".format(abi.removeprefix("cp"), machine)
            for cpu, machine in {
                "arm64": "aarch64",
                "x86_64": "x86_64",
            }.items()
        }),
    )
