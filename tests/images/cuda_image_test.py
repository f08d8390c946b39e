"""What the images for GPUs hold, beside what //tests/images:image_test says of every image."""

from __future__ import annotations

import os
import posixpath
import re
import unittest

from tests.images import mlc_llm_image_test
from tests.images.image_test import SITE_PACKAGES, ImagePromises, image

# Layer → NVIDIA's libraries in it, by the setting of //images/tvm_runtime_cuda alone.
LIBRARIES = {
    "nvidia_cublas": ["libcublas.so.13", "libcublasLt.so.13", "libnvblas.so.13"],
    "nvidia_curand": ["libcurand.so.10"],
    "nvidia_cuda_runtime": ["libcudart.so.13"],
    "nvidia_nccl_cu13": ["libnccl.so.2"],
}

CUDA_LAYERS = (
    f"{SITE_PACKAGES}/nvidia/cu13/lib/libcublas.so.13",
    f"{SITE_PACKAGES}/nvidia/cu13/lib/libcurand.so.10",
    f"{SITE_PACKAGES}/nvidia/cu13/lib/libcudart.so.13",
    f"{SITE_PACKAGES}/nvidia/nccl/lib/libnccl.so.2",
    f"{SITE_PACKAGES}/tvm_cuda/lib/libtvm_runtime_cuda.so",
)

# Compressed, in bytes, with cuBLAS.
SIZE_LIMIT = 1_500_000_000


class CudaPromises(ImagePromises):
    """What holds of every image for GPUs."""

    base: str
    licenses = "Apache-2.0 AND LicenseRef-NVIDIA-Proprietary"
    package_sets = ("image_base", "image_python")

    def added(self) -> list[dict]:
        return self.image.layers[-len(CUDA_LAYERS) :]

    def test_it_adds_to_its_base(self):
        base = image(self.base).layer_digests
        self.assertEqual(self.image.layer_digests[:-len(CUDA_LAYERS)], base)

    def test_libraries_are_those_that_are_needed_and_nothing_else_of_cuda_is_there(self):
        for layer, libraries in zip(self.added(), LIBRARIES.values()):
            files = [path for path, file in layer.items() if file.entry.isreg()]
            others = [path for path in files if ".dist-info/" not in path and posixpath.basename(path) not in libraries]
            self.assertEqual(others, [])
            self.assertEqual(sorted(posixpath.basename(path) for path in files if path.startswith(f"{SITE_PACKAGES}/nvidia/")), sorted(libraries))

    def test_no_compiler_headers_or_static_libraries_of_cuda(self):
        self.assertEqual([path for layer in self.added() for path in layer if re.search(r"nvcc|ptxas|cicc|/include/|\.a$|\.h$", path)], [])

    def test_each_of_nvidias_distributions_brings_its_licence(self):
        for layer in self.added()[:-1]:
            (metadata,) = [path for path in layer if path.endswith(".dist-info/METADATA")]
            licences = [path for path in layer if path.startswith(posixpath.dirname(metadata)) and "icense" in posixpath.basename(path)]
            self.assertTrue(licences and all(layer[path].data for path in licences if layer[path].entry.isreg()), metadata)

    def test_the_driver_is_not_in_it(self):
        self.assertEqual([path for path in self.image.files if re.search(r"/libcuda\.so|/libnvidia-", path)], [])

    def test_it_is_no_larger_than_it_may_be(self):
        self.assertLess(sum(layer["size"] for layer in self.image.manifest["layers"]), SIZE_LIMIT)

    def test_it_can_leave_its_wheel(self):
        recipes = [path for path in self.added()[-1] if re.search(r"usr/local/share/wheels/apache_tvm_cuda-.*\.json$", path)]
        self.assertEqual(len(recipes), 1)


class TvmRuntimeCudaTest(CudaPromises, unittest.TestCase):
    name = "tvm_runtime_cuda"
    base = "tvm_runtime"
    layers = (*ImagePromises.layers, *CUDA_LAYERS)


# Where mlc-llm's sources are supplied.
if "MLC_LLM_CUDA" in os.environ:

    class MlcLlmCudaTest(CudaPromises, unittest.TestCase):
        name = "mlc_llm_cuda"
        base = "mlc_llm"
        layers = (*mlc_llm_image_test.MlcLlmTest.layers, *CUDA_LAYERS)
        environment = mlc_llm_image_test.MlcLlmTest.environment

        def test_it_adds_to_mlc_llm_what_tvm_runtime_cuda_adds_to_tvm_runtime(self):
            self.assertEqual(self.image.layer_digests[-len(CUDA_LAYERS) :], image("tvm_runtime_cuda").layer_digests[-len(CUDA_LAYERS) :])


if __name__ == "__main__":
    unittest.main()
