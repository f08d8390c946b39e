"""oci_load of the rules_oci stand-in."""

# buildifier: disable=bzl-visibility
load("@rules_python//python/private:runtime.bzl", "RUNS_PYTHON")

# buildifier: disable=bzl-visibility
load("@rules_python//python/private:stand_in.bzl", "COMMON", "TOOLCHAIN_TYPE", "check", "python_launcher", "run_python")

def _text_impl(ctx):
    ctx.actions.write(ctx.outputs.out, ctx.attr.text)

_text = rule(
    implementation = _text_impl,
    attrs = {
        "out": attr.output(mandatory = True),
        "text": attr.string(),
    },
    doc = "Writes a text file.",
)

def _tags_file(name, tags, kwargs):
    """Turns a list of tags into the label of a file with them; returns a label unchanged."""
    if type(tags) != "list":
        return tags
    _text(
        name = name + "_write_tags",
        out = name + ".tags.txt",
        text = "".join([tag + "\n" for tag in tags]),
        tags = ["manual"],
        **{key: kwargs[key] for key in ["target_compatible_with", "testonly"] if key in kwargs}
    )
    return name + "_write_tags"

def _oci_load_impl(ctx):
    archive = ctx.actions.declare_file(ctx.label.name + "/tarball.tar")
    run_python(
        ctx,
        script = ctx.file._archive,
        arguments = ["--layout", ctx.file.image.path, "--format", ctx.attr.format, "--tags", ctx.file.repo_tags.path, "--output", archive.path],
        inputs = depset([ctx.file.image, ctx.file.repo_tags]),
        outputs = [archive],
        mnemonic = "OCITarball",
        progress_message = "Writing archive of %{label}",
    )
    loader = ["--loader", ctx.executable.loader] if ctx.executable.loader else []
    info = python_launcher(
        ctx,
        script = ctx.file._archive,
        arguments = ["--layout", ctx.file.image, "--format", ctx.attr.format, "--tags", ctx.file.repo_tags] + loader,
        runfiles = [ctx.attr.loader[DefaultInfo].default_runfiles] if loader else [],
    )

    # The archive is as large as the image, so it is built only on request.
    return [info, OutputGroupInfo(tarball = depset([archive]))]

_LOAD_ATTRS = {
    "format": attr.string(default = "docker", values = ["docker", "oci"], doc = "docker for an oci_image, oci for an oci_image_index."),
    "image": attr.label(mandatory = True, allow_single_file = True, doc = "An oci_image or oci_image_index."),
    "loader": attr.label(executable = True, cfg = "target", doc = "Container tool instead of docker, podman or nerdctl on PATH."),
    "repo_tags": attr.label(mandatory = True, allow_single_file = [".txt"], doc = "File with one repository:tag per line."),
}

oci_load_rule = rule(
    implementation = _oci_load_impl,
    attrs = _LOAD_ATTRS | RUNS_PYTHON | {
        "_archive": attr.label(default = ":archive.py", allow_single_file = True),
    },
    doc = "Loads an image; use the macro oci_load.",
    executable = True,
    toolchains = [TOOLCHAIN_TYPE],
)

def oci_load(name, repo_tags = None, **kwargs):
    """Defines a runnable target that loads an image into docker, podman or nerdctl; output group `tarball` is the archive.

    Args:
        name: the target's name.
        repo_tags: names for the image, a list, or a file with one per line.
        **kwargs: upstream's attributes, see _LOAD_ATTRS; others are an error.
    """
    check("@rules_oci//oci:defs.bzl%oci_load", name, kwargs, _LOAD_ATTRS.keys() + COMMON)
    oci_load_rule(name = name, repo_tags = _tags_file(name, repo_tags, kwargs), **kwargs)
