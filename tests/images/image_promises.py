"""The images that a test is given, and what each of them must hold."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pathlib

from oci.layout import Image

SITE_PACKAGES = "usr/local/lib/python3.11/dist-packages"

BUILD_TOOLS = ("as", "c++", "cc", "cmake", "g++", "gcc", "git", "ld", "make", "ninja", "python3.11-config")

# A path that only one layer can have, for each layer from the lowest.
_TVM_LAYERS = (
    "usr/lib/os-release",
    "usr/bin/python3.11",
    f"{SITE_PACKAGES}/numpy/__init__.py",
    f"{SITE_PACKAGES}/pytest/__init__.py",
    f"{SITE_PACKAGES}/tvm/lib/libtvm_compiler.so",
    f"{SITE_PACKAGES}/tvm/lib/libtvm_runtime.so",
    "usr/local/bin/entrypoint",
)

_MLC_LLM_LAYERS = (
    f"{SITE_PACKAGES}/fastapi/__init__.py",
    f"{SITE_PACKAGES}/openai/__init__.py",
    f"{SITE_PACKAGES}/mlc_llm/libmlc_llm.so",
    f"{SITE_PACKAGES}/mlc_llm/__init__.py",
    "usr/local/bin/serve",
)

_DEV_LAYERS = ("usr/bin/g++", "tests/dev/test_export.py")

_SERVE_LAYERS = (
    "usr/lib/os-release",
    f"{SITE_PACKAGES}/numpy/__init__.py",
    f"{SITE_PACKAGES}/fastapi/__init__.py",
    f"{SITE_PACKAGES}/tvm/lib/libtvm_runtime.so",
    f"{SITE_PACKAGES}/mlc_llm/libmlc_llm.so",
    f"{SITE_PACKAGES}/mlc_llm/__init__.py",
    "usr/local/bin/serve",
)

_CUBLAS, _CURAND, _CUDART, _NCCL, _TVM_CUDA = CUDA_LAYERS = (
    f"{SITE_PACKAGES}/nvidia/cu13/lib/libcublas.so.13",
    f"{SITE_PACKAGES}/nvidia/cu13/lib/libcurand.so.10",
    f"{SITE_PACKAGES}/nvidia/cu13/lib/libcudart.so.13",
    f"{SITE_PACKAGES}/nvidia/nccl/lib/libnccl.so.2",
    f"{SITE_PACKAGES}/tvm_cuda/lib/libtvm_runtime_cuda.so",
)

# Image for GPUs → the image that it adds to, and what it adds: a path for each layer.
CUDA_IMAGES = {
    "tvm_runtime_cuda": ("tvm_runtime", CUDA_LAYERS),
    "mlc_llm_cuda": ("mlc_llm", CUDA_LAYERS),
    "mlc_llm_serve_cuda": ("mlc_llm_serve", (_CUDART, _TVM_CUDA)),
    "mlc_llm_serve_cuda_cublas": ("mlc_llm_serve", (_CUBLAS, _CUDART, _TVM_CUDA)),
    "mlc_llm_serve_cuda_nccl": ("mlc_llm_serve", (_CUBLAS, _NCCL, _CUDART, _TVM_CUDA)),
}

# mlc_llm_dev has all of binutils instead.
_LINKER = "usr/local/bin/ld"

_MLC_LLM_ENVIRONMENT = ("MLC_LLM_HOME=/tmp/mlc_llm",)
_CUDA_ENVIRONMENT = ("NVIDIA_DRIVER_CAPABILITIES=compute,utility", "NVIDIA_VISIBLE_DEVICES=all")

_CUDA_LICENSES = "Apache-2.0 AND LicenseRef-NVIDIA-Proprietary"


@functools.cache
def image(name: str) -> Image:
    """An image of this test, by name."""
    return Image(pathlib.Path(os.environ[name.upper()]))


ARCHITECTURE = os.environ["ARCHITECTURE"]
"""That of the images, as Go and Debian name it."""


def packages(promise: Promise) -> dict[str, str]:
    """The packages that an image has, in their versions."""
    suffix = "" if ARCHITECTURE == "amd64" else f"_{ARCHITECTURE}"
    keys = [key for name in promise.package_sets for key in lock()["sets"][name + suffix]]
    return {key.split("/")[1].partition(":")[0]: lock()["packages"][key]["version"] for key in keys}


@functools.cache
def lock() -> dict:
    return json.loads(pathlib.Path(os.environ["DEBIAN_LOCK"]).read_text())


@dataclasses.dataclass(frozen=True)
class Promise:
    """What one image holds.

    Attributes:
        name: the image's.
        layers: a path that only one layer can have, for each layer from the lowest.
        package_sets: sets of locks/debian.lock.json.
        environment: variables after those of tvm_runtime.
        licenses: the label's.
        commands: what is in /usr/local/bin, at least.
        folders: what its user owns.
        bytecode: whether its Python modules are compiled.
    """

    name: str
    layers: tuple[str, ...]
    package_sets: tuple[str, ...] = ("image_base", "image_python")
    environment: tuple[str, ...] = ()
    licenses: str = "Apache-2.0"
    commands: tuple[str, ...] = ("build", "entrypoint", "pytest", "smoke")
    folders: tuple[str, ...] = ("home/mlc", "home/mlc/.cache", "src/mlc-llm/python/dist", "workspace")
    bytecode: bool = False

    @property
    def image(self) -> Image:
        return image(self.name)

    def build_tools(self) -> list[str]:
        """The build tools that are in the image."""
        return [name for name in BUILD_TOOLS if self.image.resolve(f"usr/bin/{name}")]


_DEV_PACKAGES = ("image_base", "image_python", "image_dev")
_MLC_LLM_PACKAGES = ("image_base", "image_python", "image_linker")
_SERVE_COMMANDS = ("entrypoint", "mlc_llm", "serve", "smoke")
_SERVE_FOLDERS = ("home/mlc", "home/mlc/.cache", "workspace")

PROMISES = {
    promise.name: promise
    for promise in (
        Promise("tvm_runtime", _TVM_LAYERS),
        Promise("tvm_runtime_dev", (*_TVM_LAYERS, *_DEV_LAYERS), _DEV_PACKAGES),
        Promise(
            "tvm_runtime_cuda",
            (*_TVM_LAYERS, *CUDA_LAYERS),
            environment=_CUDA_ENVIRONMENT,
            licenses=_CUDA_LICENSES,
        ),
        Promise("mlc_llm", (*_TVM_LAYERS, *_MLC_LLM_LAYERS, _LINKER), _MLC_LLM_PACKAGES, _MLC_LLM_ENVIRONMENT),
        Promise("mlc_llm_dev", (*_TVM_LAYERS, *_MLC_LLM_LAYERS, *_DEV_LAYERS), _DEV_PACKAGES, _MLC_LLM_ENVIRONMENT),
        Promise(
            "mlc_llm_cuda",
            (*_TVM_LAYERS, *_MLC_LLM_LAYERS, _LINKER, *CUDA_LAYERS),
            _MLC_LLM_PACKAGES,
            environment=(*_MLC_LLM_ENVIRONMENT, *_CUDA_ENVIRONMENT),
            licenses=_CUDA_LICENSES,
        ),
        Promise(
            "mlc_llm_serve",
            _SERVE_LAYERS,
            ("image_serve",),
            _MLC_LLM_ENVIRONMENT,
            commands=_SERVE_COMMANDS,
            folders=_SERVE_FOLDERS,
            bytecode=True,
        ),
        Promise(
            "mlc_llm_serve_debug",
            (*_SERVE_LAYERS, "usr/bin/bash"),
            ("image_serve", "image_debug"),
            _MLC_LLM_ENVIRONMENT,
            commands=_SERVE_COMMANDS,
            folders=_SERVE_FOLDERS,
            bytecode=True,
        ),
        *(
            Promise(
                name,
                (*_SERVE_LAYERS, *layers),
                ("image_serve",),
                environment=(*_MLC_LLM_ENVIRONMENT, *_CUDA_ENVIRONMENT),
                licenses=_CUDA_LICENSES,
                commands=_SERVE_COMMANDS,
                folders=_SERVE_FOLDERS,
                bytecode=True,
            )
            for name, (base, layers) in CUDA_IMAGES.items()
            if base == "mlc_llm_serve"
        ),
    )
}

# The images that the test is about; it may be given others to compare them with.
UNDER_TEST = [PROMISES[name] for name in os.environ["UNDER_TEST"].split()]
