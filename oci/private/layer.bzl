"""The rule behind debian_layer and tree_layer: one description, one tool, one tar.gz."""

load("//wheels:defs.bzl", "PythonEnvironmentInfo", "install_wheels")

def _selected(ctx, target, tree, number):
    """The files of a tree that the layer takes.

    Of a Python environment, only those files are installed, straight from its wheels: a change of other files leaves the
    layer, slow to compress, as it is.
    """
    if not ctx.attr.include and not ctx.attr.exclude:
        return tree
    if PythonEnvironmentInfo not in target:
        fail("{}: `include` and `exclude` choose among a python_environment's files, which {} is not".format(ctx.label, target.label))
    selected = ctx.actions.declare_directory("{}.selected/{}".format(ctx.label.name, number))
    install_wheels(ctx, selected, target[PythonEnvironmentInfo], include = ctx.attr.include, exclude = ctx.attr.exclude)
    return selected

def _layer_impl(ctx):
    output = ctx.actions.declare_file(ctx.label.name + ".tar.gz")
    spec = ctx.actions.declare_file(ctx.label.name + ".json")
    files = []
    for target, path in ctx.attr.files.items():
        sources = target[DefaultInfo].files.to_list()
        for source in sources:
            # A path that ends in a slash is a folder: the files keep their names.
            place = path.split(":")[0]
            files.append([source.path, place + source.basename if place.endswith("/") else place, (path + ":0644").split(":")[1]])
    trees = []
    for target, path in ctx.attr.trees.items():
        for tree in target[DefaultInfo].files.to_list():
            if not tree.is_directory:
                fail("{}: trees takes folders (tree artifacts), and {} is the file {}".format(ctx.label, target.label, tree.short_path))
            trees.append((_selected(ctx, target, tree, len(trees)), path))
    ctx.actions.write(spec, json.encode_indent({
        "bytecode": ctx.attr.bytecode,
        "concatenations": ctx.attr.concatenations,
        "console_scripts": ctx.attr.console_scripts,
        "copies": ctx.attr.copies,
        "directories": ctx.attr.directories,
        "exclude": ctx.attr.exclude if ctx.files.packages else [],
        "files": files,
        "packages": [file.path for file in ctx.files.packages],
        "symlinks": ctx.attr.symlinks,
        "trees": [[tree.path, path] for tree, path in trees],
    }))
    ctx.actions.run(
        executable = ctx.executable._make_layer,
        arguments = ["--spec", spec.path, "--output", output.path],
        inputs = [spec] + ctx.files.packages + [tree for tree, _ in trees] + ctx.files.files,
        outputs = [output],
        mnemonic = "ImageLayer",
        progress_message = "Making image layer %{label}",
    )
    return [DefaultInfo(files = depset([output]))]

layer = rule(
    implementation = _layer_impl,
    doc = "One image layer (tar.gz). Paths in the image have no leading slash; see make_layer.py for what each attribute does.",
    attrs = {
        "bytecode": attr.bool(doc = "Whether to add bytecode for the layer's Python modules, which else each first start of a container compiles."),
        "concatenations": attr.string_dict(doc = "Path → glob of this layer's files to join there."),
        "console_scripts": attr.string(doc = "Folder for the commands that the trees' distributions define."),
        "copies": attr.string_dict(doc = "Path → path of this layer's file to copy there."),
        "directories": attr.string_dict(doc = "Path → \"mode uid gid\"."),
        "exclude": attr.string_list(doc = "Globs of paths to omit from packages, or from `trees`, which are then Python environments."),
        "files": attr.label_keyed_string_dict(allow_files = True, doc = "File → \"path\" or \"path:mode\" (mode 0644); a path with a final slash is a folder."),
        "include": attr.string_list(doc = "Globs of the only paths to take from `trees`, which are then Python environments. Each must match a file."),
        "packages": attr.label_list(allow_files = [".deb"], doc = "Debian packages."),
        "symlinks": attr.string_dict(doc = "Path → target."),
        "trees": attr.label_keyed_string_dict(doc = "Folder (tree artifact) → path."),
        "_make_layer": attr.label(default = "//oci/private:make_layer", executable = True, cfg = "exec"),
    },
)
