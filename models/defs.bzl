"""Public rules of models: `mlc_model` compiles one, `mlc_model_image` puts it into an image; `cpu_target` says what to compile for."""

load("@rules_oci//oci:defs.bzl", "oci_image")
load("//images:defs.bzl", "tree_layer")
load("//models/private:mlc_model.bzl", "mlc_model_rule", _MlcModelInfo = "MlcModelInfo")

MlcModelInfo = _MlcModelInfo

def cpu_target(mcpu = "x86-64-v3"):
    """A Linux CPU to compile for, for `mlc_model(target = ...)`.

    Never the machine that builds: the same library on every machine.

    Args:
        mcpu: LLVM's name of the CPU. x86-64-v3 is what AVX2 machines since 2013 run; x86-64-v4 needs AVX-512; x86-64-v2 runs anywhere.
    """
    llvm = {"kind": "llvm", "mtriple": "x86_64-unknown-linux-gnu", "mcpu": mcpu}
    return json.encode(llvm | {"host": llvm})

def mlc_model(name, **kwargs):
    """A model for mlc-llm's engine: the folder `<name>` of weights, tokenizer and mlc-chat-config.json, and the library `<name>.so`.

    Compiled by the TVM of this build, which is the one that will run it; the bytes depend on the model, the target and the build alone.

        mlc_model(
            name = "tiny",
            conv_template = "chatml",
            model_dir = ":checkpoint",
            quantization = "q0f32",
            target = cpu_target(),
        )

    Args:
        name: the target, of both; `<name>.weights` and `<name>.library` are the two alone.
        **kwargs: `model_dir`, `quantization`, `target`, `conv_template`, ... (see private/mlc_model.bzl) and common attributes.
    """
    mlc_model_rule(name = name, **kwargs)
    common = {key: kwargs[key] for key in ["tags", "target_compatible_with", "testonly", "visibility"] if key in kwargs}
    for output_group in ["library", "weights"]:
        native.filegroup(
            name = "{}.{}".format(name, output_group),
            srcs = [name],
            output_group = output_group,
            **common
        )

def mlc_model_image(name, model, base = "//images/mlc_llm", **kwargs):
    """An image that serves a model: weights and library as layers of their own on an image with mlc-llm, so that an update of one moves that one.

        mlc_model_image(
            name = "tiny_image",
            model = ":tiny",
        )

    They are at /models/<model> and /models/<model>.so. Started without a command it serves; `docker run -p 8000:8000 IMAGE`.

    Args:
        name: the image, an OCI layout; `<name>.weights` and `<name>.library` are its layers.
        model: an `mlc_model`.
        base: the image that it adds to.
        **kwargs: what oci_image takes.
    """
    label = native.package_relative_label(model)
    folder = "models/" + label.name
    tree_layer(
        name = name + ".weights",
        trees = {str(label) + ".weights": folder},
    )
    tree_layer(
        name = name + ".library",
        files = {str(label) + ".library": folder + ".so:0755"},
    )
    oci_image(
        name = name,
        base = base,
        cmd = ["serve", "/" + folder],
        # Weights change less often than the compiler that makes the library.
        tars = [
            name + ".weights",
            name + ".library",
        ],
        **kwargs
    )
