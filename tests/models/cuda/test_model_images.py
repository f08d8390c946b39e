"""An image with a model for GPUs has the base that the model's library needs."""

from __future__ import annotations

import os
import pathlib

import pytest

from oci.layout import Image

BASES = [word.split("=") for word in os.environ["BASES"].split()]


@pytest.mark.parametrize(("image", "base"), BASES, ids=[pathlib.Path(image).name for image, _ in BASES])
def test_the_base_is_the_smallest_with_all_that_the_library_calls(image: str, base: str) -> None:
    found = Image(pathlib.Path(image)).layer_digests
    assert found[:-2] == Image(pathlib.Path(base)).layer_digests
