"""What the images mlc_llm and mlc_llm_dev hold, besides what test_every_image.py says."""

from __future__ import annotations

import json
import posixpath

import pytest

from tests.images.image_promises import ARCHITECTURE, BUILD_TOOLS, PROMISES, SITE_PACKAGES, image


def test_it_adds_to_tvm_runtime() -> None:
    base = image("tvm_runtime").layer_digests
    assert image("mlc_llm").layer_digests[: len(base)] == base


def test_no_build_tools_but_ld() -> None:
    assert PROMISES["mlc_llm"].build_tools() == []
    layer = image("mlc_llm").layers[-1]
    programs = [path for path, file in layer.items() if file.entry.isreg() and "/bin/" in path]
    machine = {"amd64": "x86_64", "arm64": "aarch64"}[ARCHITECTURE]
    assert programs == [f"usr/bin/{machine}-linux-gnu-ld.bfd"]


def test_the_native_layer_has_nothing_but_libraries() -> None:
    files = [path for path, file in image("mlc_llm").layers[9].items() if file.entry.isreg()]
    assert [posixpath.basename(path) for path in files] == ["libmlc_llm.so", "libmlc_llm_module.so"]


def test_mlc_llms_python_is_in_one_layer() -> None:
    places = (f"{SITE_PACKAGES}/mlc_llm", "usr/local/share/wheels/mlc_llm")
    holding = {
        number
        for number, layer in enumerate(image("mlc_llm").layers)
        for path, file in layer.items()
        if file.entry.isreg() and path.startswith(places) and not path.endswith(".so")
    }
    assert holding == {10}


@pytest.mark.parametrize("name", ["mlc_llm", "serve", "uvicorn"])
def test_commands(name: str) -> None:
    assert image("mlc_llm").files[f"usr/local/bin/{name}"].entry.mode == 0o755


def test_its_tests_have_the_tiny_model() -> None:
    configuration = json.loads(image("mlc_llm").text("tests/mlc_llm/tiny/mlc-chat-config.json"))
    assert (configuration["model_type"], configuration["quantization"]) == ("llama", "q0f32")
    library = image("mlc_llm").files["tests/mlc_llm/tiny.so"].data
    # ELF's e_machine.
    assert library[:4] == b"\x7fELF" and library[18] == {"amd64": 62, "arm64": 183}[ARCHITECTURE]
    assert "tests/mlc_llm/checkpoint/model.safetensors" in image("mlc_llm").files


def test_dev_has_build_tools() -> None:
    assert PROMISES["mlc_llm_dev"].build_tools() == list(BUILD_TOOLS)


def test_dev_is_mlc_llm_with_what_tvm_runtime_dev_adds_to_tvm_runtime_in_place_of_the_linker() -> None:
    base = image("mlc_llm").layer_digests[:-1]
    added = image("tvm_runtime_dev").layer_digests[len(image("tvm_runtime").layer_digests) :]
    assert image("mlc_llm_dev").layer_digests == [*base, *added]
