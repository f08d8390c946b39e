"""A published index has the tested image for each processor; these are the same but for what is compiled."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from oci import layout

INDEXES = dict(pair.split("=") for pair in os.environ["INDEXES"].split())
# Metadata of wheels, with names and hashes of libraries; libraries; what their builds wrote down; recipes of wheels;
# bytecode, which has the build ids of its sources.
_COMPILED = r"/__pycache__/|\.dist-info(/|$)|\.libs(/|$)|\.so(\.|$)|\.a$|/__config__\.py$|/usr/local/bin/ld$|\.json$"
# Our versions name the content of a wheel.
_BUILD_ID = rb"(\+mlc[0-9.]+)\.b[0-9a-f]+"
SINGLE = dict(pair.split("=") for pair in os.environ["SINGLE"].split())


@pytest.mark.parametrize("name", INDEXES)
def test_an_index_has_the_images_that_are_tested(name: str) -> None:
    index = Path(INDEXES[name])
    expected = {
        each: layout.Image(Path(folder)).digest for each, folder in SINGLE.items() if each.rpartition("_")[0] == name
    }
    assert {each: image.digest for each, image in layout.named_images(name, index).items()} == expected
    assert layout.verified_digest(index) not in expected.values()


def test_images_are_for_both_processors() -> None:
    found = {name: {*layout.images(Path(index))} for name, index in INDEXES.items()}
    assert found == dict.fromkeys(INDEXES, {"amd64", "arm64"})


@pytest.mark.parametrize("name", INDEXES)
def test_configuration_commands_and_python_are_the_same(name: str) -> None:
    images = layout.images(Path(INDEXES[name]))
    configs = [{**image.config, "architecture": "", "rootfs": "", "history": ""} for image in images.values()]
    assert configs[0] == configs[1]
    contents = [
        {
            path: re.sub(_BUILD_ID, rb"\1", file.data)
            for path, file in image.files.items()
            if path.startswith(("tests/", "usr/local/bin/", "usr/local/lib/")) and not re.search(_COMPILED, path)
        }
        for image in images.values()
    ]
    assert [path for path in {**contents[0], **contents[1]} if contents[0].get(path) != contents[1].get(path)] == []
    assert len(contents[0]) > 1000
