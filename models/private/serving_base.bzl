"""The rule that picks the image which serves a model on GPUs, for `mlc_model_image`."""

def _serving_base_impl(ctx):
    output = ctx.actions.declare_directory(ctx.label.name)
    arguments = ctx.actions.args()
    arguments.add("--library", ctx.file.library)
    for image, parts in zip(ctx.files.images, ctx.attr.parts):
        arguments.add_all("--image", [image], expand_directories = False, format_each = "%s=" + parts)
    arguments.add("--output", output.path)
    ctx.actions.run(
        outputs = [output],
        inputs = ctx.files.images + [ctx.file.library],
        executable = ctx.executable._pick_base,
        arguments = [arguments],
        mnemonic = "MlcModelBase",
        progress_message = "Picking the image for %{label}",
    )
    return [DefaultInfo(files = depset([output]))]

serving_base = rule(
    implementation = _serving_base_impl,
    doc = "The smallest image that has every NVIDIA library that a model calls.",
    attrs = {
        "images": attr.label_list(mandatory = True, allow_files = True, doc = "Images to choose from, the smallest first."),
        "library": attr.label(mandatory = True, allow_single_file = True, doc = "The compiled model."),
        "parts": attr.string_list(mandatory = True, doc = "What models in each image may call: names of `tvm_cuda.status()`, with commas."),
        "_pick_base": attr.label(default = "//models/private:pick_base", executable = True, cfg = "exec"),
    },
)
