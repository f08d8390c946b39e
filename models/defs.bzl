"""Rules for models: `mlc_model` compiles one, `mlc_model_library` compiles one without weights, `mlc_model_image` puts one into an image,
`gguf_checkpoint` reads a GGUF file, `mlc_model_oci` packs a model as OCI artifacts, and `relax_library` compiles a Relax module. `cpu_target` and
`cuda_target` name the hardware to compile for."""

load("@rules_oci//oci:defs.bzl", "oci_image")
load("//images/mlc_llm_serve:cuda.bzl", "SERVE_CUDA_IMAGES")
load("//models/private:compile_tools.bzl", "archs")
load("//models/private:cpu_targets.bzl", "constraints", "llvm")
load("//models/private:gguf_checkpoint.bzl", "gguf_checkpoint_rule")
load("//models/private:mlc_model.bzl", "mlc_model_rule", _MlcModelInfo = "MlcModelInfo")
load("//models/private:mlc_model_oci.bzl", "mlc_model_oci_rule")
load("//models/private:relax_library.bzl", "relax_library_rule")
load("//models/private:serving_base.bzl", "serving_base")
load("//oci:defs.bzl", "common_attributes", "image_labels", "tree_layer")
load("//third_party/flashinfer:defs.bzl", "HEAD_DIMS")
load("//toolchains/cuda:defs.bzl", "NEEDS_CUDA")

MlcModelInfo = _MlcModelInfo

def _llvm(mcpu):
    """Returns TVM's target for a CPU. Without one the rule takes the oldest of the platform that it builds for."""
    return llvm(mcpu) if mcpu else {"kind": "llvm"}

def cpu_target(mcpu = ""):
    """A Linux CPU to compile for, for `mlc_model(target = ...)` and `relax_library(target = ...)`.

    This never means the machine that builds, so every machine builds the same library.

    Args:
        mcpu: the oldest CPU. By default it is x86-64-v2, or armv8-a if the build is for arm64: these run anywhere, and `mlc_model` needs no newer one: its
            hot functions are in mlc-llm, for AVX2 and AVX-512 too, and chosen when it starts. TVM's own kernels, as in `relax_library`, are for this CPU
            only: x86-64-v3 has AVX2, which most CPUs since 2013 have, x86-64-v4 has AVX-512, armv8.2-a+dotprod has dot products of 8-bit integers. A
            target for another processor than the build is skipped: see docs/users/arm64.md.
    """
    return json.encode(_llvm(mcpu) | {"host": _llvm(mcpu)})

def _generation(arch):
    """Returns the number of an architecture: 90 of sm_90a."""
    return int(arch.removeprefix("sm_").rstrip("af"))

def cuda_target(arch = "sm_90", *others, mcpu = "x86-64-v3"):
    """NVIDIA GPUs to compile for, for `mlc_model(target = ...)` and `relax_library(target = ...)`; the machine that builds needs no GPU.

    Args:
        arch: sm_90 is Hopper (H100, H200), sm_89 Ada, sm_80 Ampere (A100), sm_100 and sm_120 Blackwell. The code also runs on later
            architectures of the same generation, such as sm_80 on sm_86 and sm_89. With a letter, like sm_90a, it runs only on that one.
        *others: further architectures, in any order. The library then has machine code for each, and the GPU that loads it picks its own:
            cuda_target("sm_80", "sm_90", "sm_100") serves a mixed cluster. TVM writes kernels for the oldest.
        mcpu: LLVM's name of the oldest CPU that starts the kernels.
    """
    found = [arch] + list(others)
    for each in found:
        if not each.startswith("sm_") or not each[len("sm_"):].rstrip("af").isdigit():
            fail("cuda_target: expected arch as nvcc names it, sm_90 or sm_90a, found {}".format(repr(each)))
    found = sorted(found, key = _generation)
    return json.encode({
        "arch": found[0],
        "host": _llvm(mcpu),
        "keys": ["cuda", "gpu"],
        "kind": "cuda",
        # Equal for all these architectures, as in TVM's own targets: bytes of a block without asking the driver for more, threads, 32-bit registers.
        "max_shared_memory_per_block": 49152,
        "max_threads_per_block": 1024,
        "registers_per_block": 65536,
        "thread_warp_size": 32,
    } | ({"other_archs": found[1:]} if others else {}))

