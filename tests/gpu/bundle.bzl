"""`bundle`: one archive with all that a program needs, for machines that have neither Bazel nor a network."""

def _bundle_impl(ctx):
    output = ctx.actions.declare_file(ctx.label.name + ".tar.xz")
    specification = ctx.actions.declare_file(ctx.label.name + ".json")
    files = []
    for target, folder in ctx.attr.files.items():
        for file in target[DefaultInfo].files.to_list():
            # A folder that a rule made is what it has in it; files of another repository keep their places in it, others only their names.
            repository = target.label.workspace_root
            if file.is_directory:
                path = folder
            elif repository and file.path.startswith(repository + "/"):
                path = folder + "/" + file.path[len(repository) + 1:]
            else:
                path = folder + "/" + file.basename
            files.append([file.path, path.removeprefix("/")])
    ctx.actions.write(specification, json.encode_indent({
        "exclude": ctx.attr.exclude,
        "files": files,
        "folder": ctx.label.name,
    }))
    ctx.actions.run(
        executable = ctx.executable._make_bundle,
        arguments = ["--specification", specification.path, "--output", output.path],
        inputs = [specification] + ctx.files.files,
        outputs = [output],
        mnemonic = "Bundle",
        progress_message = "Packing %{label}",
    )
    return [DefaultInfo(files = depset([output]))]

bundle = rule(
    implementation = _bundle_impl,
    doc = """The archive `<name>.tar.xz`, in which everything is in the folder `<name>`; the same bytes for the same content.

Example:

    bundle(
        name = "bundle",
        exclude = ["*/tests/*"],
        files = {
            "run": "",
            "//wheels:dependencies": "packages/dependencies",
            "@debian_python//:files": "python",
        },
    )
""",
    attrs = {
        "exclude": attr.string_list(doc = "Globs of paths in the folder to leave out; `*` matches `/` too."),
        "files": attr.label_keyed_string_dict(allow_files = True, mandatory = True, doc = "Label → folder in the archive, \"\" for the top."),
        "_make_bundle": attr.label(default = "//tests/gpu:make_bundle", executable = True, cfg = "exec"),
    },
)
