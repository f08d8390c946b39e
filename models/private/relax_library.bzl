"""The rule behind `relax_library`."""

load("@bazel_tools//tools/cpp:toolchain_utils.bzl", "use_cpp_toolchain")
load("//platforms:defs.bzl", "for_the_build")
load(":compile_tools.bzl", "COMPILE_ATTRS", "compile_tools")

# LLVM starts threads; nvcc runs its steps sequentially.
def _resources(_os, _inputs):
    return {"cpu": 2, "memory": 1024}

def _relax_library_impl(ctx):
    library = ctx.actions.declare_file(ctx.label.name + ".so")
    tools = compile_tools(ctx)
    arguments = ctx.actions.args()
    arguments.add_all(ctx.files._environments, before_each = "--environment", expand_directories = False)
    arguments.add("--output", library)
    arguments.add("--source", ctx.file.src)
    arguments.add("--function", ctx.attr.function)
    arguments.add("--arguments", ctx.expand_location(ctx.attr.arguments, ctx.attr.data))
    arguments.add("--pass-config", ctx.attr.pass_config)
    arguments.add_all(tools.options)
    ctx.actions.run(
        outputs = [library],
        inputs = depset([ctx.file.src] + ctx.files.data + ctx.files._environments, transitive = tools.inputs),
        executable = ctx.executable._build_relax,
        arguments = [arguments],
        resource_set = _resources,
        mnemonic = "RelaxLibrary",
        progress_message = "Compiling Relax module %{label}",
    )
    return [DefaultInfo(files = depset([library]), runfiles = ctx.runfiles([library]))]

relax_library_rule = rule(
    implementation = _relax_library_impl,
    doc = "Use the macro relax_library of //models:defs.bzl.",
    attrs = COMPILE_ATTRS | {
        "arguments": attr.string(default = "{}", doc = "Keyword arguments of the function: a JSON object. `$(execpath LABEL)` names a file of `data`."),
        "data": attr.label_list(allow_files = True, doc = "Files or folders that the function reads."),
        "function": attr.string(mandatory = True, doc = "Name of the function in `src`, which returns a tvm.IRModule."),
        "pass_config": attr.string(default = "{}", doc = "Options of TVM's passes: a JSON object."),
        "src": attr.label(mandatory = True, allow_single_file = [".py"], doc = "Python file. It may import TVM and TVM's dependencies."),
        "_build_relax": attr.label(default = "//models/private:build_relax", executable = True, cfg = "exec"),
        # Not cfg = "exec": the TVM that will run the module compiles it, and is not built twice.
        "_environments": attr.label_list(cfg = for_the_build, default = [
            "//wheels/tvm:installed",
            "//wheels:dependencies",
        ]),
    },
    fragments = ["cpp"],
    toolchains = use_cpp_toolchain(),
)
