"""The rule behind //docs:site."""

def _docs_site_impl(ctx):
    site = ctx.actions.declare_directory(ctx.label.name)
    arguments = ctx.actions.args()
    arguments.add("--config", ctx.file.config)
    arguments.add("--output", site.path)
    arguments.add_all(ctx.attr.public, before_each = "--public")
    arguments.add_all(ctx.files.srcs)
    ctx.actions.run(
        executable = ctx.executable._build_site,
        arguments = [arguments],
        inputs = ctx.files.srcs + [ctx.file.config],
        outputs = [site],
        mnemonic = "DocsSite",
        progress_message = "Building documentation %{label}",
    )
    return [DefaultInfo(files = depset([site]), runfiles = ctx.runfiles([site]))]

docs_site = rule(
    implementation = _docs_site_impl,
    doc = """The documentation as a folder of HTML pages that need no network.

Example:

    docs_site(
        name = "site",
        srcs = ["index.md", "//wheels:docs"],
        config = "mkdocs.yml",
        public = ["wheels/defs.bzl"],
    )
""",
    attrs = {
        "config": attr.label(mandatory = True, allow_single_file = [".yml"], doc = "mkdocs.yml."),
        "public": attr.string_list(doc = "Paths of those Starlark files among `srcs` that the reference describes, in its order."),
        "srcs": attr.label_list(mandatory = True, allow_files = True, doc = "Pages, pictures, and the Starlark files of `public` with what they load."),
        "_build_site": attr.label(default = "//docs:build_site", executable = True, cfg = "exec"),
    },
)
