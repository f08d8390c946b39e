"""oci_image and oci_image_index of the rules_oci stand-in."""

# buildifier: disable=bzl-visibility
load("@rules_python//python/private:runtime.bzl", "RUNS_PYTHON")

# buildifier: disable=bzl-visibility
load("@rules_python//python/private:stand_in.bzl", "COMMON", "check", "run_python")

_TAR_EXTENSIONS = [".tar", ".tgz", ".tar.gz", ".tzst", ".tar.zst"]

# Attributes that take a value or a file with the value, and the kind of conversion from value to file.
_VALUES_OR_FILES = {
    "annotations": "mapping",
    "cmd": "lines",
    "entrypoint": "lines",
    "env": "mapping",
    "exposed_ports": "list",
    "labels": "mapping",
    "volumes": "list",
}

def text_of(kind, value):
    """Converts an attribute's value to the file format that upstream documents."""
    if kind == "mapping":
        return "\n".join(["%s=%s" % item for item in value.items()])
    if kind == "lines":
        return "\n".join([word.replace("\n", "%5Cn") for word in value])
    return ",".join(value)

def _layout(ctx, kind, spec, inputs):
    """Registers the action that writes a layout; returns its providers."""
    output = ctx.actions.declare_directory(ctx.label.name)
    digest = ctx.actions.declare_file(ctx.label.name + ".json.sha256")
    spec_file = ctx.actions.declare_file(ctx.label.name + ".spec.json")
    ctx.actions.write(spec_file, json.encode_indent(spec | {"label": str(ctx.label)}))
    run_python(
        ctx,
        script = ctx.file._layout,
        arguments = [kind, "--spec", spec_file.path, "--output", output.path, "--digest", digest.path],
        inputs = depset([spec_file] + inputs),
        outputs = [output, digest],
        mnemonic = "OCIImage" if kind == "image" else "OCIIndex",
        progress_message = "Writing OCI %s %%{label}" % kind,
    )
    return [
        DefaultInfo(files = depset([output]), runfiles = ctx.runfiles([output])),
        OutputGroupInfo(digest = depset([digest])),
    ]

def _describe(ctx, index, layer):
    description = ctx.actions.declare_file("%s.%d.layer.json" % (ctx.label.name, index))
    run_python(
        ctx,
        script = ctx.file._descriptor,
        arguments = ["--layer", layer.path, "--label", str(layer.owner), "--output", description.path],
        inputs = depset([layer]),
        outputs = [description],
        mnemonic = "OCIDescriptor",
        progress_message = "Describing layer %{input}",
    )
    return description

def _described_layers(ctx):
    """Pairs of a layer's archive and its description: from its rule's output group, otherwise read from the archive."""
    pairs = []
    for target in ctx.attr.tars:
        files = target[DefaultInfo].files.to_list()
        written = getattr(target[OutputGroupInfo], "layer_written", depset()).to_list() if OutputGroupInfo in target else []
        if len(files) == 1 and len(written) == 1:
            pairs.append((files[0], written[0]))
        else:
            pairs += [(layer, _describe(ctx, len(pairs) + index, layer)) for index, layer in enumerate(files)]
    return pairs

def _oci_image_impl(ctx):
    platform = {key: getattr(ctx.attr, key) for key in ["architecture", "os", "variant"] if getattr(ctx.attr, key)}
    if ctx.attr.base and platform:
        fail("os, architecture and variant come from the base; remove them, or remove base")
    if not ctx.attr.base and not ("os" in platform and "architecture" in platform):
        fail("an image without base needs os and architecture")
    layers = _described_layers(ctx)
    files = {name: getattr(ctx.file, name) for name in _VALUES_OR_FILES.keys() + ["created"] if getattr(ctx.file, name)}
    values = dict(ctx.attr.values)
    values.update({name: getattr(ctx.attr, name) for name in ["user", "workdir"] if getattr(ctx.attr, name)})
    return _layout(
        ctx,
        "image",
        spec = {
            "base": ctx.file.base.path if ctx.file.base else None,
            "files": {name: file.path for name, file in files.items()},
            "layers": [(layer.path, description.path) for layer, description in layers],
            "platform": platform,
            "values": values,
        },
        inputs = [file for pair in layers for file in pair] + files.values() + ([ctx.file.base] if ctx.file.base else []),
    )

