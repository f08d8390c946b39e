"""What the images mlc_llm and mlc_llm_dev hold, beside what //tests/images:image_test says of every image."""

from __future__ import annotations

import json
import posixpath
import unittest

from tests.images import image_test
from tests.images.image_test import SITE_PACKAGES, ImagePromises, image


class MlcLlmTest(ImagePromises, unittest.TestCase):
    name = "mlc_llm"
    package_sets = ("image_base", "image_python")
    layers = (
        *ImagePromises.layers,
        f"{SITE_PACKAGES}/fastapi/__init__.py",
        f"{SITE_PACKAGES}/openai/__init__.py",
        f"{SITE_PACKAGES}/mlc_llm/libmlc_llm.so",
        f"{SITE_PACKAGES}/mlc_llm/__init__.py",
        "usr/local/bin/serve",
    )
    environment = ("MLC_LLM_HOME=/tmp/mlc_llm",)

    def test_it_adds_to_tvm_runtime(self):
        base = image("tvm_runtime").layer_digests
        self.assertEqual(self.image.layer_digests[: len(base)], base)

    def test_no_build_tools(self):
        self.assertEqual(self.build_tools(), [])

    def test_the_native_layer_has_nothing_but_libraries(self):
        files = [path for path, file in self.image.layers[9].items() if file.entry.isreg()]
        self.assertEqual([posixpath.basename(path) for path in files], ["libmlc_llm.so", "libmlc_llm_module.so"])

    def test_mlc_llms_python_is_in_one_layer(self):
        holding = {
            number
            for number, layer in enumerate(self.image.layers)
            for path, file in layer.items()
            if file.entry.isreg() and path.startswith((f"{SITE_PACKAGES}/mlc_llm", "usr/local/share/wheels/mlc_llm")) and not path.endswith(".so")
        }
        self.assertEqual(holding, {10})

    def test_commands(self):
        for name in ("mlc_llm", "serve", "uvicorn"):
            self.assertEqual(self.image.files[f"usr/local/bin/{name}"].entry.mode, 0o755)

    def test_its_tests_have_the_tiny_model(self):
        configuration = json.loads(self.image.text("tests/mlc_llm/tiny/mlc-chat-config.json"))
        self.assertEqual((configuration["model_type"], configuration["quantization"]), ("llama", "q0f32"))
        self.assertTrue(self.image.files["tests/mlc_llm/tiny.so"].data.startswith(b"\x7fELF"))
        self.assertIn("tests/mlc_llm/checkpoint/model.safetensors", self.image.files)


class MlcLlmDevTest(ImagePromises, unittest.TestCase):
    name = "mlc_llm_dev"
    package_sets = image_test.TvmRuntimeDevTest.package_sets
    layers = (*MlcLlmTest.layers, *image_test.TvmRuntimeDevTest.layers[len(ImagePromises.layers) :])
    environment = MlcLlmTest.environment

    def test_build_tools(self):
        self.assertEqual(self.build_tools(), list(image_test.BUILD_TOOLS))

    def test_it_adds_to_mlc_llm_what_tvm_runtime_dev_adds_to_tvm_runtime(self):
        base, added = image("mlc_llm").layer_digests, image("tvm_runtime_dev").layer_digests[len(image("tvm_runtime").layer_digests) :]
        self.assertEqual(self.image.layer_digests, [*base, *added])


if __name__ == "__main__":
    unittest.main()
