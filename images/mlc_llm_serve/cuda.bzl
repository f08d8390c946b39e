"""The images that serve models on NVIDIA GPUs: mlc_llm_serve with those of NVIDIA's libraries that a model calls."""

load("//fetch/git:defs.bzl", "NEEDS_SOURCES")
load("//images:defs.bzl", "image")
load("//images/tvm_runtime_cuda:layers.bzl", "CUDA_ENVIRONMENT", "cuda_layer")
load("//toolchains/cuda:defs.bzl", "NEEDS_CUDA")

# Part of tvm_cuda, as `tvm_cuda.status()` names it → layer that it needs, from the least to the most frequently changed.
_LAYERS = {
    "cublas": "nvidia_cublas",
    "nccl": "nvidia_nccl_cu13",
    "device runtime": "nvidia_cuda_runtime",
}

# Image → what models in it may call, from the smallest to the largest. `mlc_model_image` takes the first that has all that its model calls.
SERVE_CUDA_IMAGES = {
    "mlc_llm_serve_cuda": ["device runtime"],
    "mlc_llm_serve_cuda_cublas": [
        "device runtime",
        "cublas",
    ],
    "mlc_llm_serve_cuda_nccl": [
        "device runtime",
        "cublas",
        "nccl",
    ],
}

def serve_cuda_image(name, description):
    """One of SERVE_CUDA_IMAGES: see `image` in //images:defs.bzl.

    Args:
        name: its name.
        description: one line, for the label.
    """
    image(
        name = name,
        base = "//images/mlc_llm_serve",
        description = description,
        env = CUDA_ENVIRONMENT,
        licenses = "Apache-2.0 AND LicenseRef-NVIDIA-Proprietary",
        source = "https://github.com/mlc-ai/mlc-llm",
        target_compatible_with = NEEDS_CUDA + NEEDS_SOURCES,
        tars = [
            cuda_layer(layer)
            for part, layer in _LAYERS.items()
            if part in SERVE_CUDA_IMAGES[name]
        ] + [cuda_layer("tvm_cuda")],
        visibility = [
            "//images:__subpackages__",
            "//tests/images:__subpackages__",
        ],
    )
