"""Rules for compiled libraries. Public: `stripped_library`."""

load("@bazel_tools//tools/cpp:toolchain_utils.bzl", "find_cpp_toolchain", "use_cpp_toolchain")

def _stripped_library_impl(ctx):
    source = ctx.file.src
    stripped = ctx.actions.declare_file("{}/{}".format(ctx.label.name, ctx.attr.library or source.basename))
    symbols = ctx.actions.declare_file(stripped.basename + ".debug", sibling = stripped)
    toolchain = find_cpp_toolchain(ctx)

    def objcopy(output, inputs, arguments):
        ctx.actions.run(
            outputs = [output],
            inputs = depset(inputs, transitive = [toolchain.all_files]),
            executable = toolchain.objcopy_executable,
            arguments = arguments + [output.path],
            mnemonic = "Objcopy",
            progress_message = "Separating debug symbols of " + source.short_path,
        )

    objcopy(symbols, [source], ["--only-keep-debug", source.path])
    objcopy(stripped, [source, symbols], [
        "--strip-unneeded",
        "--add-gnu-debuglink=" + symbols.path,
        source.path,
    ])
    return [
        DefaultInfo(files = depset([stripped])),
        OutputGroupInfo(debug_symbols = depset([symbols])),
    ]

stripped_library = rule(
    implementation = _stripped_library_impl,
    doc = """Strips a shared library and puts its debug symbols next to it, where debuggers look (`<library>.debug`).

The output group `debug_symbols` has the symbols.

Example:

    stripped_library(
        name = "libtvm_ffi",
        src = ":tvm_ffi_shared",
        library = "libtvm_ffi.so",
    )
""",
    attrs = {
        "library": attr.string(doc = "File name of the result. Default: that of `src`."),
        "src": attr.label(mandatory = True, allow_single_file = True, doc = "The library as linked."),
    },
    toolchains = use_cpp_toolchain(),
)
