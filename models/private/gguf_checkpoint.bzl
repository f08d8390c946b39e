"""The rule behind `gguf_checkpoint`."""

def _gguf_checkpoint_impl(ctx):
    folder = ctx.actions.declare_directory(ctx.label.name)
    arguments = ctx.actions.args()
    arguments.add(ctx.file.src)
    arguments.add_all([folder], expand_directories = False)
    ctx.actions.run(
        outputs = [folder],
        inputs = [ctx.file.src],
        executable = ctx.executable._gguf_checkpoint,
        arguments = [arguments],
        mnemonic = "GgufCheckpoint",
        progress_message = "Reading GGUF model %{label}",
    )
    return [DefaultInfo(files = depset([folder]), runfiles = ctx.runfiles([folder]))]

gguf_checkpoint_rule = rule(
    implementation = _gguf_checkpoint_impl,
    doc = "Use the macro gguf_checkpoint of //models:defs.bzl.",
    attrs = {
        "src": attr.label(mandatory = True, allow_single_file = [".gguf"], doc = "The GGUF file."),
        "_gguf_checkpoint": attr.label(default = "//models/private:gguf_checkpoint", executable = True, cfg = "exec"),
    },
)
