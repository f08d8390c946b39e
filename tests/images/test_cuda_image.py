"""What the images for GPUs hold, besides what test_every_image.py says."""

from __future__ import annotations

import posixpath
import re

import pytest

from tests.images.image_promises import ARCHITECTURE, CUDA_IMAGES, SITE_PACKAGES, UNDER_TEST, image

# A library of a layer → other NVIDIA libraries in the same layer.
FURTHER = {"libcublas.so.13": ["libcublasLt.so.13", "libnvblas.so.13"]}

# Compressed, in bytes. NVIDIA's cuBLAS for arm64 is larger by 117 MB.
_MORE = {"amd64": 0, "arm64": 120_000_000}[ARCHITECTURE]
SIZE_LIMITS = {
    "mlc_llm_serve_cuda": 100_000_000,
    "mlc_llm_serve_cuda_cublas": 500_000_000 + _MORE,
    "mlc_llm_serve_cuda_nccl": 700_000_000 + _MORE,
    "mlc_llm_cuda": 1_500_000_000,
    "tvm_runtime_cuda": 1_500_000_000,
}


@pytest.fixture(params=[promise.name for promise in UNDER_TEST])
def name(request: pytest.FixtureRequest) -> str:
    """Each image that the test is about."""
    return request.param


def added(name: str) -> list[dict]:
    return image(name).layers[-len(CUDA_IMAGES[name][1]) :]


def test_it_adds_to_its_base(name: str) -> None:
    base, layers = CUDA_IMAGES[name]
    assert image(name).layer_digests[: -len(layers)] == image(base).layer_digests


def test_libraries_are_those_that_are_needed_and_nothing_else_of_cuda_is_there(name: str) -> None:
    for layer, path in zip(added(name)[:-1], CUDA_IMAGES[name][1]):
        libraries = [posixpath.basename(path), *FURTHER.get(posixpath.basename(path), [])]
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
    assert sum(layer["size"] for layer in image(name).manifest["layers"]) <= SIZE_LIMITS[name]


def test_the_wheel_can_be_packed_from_it_as_from_the_other_images(name: str) -> None:
    recipes = [path for path in added(name)[-1] if re.search(r"usr/local/share/wheels/apache_tvm_cuda\.json$", path)]
    assert len(recipes) == 1
