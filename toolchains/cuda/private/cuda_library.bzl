"""The rule behind `cuda_library`."""

load("@bazel_tools//tools/build_defs/cc:action_names.bzl", "ACTION_NAMES")
load("@bazel_tools//tools/cpp:toolchain_utils.bzl", "find_cpp_toolchain", "use_cpp_toolchain")
load(":settings.bzl", "CudaArchsInfo")

_HEADERS = ["cuh", "h", "hh", "hpp", "inc"]

def _gencode(archs):
    return [
        "--generate-code=arch=compute_{},code={}".format(arch.partition("_")[2], arch)
        for arch in archs
    ]

def _compile(ctx, toolchain, features, source, context):
    """Compiles a .cu file into a position-independent object and returns it."""
    object = ctx.actions.declare_file("_objs/{}/{}.o".format(ctx.label.name, source.basename[:-len(source.extension) - 1]))
    compiler = cc_common.get_tool_for_action(feature_configuration = features, action_name = ACTION_NAMES.cpp_compile)
    arguments = ctx.actions.args()
    arguments.add("-c")
    arguments.add("-x", "cu")
    arguments.add(source)
    arguments.add("-o", object)
    arguments.add("-ccbin", compiler)
    arguments.add("-O2")

    # Symbols contain the names of temporary files, which otherwise contain a process id, and random numbers.
    arguments.add("--objdir-as-tempdir")
    arguments.add(source.short_path, format = "--frandom-seed=%s")

    # Nor do errors that name generated sources depend on the configuration.
    arguments.add(ctx.bin_dir.path, format = "--compiler-options=-fmacro-prefix-map=%s/=")
    arguments.add_all(_gencode(ctx.attr._archs[CudaArchsInfo].archs))
    arguments.add_all(context.defines, format_each = "-D%s")
    arguments.add_all(context.local_defines, format_each = "-D%s")
    arguments.add_all(ctx.attr.local_defines, format_each = "-D%s")

    # nvcc has no -iquote.
    arguments.add_all(context.quote_includes, format_each = "-I%s")
    arguments.add_all(context.includes, format_each = "-I%s")
    arguments.add_all(context.system_includes, before_each = "-isystem")
    arguments.add_all(ctx.attr.ptxascopts, format_each = "--ptxas-options=%s")
    arguments.add_all(ctx.attr.copts)
    arguments.add_all(["-fPIC"] + ctx.attr.host_copts, format_each = "--compiler-options=%s")
    ctx.actions.run(
        outputs = [object],
        inputs = depset([source] + ctx.files._nvcc_files, transitive = [context.headers, toolchain.all_files]),
        executable = ctx.file._nvcc,
        arguments = [arguments],
        mnemonic = "CudaCompile",
        progress_message = "Compiling {} for GPUs".format(source.short_path),
    )
    return object

def _cuda_library_impl(ctx):
    toolchain = find_cpp_toolchain(ctx)
    features = cc_common.configure_features(ctx = ctx, cc_toolchain = toolchain, requested_features = ctx.features, unsupported_features = ctx.disabled_features)
    package = ctx.label.workspace_root + ("/" if ctx.label.workspace_root and ctx.label.package else "") + ctx.label.package
    headers = ctx.files.hdrs + [file for file in ctx.files.srcs if file.extension in _HEADERS]
    own = cc_common.create_compilation_context(
        defines = depset(ctx.attr.defines),
        headers = depset(headers),
        includes = depset([(package + "/" + include).removeprefix("/") for include in ctx.attr.includes]),
        quote_includes = depset([ctx.label.workspace_root or ".", ctx.bin_dir.path]),
    )
    deps = [dep[CcInfo] for dep in ctx.attr.deps + [ctx.attr._cudart]]
    context = cc_common.merge_compilation_contexts(compilation_contexts = [own] + [dep.compilation_context for dep in deps])
    objects = [_compile(ctx, toolchain, features, source, context) for source in ctx.files.srcs if source.extension == "cu"]
    compiled = cc_common.create_compilation_outputs(objects = depset(objects), pic_objects = depset(objects))
    linking, outputs = cc_common.create_linking_context_from_compilation_outputs(
        actions = ctx.actions,
        alwayslink = ctx.attr.alwayslink,
        cc_toolchain = toolchain,
        compilation_outputs = compiled,
        disallow_dynamic_library = True,
        feature_configuration = features,
        linking_contexts = [dep.linking_context for dep in deps],
        name = ctx.label.name,
        user_link_flags = ctx.attr.linkopts,
    )
    library = outputs.library_to_link
    files = [file for file in [library.static_library, library.pic_static_library] if file] if library else []
    return [
        DefaultInfo(files = depset(files)),
        CcInfo(compilation_context = context, linking_context = linking),
        OutputGroupInfo(compilation_outputs = depset(objects)),
    ]

cuda_library_rule = rule(
    implementation = _cuda_library_impl,
    doc = "Use the macro cuda_library of //toolchains/cuda:defs.bzl.",
    attrs = {
        "alwayslink": attr.bool(doc = "Whether dependents link the whole library, for code that registers itself."),
        "copts": attr.string_list(doc = "Options of nvcc."),
        "defines": attr.string_list(doc = "Macros for this library and its dependents."),
        "deps": attr.label_list(providers = [CcInfo], doc = "cc_library and cuda_library targets."),
        "hdrs": attr.label_list(allow_files = ["." + extension for extension in _HEADERS], doc = "Headers for this library and its dependents."),
        "host_copts": attr.string_list(doc = "Options of the host compiler."),
        "includes": attr.string_list(doc = "Header folders in the package, for this library and its dependents."),
        "linkopts": attr.string_list(doc = "Options of the linker."),
        "local_defines": attr.string_list(doc = "Macros for only these sources."),
        "ptxascopts": attr.string_list(doc = "Options of ptxas."),
        "srcs": attr.label_list(mandatory = True, allow_files = [".cu"] + ["." + extension for extension in _HEADERS], doc = ".cu files, and headers for only them."),
        "_archs": attr.label(default = "//toolchains/cuda:archs"),
        "_cudart": attr.label(default = "//toolchains/cuda:cudart", providers = [CcInfo]),
        "_nvcc": attr.label(default = "//toolchains/cuda:nvcc", allow_single_file = True, cfg = "exec"),
        "_nvcc_files": attr.label(default = "//toolchains/cuda:nvcc_files", cfg = "exec"),
    },
    fragments = ["cpp"],
    provides = [CcInfo],
    toolchains = use_cpp_toolchain(),
)
