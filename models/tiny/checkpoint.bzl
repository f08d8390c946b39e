"""`tiny_checkpoint`: the tiny model in the layout of Hugging Face's hub, or one of another family."""

def _tiny_checkpoint_impl(ctx):
    folder = ctx.actions.declare_directory(ctx.label.name)
    arguments = ctx.actions.args()
    if ctx.attr.family:
        arguments.add(ctx.attr.family)
    arguments.add_all([folder], expand_directories = False)
    arguments.add_all(ctx.attr.options)
    ctx.actions.run(
        outputs = [folder],
        executable = ctx.executable._tiny_family if ctx.attr.family else ctx.executable._tiny_model,
        arguments = [arguments],
        mnemonic = "TinyModel",
        progress_message = "Making the tiny model's checkpoint",
    )
    return [DefaultInfo(files = depset([folder]), runfiles = ctx.runfiles([folder]))]

tiny_checkpoint = rule(
    implementation = _tiny_checkpoint_impl,
    doc = "The folder <name> with config.json, tokenizer and random weights. Its bytes never change.",
    attrs = {
        "family": attr.string(doc = "A model of tiny_family.py; default: the tiny Llama."),
        "options": attr.string_list(doc = "Options of tiny_model.py, such as other sizes."),
        "_tiny_family": attr.label(default = "//models/tiny:tiny_family", executable = True, cfg = "exec"),
        "_tiny_model": attr.label(default = "//models/tiny:tiny_model", executable = True, cfg = "exec"),
    },
)
