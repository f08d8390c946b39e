"""The image's labels as a file, with the source revision only if the build is stamped."""

def _image_labels_impl(ctx):
    output = ctx.actions.declare_file(ctx.label.name + ".txt")
    arguments = ctx.actions.args()
    arguments.add("--output", output)
    arguments.add_all(["{}={}".format(key, value) for key, value in sorted(ctx.attr.labels.items())], before_each = "--label")
    if ctx.attr.stamped:
        arguments.add("--status", ctx.info_file)
    ctx.actions.run(
        executable = ctx.executable._make_labels,
        arguments = [arguments],
        inputs = [ctx.info_file] if ctx.attr.stamped else [],
        outputs = [output],
        mnemonic = "ImageLabels",
    )
    return [DefaultInfo(files = depset([output]))]

image_labels_file = rule(
    implementation = _image_labels_impl,
    doc = "A file for oci_image's `labels`: one key=value per line.",
    attrs = {
        "labels": attr.string_dict(mandatory = True),
        "stamped": attr.bool(mandatory = True, doc = "Whether to read the revision from the workspace status (--stamp)."),
        "_make_labels": attr.label(default = "//oci/private:make_labels", executable = True, cfg = "exec"),
    },
)
