"""Writes OCI image layouts with one manifest (image-spec, image-layout.md)."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

from oci.layer import ByteSink
from oci.layout import MANIFEST, blob

Descriptor = dict[str, Any]


class HashingStream:
    """Passes what is written on to another stream, and hashes it.

    Args:
        stream: where the bytes go.
    """

    def __init__(self, stream: ByteSink) -> None:
        self._stream = stream
        self._sha256 = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes, /) -> int:
        self._sha256.update(data)
        self.size += len(data)
        self._stream.write(data)
        return len(data)

    def tell(self) -> int:
        return self.size

    @property
    def digest(self) -> str:
        return f"sha256:{self._sha256.hexdigest()}"


class LayoutWriter:
    """Blobs, then one manifest that refers to them.

    Args:
        folder: an empty or new folder.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        (folder / "blobs/sha256").mkdir(parents=True)

    def add(self, write: Callable[[ByteSink], object], media_type: str) -> Descriptor:
        """Adds the blob that `write` writes to a stream; returns its descriptor (image-spec, descriptor.md)."""
        unnamed = self.folder / "blobs/unnamed"
        with open(unnamed, "wb") as file:
            stream = HashingStream(file)
            write(stream)
        unnamed.replace(blob(self.folder, stream.digest))
        return {"mediaType": media_type, "digest": stream.digest, "size": stream.size}

    def add_bytes(self, data: bytes, media_type: str) -> Descriptor:
        return self.add(lambda stream: stream.write(data), media_type)

    def add_json(self, content: dict[str, Any], media_type: str) -> Descriptor:
        return self.add_bytes(json.dumps(content).encode(), media_type)

    def share(self, other: LayoutWriter, descriptor: Descriptor, media_type: str) -> Descriptor:
        """Adds a blob of another layout under another media type, as a link where the file system allows one."""
        source, target = (blob(layout.folder, descriptor["digest"]) for layout in (other, self))
        try:
            os.link(source, target)
        except FileExistsError:
            pass
        except OSError:
            shutil.copyfile(source, target)
        return {**descriptor, "mediaType": media_type}

    def finish(self, config: Descriptor, layers: list[Descriptor], **properties: Any) -> Descriptor:
        """Writes the manifest (image-spec, manifest.md) and the files that make the folder a layout.

        Args:
            config, layers: descriptors of blobs added before.
            **properties: further properties of the manifest, such as `annotations`.
        """
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, **properties, "config": config, "layers": layers}
        entry = self.add_json(manifest, MANIFEST)
        # The specification asks for the artifact's type in its descriptor too.
        entry |= {key: manifest[key] for key in ("artifactType",) if key in manifest}
        (self.folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
        (self.folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        return entry