def _is_cuda(target):
    """Whether a target is a GPU. Fails unless it comes from cpu_target() or cuda_target()."""
    decoded = json.decode(target, default = None) if type(target) == "string" else None
    if type(decoded) != "dict" or "kind" not in decoded:
        fail("expected target = cpu_target() or cuda_target(), found {}".format(target))
    return decoded["kind"] == "cuda"

def _with_gpu_tools(target, target_compatible_with = [], kernels = [], **kwargs):
    """Returns a compiling rule's attributes. Only GPU targets get nvcc and kernels, so that other builds fetch nothing of CUDA."""
    if not _is_cuda(target):
        if kernels:
            fail("kernels: expected none for target = cpu_target(), found {}".format(kernels))
        return kwargs | {"target": target, "target_compatible_with": target_compatible_with + constraints(target)}
    return kwargs | {
        "kernels": kernels,
        "kernels_libraries": [
            Label("@nvidia_cuda_runtime//:nvidia/cu13/lib/libcudart.so.13"),
            Label("@tvm_ffi//:libtvm_ffi"),
        ] if kernels else [],
        "nvcc": Label("//toolchains/cuda:nvcc"),
        "nvcc_files": Label("//toolchains/cuda:nvcc_files"),
        "target": target,
        "target_compatible_with": NEEDS_CUDA + target_compatible_with + constraints(target),
    }

def _kernels(target, quantization, opt, head_dims):
    """Returns kernels for a model's types: attention, and products with its weights; none for a GPU before Ampere or a model without 16-bit floats.

    Args:
        target: what cuda_target() returned.
        quantization: see mlc_model.
        opt: mlc-llm's optimizations, or "".
        head_dims: sizes of heads that the model may have.
    """
    for name, value in [("quantization", quantization), ("opt", opt)]:
        if type(value) != "string":
            fail("{}: expected a string, because it chooses kernels for a GPU, found {}".format(name, value))
    dtype = "bfloat16" if "bf16" in quantization else "float16" if "f16" in quantization else None
    if not dtype or min([_generation(arch) for arch in archs(target)]) < 80:
        return []
    kernels = []
    if opt not in ["O0", "O1"] and "flashinfer=0" not in opt:
        kernels += [Label("//third_party/flashinfer:{}_{}".format(dtype, head_dim)) for head_dim in head_dims if head_dim in HEAD_DIMS]
    if quantization == "q4f16_1" and opt != "O0" and "cublas_gemm=0" not in opt:
        kernels.append(Label("//src/cuda:four_bits"))
    return kernels

def relax_library(name, src, function, arguments = {}, data = [], pass_config = {}, **kwargs):
    """Compiles the module that a function in a Python file returns into `<name>.so`, with the TVM of this build.

    For a GPU, the library has machine code for its architecture. Kernels without a schedule get TVM's default one (dlight); mark a kernel that you scheduled
    by hand with the attribute tirx.is_scheduled. The machine that builds needs no GPU.

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
        src: Python file. It may import TVM and TVM's dependencies.
        function: name of the function in it, which returns a tvm.IRModule.
        arguments: keyword arguments of the function: a dict of JSON values. Strings may contain `$(execpath LABEL)` of `data`.
        data: files or folders that the function reads.
        pass_config: options of TVM's passes, such as {"relax.backend.use_cuda_graph": True}.
        **kwargs: `target` (cpu_target() or cuda_target()) and common attributes. `kernels`, for GPUs: cuda_library targets whose
            functions the module calls by name. Those of //third_party/flashinfer are for TVM's FlashInferPagedKVCache, whose `extern_mods` belong
            into the module's attribute `external_mods`.
    """
    relax_library_rule(
        name = name,
        src = src,
        arguments = json.encode(arguments),
        data = data,
        function = function,
        pass_config = json.encode(pass_config),
        **_with_gpu_tools(**kwargs)
    )

