"""Macros for models pass on what they get: common attributes to every target, others in place of the default."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

ATTRIBUTES = json.loads(os.environ["ATTRIBUTES"])


class Image:
    """An image with one platform, from its OCI layout (image-spec 1.1, image-layout.md)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (entry,) = json.loads((folder / "index.json").read_bytes())["manifests"]
        manifest = json.loads(self._blob(entry))
        self.command: list[str] = json.loads(self._blob(manifest["config"]))["config"]["Cmd"]
        self.layers = [self._names(layer) for layer in manifest["layers"]]

    def _blob(self, descriptor: dict[str, Any]) -> bytes:
        return (self._folder / "blobs" / descriptor["digest"].replace(":", "/")).read_bytes()

    def _names(self, layer: dict[str, Any]) -> set[str]:
        with tarfile.open(fileobj=io.BytesIO(self._blob(layer))) as tar:
            return {member.name.removeprefix("./") for member in tar if member.isfile()}


@pytest.fixture(params=["DEFAULT", "CHANGED"])
def variant(request: pytest.FixtureRequest) -> str:
    return request.param


def test_an_image_has_the_given_command_or_serves_the_model(variant: str) -> None:
    expected = {"CHANGED": ["build", "--help"], "DEFAULT": ["serve", "/models/stand_in"]}
    assert Image(Path(os.environ[variant])).command == expected[variant]


def test_further_layers_are_below_those_of_the_model(variant: str) -> None:
    *further, weights, library = Image(Path(os.environ[variant])).layers
    assert "models/stand_in/config.json" in weights and library == {"models/stand_in.so"}
    assert further == ([{"etc/further"}] if variant == "CHANGED" else [])


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
