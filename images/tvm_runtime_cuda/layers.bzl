"""The layers and variables that add GPU support to an image.

tvm_runtime_cuda and mlc_llm_cuda share them, so a machine that has one image pulls little for the other.
"""

_PACKAGE = "//images/tvm_runtime_cuda"

def _layer(name):
    return Label("{}:{}".format(_PACKAGE, name))

# Which GPUs NVIDIA's container runtime gives a container, and which parts of the driver it mounts. Images without CUDA
# must not ask for GPUs.
CUDA_ENVIRONMENT = {
    "NVIDIA_DRIVER_CAPABILITIES": "compute,utility",
    "NVIDIA_VISIBLE_DEVICES": "all",
}

CUDA_LAYERS = [
    _layer("nvidia_cublas"),
    _layer("nvidia_curand"),
    _layer("nvidia_cuda_runtime"),
] + select({
    _layer("has_nccl"): [_layer("nvidia_nccl_cu13")],
    "//conditions:default": [],
}) + select({
    _layer("has_cudnn"): [_layer("nvidia_cudnn_cu13")],
    "//conditions:default": [],
}) + [_layer("tvm_cuda")]
