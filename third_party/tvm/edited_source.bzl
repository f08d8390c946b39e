"""`edited_source`: a copy of an upstream file with defects mended; the file itself stays, and ships, as it is."""

def _edited_source_impl(ctx):
    ctx.actions.expand_template(
        template = ctx.file.src,
        output = ctx.outputs.out,
        substitutions = ctx.attr.edits,
    )

edited_source = rule(
    implementation = _edited_source_impl,
    doc = """A copy of a source with texts replaced. A text that is not there is no error: the test of what was mended tells.

Example:

    edited_source(
        name = "edited_utils",
        src = "utils.cc",
        out = "edited/utils.cc",
        edits = {"static thread_local Entry entry;": "static thread_local Entry& entry = *new Entry();"},
    )
""",
    attrs = {
        "edits": attr.string_dict(mandatory = True, doc = "Text → what stands in its place."),
        "out": attr.output(mandatory = True, doc = "The copy."),
        "src": attr.label(mandatory = True, allow_single_file = True, doc = "The upstream file."),
    },
)
