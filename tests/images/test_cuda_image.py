"""What the images for GPUs hold, besides what test_every_image.py says."""

from __future__ import annotations

import posixpath
import re

import pytest

from tests.images.image_promises import CUDA_LAYERS, SITE_PACKAGES, UNDER_TEST, image

# Layer → NVIDIA's libraries in it, by the setting of //images/tvm_runtime_cuda alone.
LIBRARIES = {
    "nvidia_cublas": ["libcublas.so.13", "libcublasLt.so.13", "libnvblas.so.13"],
    "nvidia_curand": ["libcurand.so.10"],
    "nvidia_cuda_runtime": ["libcudart.so.13"],
    "nvidia_nccl_cu13": ["libnccl.so.2"],
}

# Compressed, in bytes, with cuBLAS.
SIZE_LIMIT = 1_500_000_000

# Image → what it adds to.
BASES = {"tvm_runtime_cuda": "tvm_runtime", "mlc_llm_cuda": "mlc_llm"}


@pytest.fixture(params=[promise.name for promise in UNDER_TEST])
def name(request: pytest.FixtureRequest) -> str:
    """Each image that the test is about."""
    return request.param


def added(name: str) -> list[dict]:
    return image(name).layers[-len(CUDA_LAYERS) :]


def test_it_adds_to_its_base(name: str) -> None:
    base = image(BASES[name]).layer_digests
    assert image(name).layer_digests[: -len(CUDA_LAYERS)] == base


def test_libraries_are_those_that_are_needed_and_nothing_else_of_cuda_is_there(name: str) -> None:
    for layer, libraries in zip(added(name), LIBRARIES.values()):
        files = [path for path, file in layer.items() if file.entry.isreg()]
        others = [path for path in files if ".dist-info/" not in path and posixpath.basename(path) not in libraries]
        assert others == []
        assert sorted(
            posixpath.basename(path) for path in files if path.startswith(f"{SITE_PACKAGES}/nvidia/")
        ) == sorted(libraries)


def test_no_compiler_headers_or_static_libraries_of_cuda(name: str) -> None:
    assert [
        path for layer in added(name) for path in layer if re.search(r"nvcc|ptxas|cicc|/include/|\.a$|\.h$", path)
    ] == []


def test_each_of_nvidias_distributions_brings_its_licence(name: str) -> None:
    for layer in added(name)[:-1]:
        (metadata,) = [path for path in layer if path.endswith(".dist-info/METADATA")]
        licences = [
            path
            for path in layer
            if path.startswith(posixpath.dirname(metadata)) and "icense" in posixpath.basename(path)
        ]
        assert licences and all(layer[path].data for path in licences if layer[path].entry.isreg()), metadata


def test_the_driver_is_not_in_it(name: str) -> None:
    assert [path for path in image(name).files if re.search(r"/libcuda\.so|/libnvidia-", path)] == []


def test_it_is_no_larger_than_it_may_be(name: str) -> None:
    assert sum(layer["size"] for layer in image(name).manifest["layers"]) < SIZE_LIMIT


def test_it_can_leave_its_wheel(name: str) -> None:
    recipes = [path for path in added(name)[-1] if re.search(r"usr/local/share/wheels/apache_tvm_cuda\.json$", path)]
    assert len(recipes) == 1
