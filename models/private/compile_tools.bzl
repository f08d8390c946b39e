"""Shared by rules that compile with TVM: the linker, nvcc for GPUs, and the options that name them."""

load("@bazel_tools//tools/build_defs/cc:action_names.bzl", "ACTION_NAMES")
load("@bazel_tools//tools/cpp:toolchain_utils.bzl", "find_cpp_toolchain")

COMPILE_ATTRS = {
    "nvcc": attr.label(allow_single_file = True, cfg = "exec", doc = "nvcc, if the target is a GPU. The macros in //models:defs.bzl set it."),
    "nvcc_files": attr.label(allow_files = True, cfg = "exec", doc = "Everything that nvcc starts and reads."),
    "target": attr.string(mandatory = True, doc = "TVM target as JSON: see `cpu_target` and `cuda_target` in //models:defs.bzl."),
}

def compile_tools(ctx):
    """Returns the command-line options of a tool that compiles for `target`, and its inputs.

    Args:
        ctx: context of a rule with COMPILE_ATTRS, the fragment `cpp` and use_cpp_toolchain().

    Returns:
        struct of `options` (list of strings and files) and `inputs` (list of depsets of files).
    """
    toolchain = find_cpp_toolchain(ctx)
    features = cc_common.configure_features(ctx = ctx, cc_toolchain = toolchain)
    compiler = cc_common.get_tool_for_action(feature_configuration = features, action_name = ACTION_NAMES.cpp_link_dynamic_library)
    options = ["--target", ctx.attr.target, "--compiler", compiler]
    inputs = [toolchain.all_files]
    if ctx.file.nvcc:
        options += ["--nvcc", ctx.file.nvcc]
        inputs.append(depset([ctx.file.nvcc] + ctx.files.nvcc_files))
    return struct(inputs = inputs, options = options)
