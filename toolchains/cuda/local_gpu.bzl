"""Module extension `local_gpu`: whether this machine has an NVIDIA GPU. Only which tests run depends on it, never what is built."""

# Made by NVIDIA's kernel driver; below WSL the driver is another device.
_DEVICES = ["/dev/nvidiactl", "/dev/dxg"]

def _local_gpu_repository_impl(rctx):
    found = any([rctx.path(device).exists for device in _DEVICES])
    rctx.file("BUILD.bazel", "")
    rctx.file("gpu.bzl", "\"\"\"Written by //toolchains/cuda:local_gpu.bzl.\"\"\"\n\nHAS_GPU = {}\n".format(found))

_local_gpu_repository = repository_rule(
    implementation = _local_gpu_repository_impl,
    doc = "`gpu.bzl` with HAS_GPU.",
    configure = True,
    local = True,
)

def _local_gpu_impl(_mctx):
    _local_gpu_repository(name = "local_gpu")

local_gpu = module_extension(implementation = _local_gpu_impl)
