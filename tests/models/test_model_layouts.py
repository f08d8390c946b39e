"""What every packed model holds, in both formats: all of the model, unchanged, and nothing else."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path

import pytest

from oci import layout
from oci.layout import Image
from tests.models import modelpack

LAYOUTS = {path.name: path for path in map(Path, os.environ["LAYOUTS"].split())}
IMAGES = sorted(name for name in LAYOUTS if not name.endswith(".modelpack"))


@pytest.fixture(params=IMAGES)
def name(request: pytest.FixtureRequest) -> str:
    """The name of each image; "<name>.modelpack" is the same model's other layout."""
    return request.param


def test_both_are_intact_and_share_their_layers(name: str) -> None:
    image, artifact = Image(LAYOUTS[name]), Image(LAYOUTS[f"{name}.modelpack"])
    for each in (image, artifact):
        assert layout.verified_digest(each.folder) == each.digest
        assert each.labels["org.opencontainers.image.title"] == each.folder.name
        assert re.search(f"^{os.environ['REVISION']}$", each.labels["org.opencontainers.image.revision"])
        assert each.manifest["annotations"] == each.labels
    assert image.layer_digests == artifact.layer_digests
    assert modelpack.problems(artifact.folder) == []


def test_the_image_holds_a_model_that_loads(name: str) -> None:
    image = Image(LAYOUTS[name])
    assert (image.config["os"], image.config["created"]) == ("linux", "2000-01-01T00:00:00Z")
    (config,) = (path for path in image.files if path.endswith("/mlc-chat-config.json"))
    folder = config.rpartition("/")[0]
    assert re.fullmatch("models/[^/]+", folder)
    library = image.files[f"{folder}.so"]
    machine = {"amd64": 62, "arm64": 183}[image.config["architecture"]]
    assert library.data.startswith(b"\x7fELF") and library.data[18:20] == machine.to_bytes(2, "little")
    for shard in json.loads(image.text(f"{folder}/tensor-cache.json"))["records"]:
        file = image.files[f"{folder}/{shard['dataPath']}"]
        assert hashlib.md5(file.data).hexdigest() == shard["md5sum"], shard["dataPath"]
        others = [path for path, other in image.layers[file.layer].items() if other.entry.isreg()]
        assert len(others) == 1, "a shard shares its layer"
    assert any(f"{folder}/{tokenizer}" in image.files for tokenizer in ("tokenizer.json", "tokenizer.model"))
    outside = [path for path in image.files if not path.startswith(f"{folder}/")]
    assert sorted(outside) == ["models", folder, f"{folder}.so"]
