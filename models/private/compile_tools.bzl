"""Shared by rules that compile with TVM: the linker, nvcc for GPUs, and the options that name them."""

load("@bazel_tools//tools/build_defs/cc:action_names.bzl", "ACTION_NAMES")
load("@bazel_tools//tools/cpp:toolchain_utils.bzl", "find_cpp_toolchain")
load(":cpu_targets.bzl", "for_platform")

_ARCHS = "//toolchains/cuda:archs"

def archs(target):
    """Returns the architectures of a target that cuda_target() returned, none of another."""
    decoded = json.decode(target)
    return [decoded["arch"]] + decoded.get("other_archs", []) if "arch" in decoded else []

# Objects that a library contains are for its architectures, whatever those of the runtime are.
_archs_of_target = transition(
    implementation = lambda settings, attr: {_ARCHS: ";".join(archs(attr.target)) or settings[_ARCHS]},
    inputs = [_ARCHS],
    outputs = [_ARCHS],
)

COMPILE_ATTRS = {
    "kernels": attr.label_list(cfg = _archs_of_target, doc = "Kernels that the library may contain, each a cuda_library, if the target is a GPU. The macros set it."),
    "kernels_libraries": attr.label_list(allow_files = True, doc = "Shared libraries that they call."),
    "nvcc": attr.label(allow_single_file = True, cfg = "exec", doc = "nvcc, if the target is a GPU. The macros in //models:defs.bzl set it."),
    "nvcc_files": attr.label(allow_files = True, cfg = "exec", doc = "Everything that nvcc starts and reads."),
    "target": attr.string(mandatory = True, doc = "TVM target as JSON: see `cpu_target` and `cuda_target` in //models:defs.bzl."),
    "_arm64": attr.label(default = "@platforms//cpu:aarch64"),
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
    target = for_platform(ctx.attr.target, ctx.target_platform_has_constraint(ctx.attr._arm64[platform_common.ConstraintValueInfo]))
    options = ["--target", target, "--compiler", compiler]
    inputs = [toolchain.all_files]
    if ctx.file.nvcc:
        options += ["--nvcc", ctx.file.nvcc]
        inputs.append(depset([ctx.file.nvcc] + ctx.files.nvcc_files))
    for kernels in ctx.attr.kernels:
        objects = kernels[OutputGroupInfo].compilation_outputs
        inputs.append(objects)
        options.append("--kernels={}={}".format(kernels.label.name, ":".join([file.path for file in objects.to_list()])))
    for file in ctx.files.kernels_libraries:
        options.append("--needed-library=" + file.path)
    inputs.append(depset(ctx.files.kernels_libraries))
    return struct(inputs = inputs, options = options)
