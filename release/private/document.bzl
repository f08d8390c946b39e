"""The rule behind a release's documents: bills of materials, provenance, pages."""

def _document_impl(ctx):
    words = []
    for argument in ctx.attr.arguments:
        words += ctx.expand_location(argument, ctx.attr.srcs).split(" ")
    inputs = list(ctx.files.srcs)
    if ctx.attr.stamped:
        words += ["--status", ctx.info_file.path]
        inputs.append(ctx.info_file)
    outputs = list(ctx.outputs.outs)
    for flag, output in zip(ctx.attr.flags, outputs):
        words += [flag, output.path]
    if ctx.attr.folder:
        outputs = [ctx.actions.declare_directory(ctx.attr.folder)]
        words += [ctx.attr.flags[0], outputs[0].path]
    ctx.actions.run(
        executable = ctx.executable.tool,
        arguments = words,
        inputs = inputs,
        outputs = outputs,
        mnemonic = "ReleaseDocument",
        progress_message = "Writing %{output}",
    )
    return [DefaultInfo(files = depset(outputs), runfiles = ctx.runfiles(outputs))]

_document = rule(
    implementation = _document_impl,
    attrs = {
        "arguments": attr.string_list(doc = "Words of the command line, separated by spaces; $(execpath …) and $(execpaths …) of `srcs` are expanded."),
        "flags": attr.string_list(mandatory = True, doc = "The flag before each output."),
        "folder": attr.string(doc = "The output, if it is a folder."),
        "outs": attr.output_list(doc = "The outputs, if they are files."),
        "srcs": attr.label_list(allow_files = True),
        "stamped": attr.bool(doc = "Whether the tool gets Bazel's workspace status (--status)."),
        "tool": attr.label(mandatory = True, executable = True, cfg = "exec"),
    },
    doc = "Runs a tool that writes files; use the macro `document`.",
)

def document(name, outs = {}, folder = {}, stamped = False, **kwargs):
    """Runs a tool that writes files, or one folder.

    Args:
        name: the target.
        outs: flag → file that the tool writes.
        folder: flag → folder, instead of `outs`.
        stamped: whether the tool gets --status if the build is stamped (--config=release).
        **kwargs: `tool`, `srcs`, `arguments` (see the rule) and common attributes.
    """
    _document(
        name = name,
        outs = outs.values(),
        flags = outs.keys() + folder.keys(),
        folder = "".join(folder.values()),
        stamped = select({
            "//oci:stamped": True,
            "//conditions:default": False,
        }) if stamped else False,
        **kwargs
    )