def gguf_checkpoint(name, src, **kwargs):
    """Turns a GGUF file into the folder `<name>` with a checkpoint in the layout of Hugging Face's hub, for `mlc_model(model_dir = ...)`.

    Weights become float32, with the values that their quantized type stands for. The folder also has config.json, tokenizer and chat template.

        gguf_checkpoint(
            name = "checkpoint",
            src = "SmolLM2-135M-Instruct.Q4_1.gguf",
        )

    Supported: the architectures llama, qwen2 and qwen3; all types of tensors that PyPI's `gguf` package can dequantize; byte-level tokenizers like those
    of GPT-2, Llama 3, Qwen 2 and SmolLM, and sentencepiece's BPE with byte fallback. The build stops with one line at anything else.

    Args:
        name: the target.
        src: the file, or a target with only one file.
        **kwargs: common attributes.
    """
    gguf_checkpoint_rule(name = name, src = src, **kwargs)

def mlc_model(name, **kwargs):
    """Builds a model for mlc-llm's engine: the folder `<name>` with weights, tokenizer and mlc-chat-config.json, and the library `<name>.so`.

    The same TVM compiles and runs it. The output depends only on the model, the target and the build.

        mlc_model(
            name = "tiny",
            conv_template = "chatml",
            model_dir = ":checkpoint",
            quantization = "q0f32",
            target = cpu_target(),
        )

    For a GPU: `target = cuda_target()` and a quantization with 16-bit floats, such as q0f16 or q4f16_1. The CPU converts weights in any case.

    Args:
        name: the target with both; `<name>.weights` and `<name>.library` have one each. `<name>.base` is the image that mlc_model_image adds them to.
        **kwargs: `model_dir`, `quantization`, `target`, `conv_template`, ... (see private/mlc_model.bzl) and common attributes. `head_dim`, for GPUs, is
            the size of an attention head: FlashInfer is compiled for this one only, or not at all if it has no kernel for it, and not for all that it
            knows, which takes minutes, once for all models of an architecture.
    """
    head_dim = kwargs.pop("head_dim", None)
    if _is_cuda(kwargs["target"]):
        kwargs["cublas_modules"] = Label("//models/private:cublas_modules")
        if "kernels" in kwargs:
            fail("{}: kernels: expected none, because mlc_model chooses them; relax_library takes them".format(name))
        kwargs["kernels"] = _kernels(
            kwargs["target"],
            kwargs.get("quantization", ""),
            kwargs.get("opt", ""),
            [head_dim] if head_dim else HEAD_DIMS,
        )
    kwargs = _with_gpu_tools(**kwargs)
    mlc_model_rule(name = name, **kwargs)
    common = common_attributes(kwargs)
    for output_group in ["library", "weights"]:
        native.filegroup(
            name = "{}.{}".format(name, output_group),
            srcs = [name],
            output_group = output_group,
            **common
        )
    common["tags"] = common.get("tags", []) + ["manual"]
    if _is_cuda(kwargs["target"]):
        serving_base(
            name = name + ".base",
            images = [Label("//images:" + image) for image in SERVE_CUDA_IMAGES],
            library = name + ".library",
            parts = [",".join(parts) for parts in SERVE_CUDA_IMAGES.values()],
            **common
        )
    else:
        native.alias(
            name = name + ".base",
            actual = Label("//images:mlc_llm_serve"),
            **common
        )

def mlc_model_library(name, config, **kwargs):
    """Builds a model without weights: the folder `<name>` with only mlc-chat-config.json, and the library `<name>.so`.

    Use it for weights that come from elsewhere, because the library depends only on the shape of the model.

        mlc_model_library(
            name = "llama_1b",
            config = "llama_1b/config.json",
            conv_template = "chatml",
            quantization = "q0f16",
            target = cuda_target("sm_90"),
        )

    Args:
        name: see `mlc_model`.
        config: config.json from Hugging Face's hub or, to include a tokenizer, a folder or filegroup of both.
        **kwargs: see `mlc_model`.
    """
    mlc_model(
        name = name,
        convert_weights = False,
        model_dir = config,
        **kwargs
    )

