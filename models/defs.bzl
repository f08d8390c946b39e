"""Public rules of models: `mlc_model` compiles one, `mlc_model_library` one whose weights come later, `mlc_model_image` puts it into an image;
`relax_library` compiles a Relax module. `cpu_target` and `cuda_target` say what to compile for."""

load("@rules_oci//oci:defs.bzl", "oci_image")
load("//models/private:mlc_model.bzl", "mlc_model_rule", _MlcModelInfo = "MlcModelInfo")
load("//models/private:relax_library.bzl", "relax_library_rule")
load("//oci:defs.bzl", "tree_layer")
load("//toolchains/cuda:defs.bzl", "NEEDS_CUDA")

MlcModelInfo = _MlcModelInfo

# What this build has of what mlc_llm can use on a GPU: CUDA graphs are in TVM's runtime. FlashInfer and CUTLASS are not there, and TVM's compiler
# is the official one, without the code generator for cuBLAS, so that the presets O1 to O3 fail.
_CUDA_OPT = "flashinfer=0;cublas_gemm=0;faster_transformer=0;cutlass=0;cudagraph=1"

def _llvm(mcpu):
    return {"kind": "llvm", "mtriple": "x86_64-unknown-linux-gnu", "mcpu": mcpu}

def cpu_target(mcpu = "x86-64-v3"):
    """A Linux CPU to compile for, for `mlc_model(target = ...)` and `relax_library(target = ...)`.

    Never the machine that builds: the same library on every machine.

    Args:
        mcpu: LLVM's name of the CPU. x86-64-v3 is what AVX2 machines since 2013 run; x86-64-v4 needs AVX-512; x86-64-v2 runs anywhere.
    """
    return json.encode(_llvm(mcpu) | {"host": _llvm(mcpu)})

def cuda_target(arch = "sm_90", mcpu = "x86-64-v3"):
    """An NVIDIA GPU to compile for, for `mlc_model(target = ...)` and `relax_library(target = ...)`; the machine that builds needs none.

    Args:
        arch: sm_90 is Hopper (H100, H200), sm_89 Ada, sm_80 Ampere (A100), sm_100 and sm_120 Blackwell. Runs on it and on later ones of the same
            generation, sm_80 on sm_86 and sm_89 too; with a letter, as sm_90a, on that one alone.
        mcpu: of the CPU that starts the kernels, as in `cpu_target`.
    """
    if not arch.startswith("sm_") or not arch[len("sm_"):].rstrip("af").isdigit():
        fail("cuda_target: expected arch as nvcc names it, sm_90 or sm_90a, found {}".format(repr(arch)))
    return json.encode({
        "arch": arch,
        "host": _llvm(mcpu),
        "keys": ["cuda", "gpu"],
        "kind": "cuda",
        # The same for all of these architectures, as in TVM's own targets: bytes that a block has without asking the driver for more, threads, 32-bit registers.
        "max_shared_memory_per_block": 49152,
        "max_threads_per_block": 1024,
        "registers_per_block": 65536,
        "thread_warp_size": 32,
    })

def _is_cuda(target):
    """Whether a target is a GPU; fails if it is none of cpu_target() and cuda_target()."""
    decoded = json.decode(target, default = None) if type(target) == "string" else None
    if type(decoded) != "dict" or "kind" not in decoded:
        fail("expected target = cpu_target() or cuda_target(), found {}".format(target))
    return decoded["kind"] == "cuda"

def _with_nvcc(target, target_compatible_with = [], **kwargs):
    """Attributes of a rule that compiles for a target: with nvcc for GPUs, so that without --config=cuda nothing of CUDA is fetched."""
    if not _is_cuda(target):
        return kwargs | {"target": target, "target_compatible_with": target_compatible_with}
    return kwargs | {
        "nvcc": Label("//toolchains/cuda:nvcc"),
        "nvcc_files": Label("//toolchains/cuda:nvcc_files"),
        "target": target,
        "target_compatible_with": NEEDS_CUDA + target_compatible_with,
    }

def relax_library(name, src, function, arguments = {}, pass_config = {}, **kwargs):
    """The library `<name>.so`: the module that a function in a Python file returns, compiled by the TVM of this build.

    For a GPU the library has machine code of its architecture, and kernels that have no schedule get TVM's default one (dlight); one that is scheduled by hand
    says so, with the attribute tirx.is_scheduled. The machine that builds needs no GPU.

        relax_library(
            name = "softmax",
            src = "softmax.py",
            function = "module",
            arguments = {"dtype": "float16"},
            target = cuda_target("sm_90"),
        )

    In Python: `relax.VirtualMachine(tvm.runtime.load_module("softmax.so"), tvm.cuda())`.

    Args:
        name: the target.
        src: Python file; it imports TVM and what TVM depends on.
        function: name of the function in it, which returns a tvm.IRModule.
        arguments: keyword arguments of the function: a dict of what JSON can hold.
        pass_config: options of TVM's passes, such as {"relax.backend.use_cuda_graph": True}.
        **kwargs: `target` (cpu_target() or cuda_target()) and common attributes.
    """
    relax_library_rule(
        name = name,
        src = src,
        arguments = json.encode(arguments),
        function = function,
        pass_config = json.encode(pass_config),
        **_with_nvcc(**kwargs)
    )

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

    For a GPU: `target = cuda_target()` and a quantization of 16-bit floats, such as q0f16 and q4f16_1. Weights are made on the CPU all the same.

    Args:
        name: the target, of both; `<name>.weights` and `<name>.library` are the two alone.
        **kwargs: `model_dir`, `quantization`, `target`, `conv_template`, ... (see private/mlc_model.bzl) and common attributes.
    """
    kwargs = _with_nvcc(**kwargs)
    if _is_cuda(kwargs["target"]):
        kwargs.setdefault("opt", _CUDA_OPT)
    mlc_model_rule(name = name, **kwargs)
    common = {key: kwargs[key] for key in ["tags", "target_compatible_with", "testonly", "visibility"] if key in kwargs}
    for output_group in ["library", "weights"]:
        native.filegroup(
            name = "{}.{}".format(name, output_group),
            srcs = [name],
            output_group = output_group,
            **common
        )

def mlc_model_library(name, config, **kwargs):
    """A model without weights: the folder `<name>` with mlc-chat-config.json alone, and the library `<name>.so`.

    For weights that are made elsewhere: the library only depends on the shape of the model.

        mlc_model_library(
            name = "llama_1b",
            config = "llama_1b/config.json",
            conv_template = "chatml",
            quantization = "q0f16",
            target = cuda_target("sm_90"),
        )

    Args:
        name: as of `mlc_model`.
        config: config.json as Hugging Face's hub has it; with a tokenizer, a folder or filegroup of both.
        **kwargs: as of `mlc_model`.
    """
    mlc_model(
        name = name,
        convert_weights = False,
        model_dir = config,
        **kwargs
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
