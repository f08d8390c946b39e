"""A layout has one image, or an index of images for different processors; anything else is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from layouts import write_layout

from oci import layout
from oci.layout_writer import LayoutWriter

INDEX = "application/vnd.oci.image.index.v1+json"


def write_index(folder: Path, platforms: list[dict[str, Any]], **properties: Any) -> Path:
    """An index that says that its images, which differ, are for these platforms."""
    writer = LayoutWriter(folder)
    manifests = []
    for number, platform in enumerate(platforms):
        image = layout.Image(write_layout(folder.parent / f"{folder.name}.{number}", [{f"file{number}": b"x"}]))
        config = {**image.config, **{key: value for key, value in platform.items() if key != "said"}}
        layers = [
            writer.add_bytes(image.blob(each["digest"]).read_bytes(), each["mediaType"])
            for each in image.manifest["layers"]
        ]
        entry = writer.finish(writer.add_json(config, "application/vnd.oci.image.config.v1+json"), layers)
        said = platform.get("said", {"architecture": config["architecture"], "os": config["os"]})
        manifests.append({**entry, "platform": said})
    content = {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests, **properties}
    entry = writer.add_json(content, INDEX)
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    return folder


BOTH = [{"architecture": "amd64"}, {"architecture": "arm64"}]


def test_an_index_is_read(tmp_path: Path) -> None:
    folder = write_index(tmp_path / "index", BOTH)
    images = layout.images(folder)
    assert list(images) == ["amd64", "arm64"]
    assert [sorted(image.files) for image in images.values()] == [["file0"], ["file1"]]
    top = json.loads((folder / "index.json").read_text())["manifests"][0]["digest"]
    assert layout.verified_digest(folder) == top
    with pytest.raises(
        layout.LayoutError, match="expected an image in index.json, found 'application/vnd.oci.image.index"
    ):
        layout.manifest_digest(folder)


def test_an_image_for_nothing_is_refused(tmp_path: Path) -> None:
    """The key of an image alone is ""."""
    with pytest.raises(layout.LayoutError, match="the architecture ''"):
        layout.images(write_index(tmp_path / "index", [{"architecture": ""}]))


def test_images_and_digests_by_name(tmp_path: Path) -> None:
    index, alone = write_index(tmp_path / "index", BOTH), write_layout(tmp_path / "image", [{"file": b"x"}])
    assert list(layout.named_images("it", index)) == ["it_amd64", "it_arm64"]
    assert list(layout.named_digests("it", index).values()) == [
        layout.verified_digest(index),
        *(image.digest for image in layout.images(index).values()),
    ]
    assert layout.named_digests("it", alone) == {"it": layout.verified_digest(alone)}


def test_one_image_is_read(tmp_path: Path) -> None:
    folder = write_layout(tmp_path / "image", [{"file": b"x"}])
    assert [(name, image.digest) for name, image in layout.images(folder).items()] == [
        ("", layout.verified_digest(folder))
    ]


@pytest.mark.parametrize(
    ("platforms", "properties", "message"),
    [
        ([*BOTH, {"architecture": "arm64"}], {}, "two images for arm64"),
        ([{"architecture": 7}], {}, "the architecture 7"),
        ([{"said": {"architecture": "arm64", "os": "linux"}}], {}, "an image for .*amd64"),
        ([{"variant": "v9"}], {}, "an image for .*v9"),
        ([{"os": "windows"}], {}, "an image for .*windows"),
        ([{"said": {}}], {}, "an image for"),
        ([], {}, "found ValueError..none"),
        (BOTH, {"manifests": [{"digest": "sha256:" + "0" * 64}]}, "No such file"),
        (BOTH, {"layers": []}, "another document"),
        (BOTH, {"mediaType": layout.MANIFEST}, "another document"),
        (BOTH, {"manifests": [{"digest": "sha256:1"}]}, "expected a digest"),
        (BOTH, {"manifests": 7}, "not iterable"),
    ],
)
def test_another_index_is_refused(
    tmp_path: Path, platforms: list[dict[str, Any]], properties: dict[str, Any], message: str
) -> None:
    folder = write_index(tmp_path / "index", platforms, **properties)
    for read in (layout.images, layout.verified_digest):
        with pytest.raises(layout.LayoutError, match=message):
            read(folder)


@pytest.mark.parametrize("number", range(7))
def test_every_blob_of_every_image_is_verified(tmp_path: Path, number: int) -> None:
    folder = write_index(tmp_path / "index", BOTH)
    blobs = sorted((folder / "blobs/sha256").iterdir())
    assert len(blobs) == 7
    blobs[number].write_bytes(blobs[number].read_bytes() + b" ")
    with pytest.raises(layout.LayoutError, match="expected the blob sha256:"):
        layout.verified_digest(folder)
