"""`edited_source`: a copy of an upstream file with changes. The original stays unchanged, and ships."""

def _edited_source_impl(ctx):
    edits = ctx.actions.declare_file(ctx.label.name + ".edits.json")
    ctx.actions.write(edits, json.encode(ctx.attr.edits))
    arguments = ctx.actions.args()
    arguments.add(ctx.file.src)
    arguments.add("--edits", edits)
    arguments.add("--output", ctx.outputs.out)
    ctx.actions.run(
        outputs = [ctx.outputs.out],
        inputs = [ctx.file.src, edits],
        executable = ctx.executable._tool,
        arguments = [arguments],
        mnemonic = "EditSource",
        progress_message = "Editing {}".format(ctx.file.src.short_path),
    )

edited_source = rule(
    implementation = _edited_source_impl,
    doc = """A copy of a source with texts replaced. A missing text is an error of the build.

Example:

    edited_source(
        name = "edited_utils",
        src = "utils.cc",
        out = "edited/utils.cc",
        edits = {"static thread_local Entry entry;": "static thread_local Entry& entry = *new Entry();"},
    )
""",
    attrs = {
        "edits": attr.string_dict(mandatory = True, doc = "Text → replacement."),
        "out": attr.output(mandatory = True, doc = "The copy."),
        "src": attr.label(mandatory = True, allow_single_file = True, doc = "The upstream file."),
        "_tool": attr.label(default = "//third_party/tvm:edit_source", executable = True, cfg = "exec"),
    },
)
