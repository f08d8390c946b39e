"""An index has the image for each processor, and these are the same but for what is compiled."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from oci import layout

INDEXES = dict(pair.split("=") for pair in os.environ["INDEXES"].split())
# Metadata of wheels, with names and hashes of libraries; libraries; what their builds wrote down; recipes of wheels.
_COMPILED = r"\.dist-info(/|$)|\.libs(/|$)|\.so(\.|$)|\.a$|/__config__\.py$|/usr/local/bin/ld$|\.json$"
# Our versions name the content of a wheel.
_BUILD_ID = rb"(\+mlc[0-9.]+)\.b[0-9a-f]+"
SINGLE = dict(pair.split("=") for pair in os.environ["SINGLE"].split())


@pytest.mark.parametrize("name", INDEXES)
def test_an_index_has_the_images_that_are_tested(name: str) -> None:
    index = Path(INDEXES[name])
    found = layout.images(index)
    expected = {cpu: layout.Image(Path(SINGLE[f"{name}.{cpu}"])).digest for cpu in ("amd64", "arm64")}
    assert {cpu: image.digest for cpu, image in found.items()} == expected
    assert layout.verified_digest(index) not in expected.values()


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