def mlc_model_image(name, model, base = None, **kwargs):
    """Builds an image that serves a model. Weights and library are separate layers on an image with mlc-llm, so that an update transfers only one of them.

        mlc_model_image(
            name = "tiny_image",
            model = ":tiny",
        )

    They are in /models/<model> and /models/<model>.so. By default the image serves the model: `docker run -p 8000:8000 IMAGE`.

    Args:
        name: the image, an OCI layout; `<name>.weights` and `<name>.library` are its layers.
        model: an `mlc_model`.
        base: the image to add the model to. By default it only serves: it is //images:mlc_llm_serve for a CPU; for a GPU it is the smallest with those
            of NVIDIA's libraries that the compiled model calls, which the build reads from it. //images:mlc_llm and :mlc_llm_cuda make an
            image that also compiles other models.
        **kwargs: attributes of oci_image, and common attributes, which all targets get. `cmd` replaces ["serve", "/models/<model>"]; `tars` are further
            layers, below those of the model.
    """
    common = common_attributes(kwargs)
    label = native.package_relative_label(model)
    folder = "models/" + label.name
    tree_layer(
        name = name + ".weights",
        # Weights hardly shrink, and a node unpacks them before it starts: bench/results.md, cold_start.
        compression = "none",
        trees = {str(label) + ".weights": folder},
        **common
    )
    tree_layer(
        name = name + ".library",
        files = {str(label) + ".library": folder + ".so:0755"},
        **common
    )
    oci_image(
        name = name,
        base = base or str(label) + ".base",
        # Weights come before the library, because they change less often.
        tars = kwargs.pop("tars", []) + [
            name + ".weights",
            name + ".library",
        ],
        **({"cmd": ["serve", "/" + folder]} | kwargs)
    )

def mlc_model_oci(name, model, description = "", licenses = "", source = "", compression = "", **kwargs):
    """Packs a model as two OCI artifacts, for a server that runs from another image.

        mlc_model_oci(
            name = "tiny_oci",
            model = ":tiny",
        )

    * `<name>` is an image with nothing but the model: its folder at /models/<model>, its library at /models/<model>.so. Kubernetes mounts it
      as an image volume, KServe takes it as `oci+native://`, and `podman run --mount type=image` and `COPY --from` read it too.
    * `<name>.modelpack` has the same layers under a manifest of the CNCF's ModelPack specification.

    Both are OCI layouts. Each weight shard is a layer, and a new build transfers only shards that changed. Models of more than 100 shards put
    as many into a layer as keep the image within the layers that Docker takes.

    Args:
        name: the image.
        model: an `mlc_model`, or another target with `MlcModelInfo`. Its name must be one folder's.
        description: one line, for the labels.
        licenses: SPDX expression for the model, for the labels.
        source: URL of the model, for the labels.
        compression: "zstd", or "" for none: weights hardly compress, and a node unpacks what is compressed before it starts.
        **kwargs: `license_file`, the text of the model's licence, becomes LICENSE in its folder (a model that is published needs it);
            `model_name`, to name the folder otherwise than `model`; and common attributes.
    """
    if compression not in ["", "zstd"]:
        fail("{}: compression: expected \"zstd\" or \"\", found {}".format(name, repr(compression)))
    common = common_attributes(kwargs)
    image_labels(
        name = name + ".labels",
        description = description or "The model {} for MLC LLM".format(native.package_relative_label(model).name),
        licenses = licenses,
        source = source,
        title = name,
        **common
    )
    mlc_model_oci_rule(
        name = name,
        labels = name + ".labels",
        model = model,
        zstd = Label("@debian_container_tools//:zstd") if compression else None,
        **kwargs
    )
    native.filegroup(
        name = name + ".modelpack",
        srcs = [name],
        output_group = "modelpack",
        **common
    )
