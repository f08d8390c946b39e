"""`edited_source`: a copy of an upstream file with changes. The original stays unchanged, and ships."""

def _edited_source_impl(ctx):
    ctx.actions.expand_template(
        template = ctx.file.src,
        output = ctx.outputs.out,
        substitutions = ctx.attr.edits,
    )

edited_source = rule(
    implementation = _edited_source_impl,
    doc = """A copy of a source with texts replaced. A missing text is not an error, but the test of the change then fails.

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
    },
)
