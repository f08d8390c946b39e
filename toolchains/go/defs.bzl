"""`go_tool`: a program compiled from the modules of go.mod."""

def _go_tool_impl(ctx):
    program = ctx.actions.declare_file(ctx.label.name)
    arguments = ctx.actions.args()
    arguments.add("--go", ctx.file._go)
    arguments.add("--sources", ctx.file._go_mod)
    arguments.add("--package", ctx.attr.package)
    arguments.add("--output", program)
    ctx.actions.run(
        outputs = [program],
        inputs = depset([ctx.file._go], transitive = [ctx.attr._files.files, ctx.attr._sources.files]),
        executable = ctx.executable._compile,
        arguments = [arguments],
        mnemonic = "GoBuild",
        progress_message = "Compiling Go program %{label}",
        resource_set = _resources,
    )
    return [DefaultInfo(files = depset([program]), executable = program)]

def _resources(_os, _inputs):
    return {"cpu": 2, "memory": 1024}

go_tool = rule(
    implementation = _go_tool_impl,
    doc = """Compiles a static program from the modules in fetch/go/go.mod.

Example:

    go_tool(
        name = "buildifier",
        package = "github.com/bazelbuild/buildtools/buildifier",
    )
""",
    executable = True,
    attrs = {
        "package": attr.string(mandatory = True, doc = "Import path of the program's package, a `tool` of go.mod."),
        "_compile": attr.label(default = "//toolchains/go:compile", executable = True, cfg = "exec"),
        "_files": attr.label(default = "@debian_go//:files", cfg = "exec"),
        "_go": attr.label(default = "@debian_go//:usr/lib/go-1.24/bin/go", allow_single_file = True, cfg = "exec"),
        "_go_mod": attr.label(default = "@go_tools//:go.mod", allow_single_file = True),
        "_sources": attr.label(default = "@go_tools//:sources"),
    },
)
