"""Writes OCI image layouts with one manifest (image-spec, image-layout.md)."""

from __future__ import annotations

import functools
import json
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import IO, Any

from fetch import archives
from oci.layer import TAR, ByteSink, HashingStream
from oci.layout import CONFIG, MANIFEST, Image, blob

Descriptor = dict[str, Any]


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


def write_plain(image: Image, folder: pathlib.Path) -> int:
    """Writes an image again with layers that are not compressed, which any tool can read; returns their size in bytes.

    The configuration stays, because it has the digests of the plain layers.

    Args:
        image: of a layout.
        folder: the new layout, with this image alone.

    Raises:
        archives.ArchiveError: a layer is damaged, or has more than archives.MOST_BYTES.
        OSError: it cannot be read, or the layout not be written.
    """
    writer, layers = LayoutWriter(folder), []
    for layer in image.manifest["layers"]:
        what = f"the layer {layer['digest']}"
        with open(image.blob(layer["digest"]), "rb") as file, archives.reading(what):
            content = archives.decompressed(file, what)
            layers.append(writer.add(functools.partial(_copy, content, what), TAR))
    rootfs = image.config.get("rootfs")
    if not isinstance(rootfs, dict) or [layer["digest"] for layer in layers] != rootfs.get("diff_ids"):
        raise archives.ArchiveError(
            f"{image.folder.name}: expected the layers that its configuration names, found others"
        )
    writer.finish(writer.add_json(image.config, CONFIG), layers)
    return sum(layer["size"] for layer in layers)


def _copy(content: IO[bytes], what: str, stream: ByteSink) -> None:
    """Copies a layer that may unpack to more than any disk has."""
    written = 0
    while block := content.read(1 << 20):
        written += len(block)
        if written > archives.MOST_BYTES:
            raise archives.too_much(what)
        stream.write(block)
