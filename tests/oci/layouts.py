"""Small images made in a test, as OCI layouts (image-spec, image-layout.md)."""

from __future__ import annotations

import json
import pathlib
import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from oci.layer import Layer
from oci.layout import INDEX, Image
from oci.layout_writer import LayoutWriter

# Content of one layer: path → bytes of a file, or None for a folder.
Content = Mapping[str, bytes | None]


def write_layout(
    folder: pathlib.Path,
    layers: Sequence[Content | Layer],
    config: dict | None = None,
    labels: dict[str, str] | None = None,
    architecture: str = "amd64",
    ending: str = ".tar.gz",
) -> pathlib.Path:
    """Writes an image and returns the folder.

    Args:
        folder: new.
        layers: from the lowest. The first is said to be made by //image:layer0, and so on.
        config: `config` of the image's configuration (image-spec, config.md).
        labels: without "org.opencontainers.image." in front.
        architecture: what it is for.
        ending: of the layers' archives, which says how they are compressed.
    """
    writer = LayoutWriter(folder)
    descriptors, diff_ids = [], []
    for content in layers:
        layer = content if isinstance(content, Layer) else _layer(content)
        path = folder / f"layer{ending}"
        written = layer.write(path)
        descriptors.append(writer.add_bytes(path.read_bytes(), written.descriptor["mediaType"]))
        diff_ids.append(written.diff_id)
        path.unlink()
    configuration = {
        "os": "linux",
        "architecture": architecture,
        "created": "2000-01-01T00:00:00Z",
        "config": {
            **(config or {}),
            "Labels": {f"org.opencontainers.image.{key}": value for key, value in (labels or {}).items()},
        },
        "history": [{"created_by": f"bazel build @@//image:layer{number}"} for number in range(len(layers))],
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    writer.finish(writer.add_json(configuration, "application/vnd.oci.image.config.v1+json"), descriptors)
    return folder


def write_index(folder: pathlib.Path, images: Iterable[pathlib.Path], **properties: Any) -> pathlib.Path:
    """Writes an index of images and returns the folder.

    Args:
        folder: new.
        images: their layouts, each of another architecture.
        **properties: further properties of the index.
    """
    shutil.rmtree(folder, ignore_errors=True)
    writer = LayoutWriter(folder)
    manifests = []
    for layout in images:
        image = Image(layout)
        shutil.copytree(layout / "blobs", folder / "blobs", dirs_exist_ok=True)
        [entry] = json.loads((layout / "index.json").read_text())["manifests"]
        manifests.append({**entry, "platform": {key: image.config[key] for key in ("architecture", "os")}})
        shutil.copy(layout / "oci-layout", folder)
    entry = writer.add_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests, **properties}, INDEX)
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    return folder


def _layer(content: Content) -> Layer:
    layer = Layer()
    for path, data in content.items():
        if data is None:
            layer.add_directory(path, "test")
        else:
            layer.add_file(path, data, "test")
    return layer
