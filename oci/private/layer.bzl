"""The rule behind debian_layer and tree_layer: one description, one tool, one archive."""

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

# Compression → ending of the archive's name, by which make_layer.py knows it.
_ENDINGS = {
    "gzip": ".tar.gz",
    "none": ".tar",
    "zstd": ".tar.zst",
}

LayerCompressionInfo = provider(
    doc = "The default compression of layers.",
    fields = {"compression": "A key of _ENDINGS."},
)

def _layer_compression_impl(ctx):
    if ctx.build_setting_value not in _ENDINGS:
        fail("--{}: expected {}, found {}".format(ctx.label, " or ".join(_ENDINGS.keys()), repr(ctx.build_setting_value)))
    return [LayerCompressionInfo(compression = ctx.build_setting_value)]

layer_compression = rule(
    implementation = _layer_compression_impl,
    doc = "A setting: the default compression of layers.",
    build_setting = config.string(flag = True),
)

# What zstd takes; oci/layer.py bounds its threads.
def _resources_of_zstd(_os, _inputs):
    return {"cpu": 2, "memory": 256}

def _layer_impl(ctx):
    compression = ctx.attr.compression or ctx.attr._compression[LayerCompressionInfo].compression
    output = ctx.actions.declare_file(ctx.label.name + _ENDINGS[compression])
    spec = ctx.actions.declare_file(ctx.label.name + ".json")
    written = ctx.actions.declare_file(ctx.label.name + ".written.json")
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
        arguments = ["--spec", spec.path, "--output", output.path, "--label", str(ctx.label), "--written", written.path],
        inputs = [spec] + ctx.files.packages + [tree for tree, _ in trees] + ctx.files.files,
        outputs = [output, written],
        mnemonic = "ImageLayer",
        resource_set = _resources_of_zstd if compression == "zstd" else None,
        progress_message = "Making image layer %{label}",
    )

    # A rule for images that knows this group need not read and decompress the archive.
    return [DefaultInfo(files = depset([output])), OutputGroupInfo(layer_written = depset([written]))]

layer = rule(
    implementation = _layer_impl,
    doc = "One image layer. Paths in the image have no leading slash; see make_layer.py for what each attribute does.",
    attrs = {
        "bytecode": attr.bool(doc = "Whether to add bytecode for the layer's Python modules, which else each first start of a container compiles."),
        "compression": attr.string(
            values = [""] + _ENDINGS.keys(),
            doc = "How the archive is compressed; `none` is for what hardly shrinks. By default, as --//oci:compression says.",
        ),
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
        "_compression": attr.label(default = "//oci:compression"),
        "_make_layer": attr.label(default = "//oci/private:make_layer", executable = True, cfg = "exec"),
    },
)
