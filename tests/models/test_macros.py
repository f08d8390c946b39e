"""Macros for models pass on what they get: common attributes to every target, others in place of the default."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from fetch import archives
from oci.layout import Image

ATTRIBUTES = json.loads(os.environ["ATTRIBUTES"])


@pytest.fixture(params=["DEFAULT", "CHANGED"])
def variant(request: pytest.FixtureRequest) -> str:
    return request.param


def test_an_image_has_the_given_command_or_serves_the_model(variant: str) -> None:
    expected = {"CHANGED": ["build", "--help"], "DEFAULT": ["serve", "/models/stand_in"]}
    assert Image(Path(os.environ[variant])).config["config"]["Cmd"] == expected[variant]


def test_further_layers_are_below_those_of_the_model(variant: str) -> None:
    image = Image(Path(os.environ[variant]))
    *further, weights, library = [{path for path, file in each.items() if file.entry.isfile()} for each in image.layers]
    assert "models/stand_in/config.json" in weights and library == {"models/stand_in.so"}
    assert further == ([{"etc/further"}] if variant == "CHANGED" else [])


def test_layers_are_compressed_as_their_rules_say() -> None:
    """What the image says of each is what its rule has written: nothing here has read zstd before."""
    image = Image(Path(os.environ["CHANGED"]))
    kinds = [layer["mediaType"].rpartition(".")[2] for layer in image.manifest["layers"]]
    assert kinds == ["tar+zstd", "tar", "tar+gzip"]
    for number, diff_id in enumerate(image.config["rootfs"]["diff_ids"]):
        with open(image.blob(image.layer_digests[number]), "rb") as file:
            content = archives.decompressed(file, "a layer")
            assert f"sha256:{hashlib.sha256(content.read()).hexdigest()}" == diff_id


def test_common_attributes_reach_every_target() -> None:
    changed = {name: attributes for name, attributes in ATTRIBUTES.items() if name.startswith("changed")}
    assert set(changed) == {
        "changed",
        "changed.library",
        "changed.weights",
        "changed_model",
        "changed_model.base",
        "changed_model.library",
        "changed_model.weights",
    }
    for name, attributes in changed.items():
        assert set(attributes["tags"]) >= {"changed", "manual"}, name
        assert attributes["testonly"] is True, name
        assert attributes["visibility"] == ["//tests/images:__pkg__"], name


def test_targets_without_common_attributes_have_the_defaults() -> None:
    for name in ("default", "default.library", "default.weights"):
        assert "changed" not in ATTRIBUTES[name]["tags"] and ATTRIBUTES[name]["testonly"] is True, name