_IMAGE_ATTRS = {
    "architecture": attr.string(doc = "GOARCH; only without base."),
    "base": attr.label(allow_single_file = True, doc = "An oci_image to add to."),
    "created": attr.label(allow_single_file = True, doc = "File with the time of creation; 1970 by default."),
    "os": attr.string(doc = "GOOS; only without base."),
    "tars": attr.label_list(allow_files = _TAR_EXTENSIONS, doc = "Layers, lowest first; copied without changing their compression."),
    "user": attr.string(),
    "variant": attr.string(doc = "Variant of the architecture; only without base."),
    "workdir": attr.string(),
} | {
    name: attr.label(allow_single_file = True)
    for name in _VALUES_OR_FILES
}

oci_image_rule = rule(
    implementation = _oci_image_impl,
    attrs = _IMAGE_ATTRS | RUNS_PYTHON | {
        "values": attr.string_dict(doc = "Attributes with a value in the BUILD file: name to text."),
        "_descriptor": attr.label(default = ":descriptor.py", allow_single_file = True),
        "_layout": attr.label(default = ":layout.py", allow_single_file = True),
    },
    doc = "Builds an image; use the macro oci_image.",
)

def _digest(name, kwargs):
    native.filegroup(
        name = name + ".digest",
        srcs = [name],
        output_group = "digest",
        **{key: kwargs[key] for key in COMMON if key in kwargs and key != "toolchains"}
    )

def oci_image(name, **kwargs):
    """Builds an OCI image, a folder in the OCI image layout. `<name>.digest` is a file with its digest.

    Example:
        oci_image(
            name = "greeting",
            architecture = "amd64",
            entrypoint = ["/greet"],
            os = "linux",
            tars = [":greeting_layer"],
        )

    Args:
        name: the target's name.
        **kwargs: upstream's attributes, see _IMAGE_ATTRS; others are an error. annotations, env and labels take a
            dict or a file, cmd, entrypoint, exposed_ports and volumes a list or a file. entrypoint drops the base's cmd.
    """
    check("@rules_oci//oci:defs.bzl%oci_image", name, kwargs, _IMAGE_ATTRS.keys() + COMMON)
    values = {
        key: text_of(kind, kwargs.pop(key))
        for key, kind in _VALUES_OR_FILES.items()
        if type(kwargs.get(key)) in ["dict", "list"]
    }
    oci_image_rule(name = name, values = values, **kwargs)
    _digest(name, kwargs)

def _oci_image_index_impl(ctx):
    if ctx.attr.platforms and len(ctx.files.images) != len(ctx.attr.platforms):
        fail("oci_image_index with platforms: expected one target in images")
    return _layout(
        ctx,
        "index",
        spec = {"images": [image.path for image in ctx.files.images]},
        inputs = ctx.files.images,
    )

def _for_platforms_impl(settings, attr):
    key = "//command_line_option:platforms"
    return {str(platform): {key: str(platform)} for platform in attr.platforms} or {key: settings[key]}

_for_platforms = transition(
    implementation = _for_platforms_impl,
    inputs = ["//command_line_option:platforms"],
    outputs = ["//command_line_option:platforms"],
)

_INDEX_ATTRS = {
    "images": attr.label_list(mandatory = True, cfg = _for_platforms, doc = "oci_image targets; with platforms only one."),
    "platforms": attr.label_list(doc = "Platforms to build the image for."),
}

oci_image_index_rule = rule(
    implementation = _oci_image_index_impl,
    attrs = _INDEX_ATTRS | RUNS_PYTHON | {
        "_allowlist_function_transition": attr.label(default = "@bazel_tools//tools/allowlists/function_transition_allowlist"),
        "_layout": attr.label(default = ":layout.py", allow_single_file = True),
    },
    doc = "Builds an index; use the macro oci_image_index.",
)

def oci_image_index(name, **kwargs):
    """Builds an index of images for several platforms. `<name>.digest` is a file with its digest.

    Args:
        name: the target's name.
        **kwargs: `images`, `platforms` and what every rule has; others are an error.
    """
    check("@rules_oci//oci:defs.bzl%oci_image_index", name, kwargs, _INDEX_ATTRS.keys() + COMMON)
    oci_image_index_rule(name = name, **kwargs)
    _digest(name, kwargs)
