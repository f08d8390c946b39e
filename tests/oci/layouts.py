"""Small images made in a test, as OCI layouts (image-spec, image-layout.md)."""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from oci.layer import Layer

# Content of one layer: path → bytes of a file, or None for a folder.
Content = Mapping[str, bytes | None]


def write_layout(
    folder: pathlib.Path,
    layers: Sequence[Content | Layer],
    config: dict | None = None,
    labels: dict[str, str] | None = None,
) -> pathlib.Path:
    """Writes an image and returns the folder.

    Args:
        folder: new.
        layers: from the lowest. The first is said to be made by //image:layer0, and so on.
        config: `config` of the image's configuration (image-spec, config.md).
        labels: without "org.opencontainers.image." in front.
    """
    (folder / "blobs/sha256").mkdir(parents=True)
    descriptors = []
    for content in layers:
        layer = content if isinstance(content, Layer) else _layer(content)
        layer.write(folder / "layer.tar.gz")
        descriptors.append(
            _blob(folder, (folder / "layer.tar.gz").read_bytes(), "application/vnd.oci.image.layer.v1.tar+gzip")
        )
        (folder / "layer.tar.gz").unlink()
    configuration = {
        "os": "linux",
        "architecture": "amd64",
        "created": "2000-01-01T00:00:00Z",
        "config": {
            **(config or {}),
            "Labels": {f"org.opencontainers.image.{key}": value for key, value in (labels or {}).items()},
        },
        "history": [{"created_by": f"bazel build @@//image:layer{number}"} for number in range(len(layers))],
        "rootfs": {"type": "layers", "diff_ids": []},
    }
    manifest: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": _json(folder, configuration, "application/vnd.oci.image.config.v1+json"),
        "layers": descriptors,
    }
    index = {"schemaVersion": 2, "manifests": [_json(folder, manifest, manifest["mediaType"])]}
    (folder / "index.json").write_text(json.dumps(index))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return folder


def _layer(content: Content) -> Layer:
    layer = Layer()
    for path, data in content.items():
        if data is None:
            layer.add_directory(path, "test")
        else:
            layer.add_file(path, data, "test")
    return layer


def _json(folder: pathlib.Path, content: dict, media_type: str) -> dict:
    return _blob(folder, json.dumps(content).encode(), media_type)


def _blob(folder: pathlib.Path, data: bytes, media_type: str) -> dict:
    digest = hashlib.sha256(data).hexdigest()
    (folder / "blobs/sha256" / digest).write_bytes(data)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}
