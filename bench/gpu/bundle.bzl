"""Archives for machines that have neither Bazel nor a network: `bundle`, and `bundle_files` for parts of one."""

BundleInfo = provider(
    doc = "What a part of a bundle adds to the archive.",
    fields = {
        "entries": "List of (file, path in the archive) pairs; a directory stands for everything in it.",
        "exclude": "List of globs of paths in the archive to leave out.",
    },
)

_ATTRS = {
    "exclude": attr.string_list(doc = "Globs of paths in the archive to leave out, whichever part they come from; `*` also matches `/`."),
    "files": attr.label_keyed_string_dict(allow_files = True, doc = "Label → folder in the archive, \"\" for the top."),
    "parts": attr.label_list(providers = [BundleInfo], doc = "`bundle_files` targets whose files and globs are added after these."),
}

def _bundle_info(ctx):
    entries = []
    for target, folder in ctx.attr.files.items():
        repository = target.label.workspace_root
        for file in target[DefaultInfo].files.to_list():
            # Packages of another repository keep their layout; anything else is flattened to its name.
            if file.is_directory:
                path = folder
            elif repository and file.path.startswith(repository + "/"):
                path = folder + "/" + file.path[len(repository) + 1:]
            else:
                path = folder + "/" + file.basename
            entries.append((file, path.removeprefix("/")))
    exclude = list(ctx.attr.exclude)
    for part in ctx.attr.parts:
        entries += part[BundleInfo].entries
        exclude += part[BundleInfo].exclude
    return BundleInfo(entries = entries, exclude = exclude)

def _bundle_files_impl(ctx):
    info = _bundle_info(ctx)
    return [info, DefaultInfo(files = depset([file for file, _ in info.entries]))]

def _bundle_impl(ctx):
    info = _bundle_info(ctx)
    output = ctx.actions.declare_file(ctx.label.name + ".tar.xz")
    specification = ctx.actions.declare_file(ctx.label.name + ".json")
    ctx.actions.write(specification, json.encode_indent({
        "exclude": info.exclude,
        "files": [[file.path, path] for file, path in info.entries],
        "folder": ctx.label.name,
    }))
    ctx.actions.run(
        executable = ctx.executable._make_bundle,
        arguments = ["--specification", specification.path, "--output", output.path],
        inputs = [specification] + [file for file, _ in info.entries],
        outputs = [output],
        mnemonic = "Bundle",
        progress_message = "Packing %{label}",
    )
    return [DefaultInfo(files = depset([output]))]

bundle_files = rule(
    implementation = _bundle_files_impl,
    doc = """Part of a `bundle`: files, and where the archive puts them.

Example:

    bundle_files(
        name = "measurements",
        files = {
            "measure.py": "bench",
            "//wheels:dependencies": "shared",
        },
    )
""",
    attrs = _ATTRS,
)

bundle = rule(
    implementation = _bundle_impl,
    doc = """The reproducible archive `<name>.tar.xz`, with everything in the folder `<name>`. Of two files with the same path, the first wins.

Example:

    bundle(
        name = "bundle",
        exclude = ["*/tests/*"],
        files = {
            "run": "",
            "@debian_python//:files": "python",
        },
        parts = [":measurements"],
    )
""",
    attrs = _ATTRS | {
        "_make_bundle": attr.label(default = "//bench/gpu:make_bundle", executable = True, cfg = "exec"),
    },
)
