"""The layers and variables that add GPU support to an image.

The images for GPUs share them, so a machine that has one image pulls little for another.
"""

_PACKAGE = "//images/tvm_runtime_cuda"

def cuda_layer(name):
    """Returns the layer of one of NVIDIA's libraries, or `tvm_cuda`."""
    return Label("{}:{}".format(_PACKAGE, name))

# Which GPUs NVIDIA's container runtime gives a container, and which parts of the driver it mounts. Images without CUDA
# must not ask for GPUs.
CUDA_ENVIRONMENT = {
    "NVIDIA_DRIVER_CAPABILITIES": "compute,utility",
    "NVIDIA_VISIBLE_DEVICES": "all",
}

CUDA_LAYERS = [
    cuda_layer("nvidia_cublas"),
    cuda_layer("nvidia_curand"),
    cuda_layer("nvidia_cuda_runtime"),
] + select({
    cuda_layer("has_nccl"): [cuda_layer("nvidia_nccl_cu13")],
    "//conditions:default": [],
}) + select({
    cuda_layer("has_cudnn"): [cuda_layer("nvidia_cudnn_cu13")],
    "//conditions:default": [],
}) + [cuda_layer("tvm_cuda")]
