"""The rule behind `mlc_model_oci`."""

load(":mlc_model.bzl", "MlcModelInfo")

def _mlc_model_oci_impl(ctx):
    model = ctx.attr.model[MlcModelInfo]
    image = ctx.actions.declare_directory(ctx.label.name)
    modelpack = ctx.actions.declare_directory(ctx.label.name + ".modelpack")
    arguments = ctx.actions.args()
    arguments.add("--name", ctx.attr.model_name or ctx.attr.model.label.name)
    arguments.add_all("--weights", [model.weights], expand_directories = False)
    arguments.add("--library", model.library)
    arguments.add("--labels", ctx.file.labels)
    licence = ctx.files.license_file
    arguments.add_all("--license-file", licence)
    arguments.add("--origin", str(ctx.label))
    compressor = depset()
    if ctx.attr.zstd:
        arguments.add("--zstd", ctx.executable.zstd)

        # The program finds its libraries next to itself.
        compressor = depset([ctx.executable.zstd], transitive = [ctx.attr.zstd[DefaultInfo].default_runfiles.files])
    arguments.add_all("--image", [image], expand_directories = False)
    arguments.add_all("--modelpack", [modelpack], expand_directories = False)

    # One action makes both, so that they share blobs on the disk.
    ctx.actions.run(
        outputs = [image, modelpack],
        inputs = depset([model.weights, model.library, ctx.file.labels] + licence, transitive = [compressor]),
        executable = ctx.executable._make_model_oci,
        arguments = [arguments],
        mnemonic = "MlcModelOci",
        progress_message = "Packing model %{label}",
    )
    return [
        DefaultInfo(files = depset([image]), runfiles = ctx.runfiles([image])),
        OutputGroupInfo(modelpack = depset([modelpack])),
    ]

mlc_model_oci_rule = rule(
    implementation = _mlc_model_oci_impl,
    doc = "Use the macro mlc_model_oci of //models:defs.bzl.",
    attrs = {
        "labels": attr.label(mandatory = True, allow_single_file = True, doc = "`image_labels` of //oci:defs.bzl."),
        "license_file": attr.label(allow_single_file = True, doc = "Text of the model's licence, LICENSE in the model's folder."),
        "model": attr.label(mandatory = True, providers = [MlcModelInfo], doc = "An `mlc_model`."),
        "model_name": attr.string(doc = "The model's folder below /models; default: the name of `model`."),
        "zstd": attr.label(allow_single_file = True, executable = True, cfg = "exec", doc = "The program that compresses layers, if any."),
        "_make_model_oci": attr.label(default = "//models/private:make_model_oci", executable = True, cfg = "exec"),
    },
)
