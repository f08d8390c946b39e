"""What the image mlc_llm_cuda holds, besides what test_cuda_image.py says."""

from __future__ import annotations

from tests.images.image_promises import CUDA_LAYERS, image


def test_it_adds_to_mlc_llm_what_tvm_runtime_cuda_adds_to_tvm_runtime() -> None:
    assert (
        image("mlc_llm_cuda").layer_digests[-len(CUDA_LAYERS) :]
        == image("tvm_runtime_cuda").layer_digests[-len(CUDA_LAYERS) :]
    )
