"""What the images tvm_runtime and tvm_runtime_dev hold, besides what test_every_image.py says."""

from __future__ import annotations

import re

from tests.images.image_promises import BUILD_TOOLS, PROMISES, image


def test_no_build_tools() -> None:
    assert PROMISES["tvm_runtime"].build_tools() == []
    assert [
        path for path in image("tvm_runtime").files if re.search(r"/cc1(plus)?$|^usr/include/(?!python)", path)
    ] == []


def test_nothing_of_cuda() -> None:
    pattern = r"nvidia|tvm_cuda|tvm_runtime_cuda|libcu(da|blas|rand|dnn)"
    assert [path for path in image("tvm_runtime").files if re.search(pattern, path, re.IGNORECASE)] == []


def test_dev_has_build_tools() -> None:
    assert PROMISES["tvm_runtime_dev"].build_tools() == list(BUILD_TOOLS)


def test_dev_adds_to_tvm_runtime() -> None:
    base = image("tvm_runtime").layer_digests
    assert image("tvm_runtime_dev").layer_digests[: len(base)] == base
