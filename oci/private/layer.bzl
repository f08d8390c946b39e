"""The rule behind debian_layer and tree_layer: one description, one tool, one tar.gz."""

def _selected(ctx, tree, number):
    """The files of a tree that the layer takes, as a tree of their own: a change of the others leaves the layer, slow to compress, as it is."""
    if not ctx.attr.include and not ctx.attr.exclude:
        return tree
    selected = ctx.actions.declare_directory("{}.selected/{}".format(ctx.label.name, number))
    arguments = ctx.actions.args()
    arguments.add_all("--from", [tree], expand_directories = False)
    arguments.add_all("--to", [selected], expand_directories = False)
    arguments.add_all(ctx.attr.include, before_each = "--include")
    arguments.add_all(ctx.attr.exclude, before_each = "--exclude")
    ctx.actions.run(
        executable = ctx.executable._select_files,
        arguments = [arguments],
        inputs = [tree],
        outputs = [selected],
        mnemonic = "SelectFiles",
        progress_message = "Selecting files for image layer %{label}",
    )
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
            trees.append((_selected(ctx, tree, len(trees)), path))
    ctx.actions.write(spec, json.encode_indent({
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
        "concatenations": attr.string_dict(doc = "Path → glob of this layer's files to join there."),
        "console_scripts": attr.string(doc = "Folder for the commands that the trees' distributions define."),
        "copies": attr.string_dict(doc = "Path → path of this layer's file to copy there."),
        "directories": attr.string_dict(doc = "Path → \"mode uid gid\"."),
        "exclude": attr.string_list(doc = "Globs of paths to leave out."),
        "files": attr.label_keyed_string_dict(allow_files = True, doc = "File → \"path\" or \"path:mode\" (mode 0644); a path with a final slash is a folder."),
        "include": attr.string_list(doc = "Globs of the only paths to take from trees."),
        "packages": attr.label_list(allow_files = [".deb"], doc = "Debian packages."),
        "symlinks": attr.string_dict(doc = "Path → target."),
        "trees": attr.label_keyed_string_dict(doc = "Folder (tree artifact) → path."),
        "_make_layer": attr.label(default = "//oci/private:make_layer", executable = True, cfg = "exec"),
        "_select_files": attr.label(default = "//oci/private:select_files", executable = True, cfg = "exec"),
    },
)
