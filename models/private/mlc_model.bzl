"""The rule behind `mlc_model`."""

load("@bazel_tools//tools/cpp:toolchain_utils.bzl", "use_cpp_toolchain")
load("//platforms:defs.bzl", "for_the_build")
load(":compile_tools.bzl", "COMPILE_ATTRS", "compile_tools")

MlcModelInfo = provider(
    doc = "A model that the engine loads: MLCEngine(model = weights, model_lib = library).",
    fields = {
        "library": "File: the compiled model, a shared library for the TVM of this build.",
        "weights": "File: folder with mlc-chat-config.json, weight shards (unless the model has none yet) and tokenizer.",
    },
)

# A single thread reads weights; LLVM starts several to compile kernels.
def _resources(_os, _inputs):
    return {"cpu": 2, "memory": 2048}

def _mlc_model_impl(ctx):
    weights = ctx.actions.declare_directory(ctx.label.name)
    library = ctx.actions.declare_file(ctx.label.name + ".so")
    tools = compile_tools(ctx)

    def run(what, output, inputs, options, transitive = [], mlc_llm = ctx.files._mlc_llm):
        environments = mlc_llm + ctx.files._environments
        arguments = ctx.actions.args()
        arguments.add_all(environments, before_each = "--environment", expand_directories = False)
        arguments.add("--output")
        arguments.add_all([output], expand_directories = False)
        arguments.add(what)
        arguments.add_all(options, expand_directories = False)
        ctx.actions.run(
            outputs = [output],
            inputs = depset(inputs + environments, transitive = transitive),
            executable = ctx.executable._build_model,
            arguments = [arguments],
            resource_set = _resources,
            mnemonic = "MlcModel" + what.title(),
            progress_message = {
                "config": "Configuring model %{label}",
                "library": "Compiling model %{label}",
                "weights": "Converting weights of model %{label}",
            }[what],
        )

    config = [file for file in ctx.files.model_dir if file.is_directory or file.basename == "config.json"]
    if len(config) != 1:
        fail("{}: model_dir {} has {} folders or files config.json, expected one: give a folder like those of Hugging Face's hub".format(
            ctx.label,
            ctx.attr.model_dir.label,
            len(config),
        ))
    options = [config[0], "--quantization", ctx.attr.quantization, "--conv-template", ctx.attr.conv_template]
    for option in ["context_window_size", "max_batch_size", "prefill_chunk_size", "system_message", "tensor_parallel_shards"]:
        if getattr(ctx.attr, option):
            options += ["--" + option.replace("_", "-"), str(getattr(ctx.attr, option))]
    for option, names in [("--ignore-config-key", ctx.attr.ignore_config_keys), ("--ignore-tensor", ctx.attr.ignore_tensors)]:
        for name in names:
            options += [option, name]
    run("weights" if ctx.attr.convert_weights else "config", weights, ctx.files.model_dir, options)
    cublas = ["--cublas-modules", ctx.file.cublas_modules] if ctx.file.cublas_modules else []
    opt = ["--opt", ctx.attr.opt] if ctx.attr.opt else []
    run(
        "library",
        library,
        [weights] + ctx.files.cublas_modules,
        [weights] + opt + cublas + tools.options,
        tools.inputs,
        ctx.files._mlc_llm_compiler,
    )

    files = depset([weights, library])
    return [
        DefaultInfo(files = files, runfiles = ctx.runfiles([weights, library])),
        MlcModelInfo(library = library, weights = weights),
        OutputGroupInfo(library = depset([library]), weights = depset([weights])),
    ]

mlc_model_rule = rule(
    implementation = _mlc_model_impl,
    doc = "Use the macro mlc_model of //models:defs.bzl.",
    attrs = COMPILE_ATTRS | {
        "context_window_size": attr.int(doc = "Tokens of prompt and answer together; default: the model's own."),
        "conv_template": attr.string(mandatory = True, doc = "Conversation template, a value of `mlc_llm gen_config --conv-template`."),
        "convert_weights": attr.bool(default = True, doc = "Whether `model_dir` has weights. If not, the output folder has only the configuration."),
        "cublas_modules": attr.label(allow_single_file = True, doc = "The library that saves calls of cuBLAS, if the target is a GPU. The macros set it."),
        "ignore_config_keys": attr.string_list(doc = "Keys of config.json that change the result and that mlc-llm may ignore all the same; its error lists them."),
        "ignore_tensors": attr.string_list(doc = "Patterns (`*`) of tensors that mlc-llm may ignore; its error lists them."),
        "max_batch_size": attr.int(doc = "Concurrent requests; default: mlc-llm's."),
        "model_dir": attr.label(
            mandatory = True,
            allow_files = True,
            doc = "The checkpoint, in the layout of Hugging Face's hub: config.json, tokenizer and safetensors weights. A folder, or a filegroup of its files.",
        ),
        "opt": attr.string(doc = "Optimization preset or flags, a value of `mlc_llm compile --opt`; default: all that this build has for the target."),
        "prefill_chunk_size": attr.int(doc = "Tokens of a prompt to process at once; default: mlc-llm's."),
        "quantization": attr.string(mandatory = True, doc = "A value of `mlc_llm convert_weight --quantization`: q0f32 for CPUs; q0f16, q4f16_1 for GPUs, ..."),
        "system_message": attr.string(doc = "System message of conversations without one; default: that of `conv_template`."),
        "tensor_parallel_shards": attr.int(doc = "GPUs of one host that share each layer; default: one."),
        "_build_model": attr.label(default = "//models/private:build_model", executable = True, cfg = "exec"),
        # Not cfg = "exec": the TVM that will run the model compiles it, and is not built twice.
        "_environments": attr.label_list(cfg = for_the_build, default = [
            "//wheels/tvm:installed",
            "//wheels:mlc_llm_dependencies",
            "//wheels:dependencies",
        ]),
        # Writing a configuration needs the engine's tokenizer.
        "_mlc_llm": attr.label(cfg = for_the_build, default = "//wheels/mlc_llm:installed"),
        "_mlc_llm_compiler": attr.label(cfg = for_the_build, default = "//wheels:mlc_llm_compiler"),
    },
    fragments = ["cpp"],
    provides = [MlcModelInfo],
    toolchains = use_cpp_toolchain(),
)
