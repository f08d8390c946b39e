"""`importable_library`: one of NVIDIA's libraries, to link with."""

load("@bazel_skylib//rules:run_binary.bzl", "run_binary")
load("//platforms:defs.bzl", "by_cpu")

def importable_library(name, library):
    """A shared library of a wheel for x86-64. Programs for other processors link with a stub of the same interface, and need no second download.

    Args:
        name: the cc_import, the library's SONAME.
        library: the file.
    """
    stub = "stubs/" + name
    run_binary(
        name = name + ".stub",
        srcs = [library],
        outs = [
            stub + ".S",
            stub + ".map",
        ],
        args = [
            "$(execpath {})".format(library),
            "--source=$(execpath {}.S)".format(stub),
            "--version-script=$(execpath {}.map)".format(stub),
        ],
        tags = ["manual"],
        tool = Label("//toolchains/cuda/private:make_library_stub"),
    )
    native.cc_binary(
        name = stub,
        srcs = [stub + ".S"],
        additional_linker_inputs = [stub + ".map"],
        linkopts = [
            "-nostdlib",
            "-Wl,-soname," + name,
            "-Wl,--version-script=$(execpath {}.map)".format(stub),
        ],
        linkshared = True,
        tags = ["manual"],
    )
    native.cc_import(
        name = name,
        shared_library = by_cpu(library, stub),
    )
