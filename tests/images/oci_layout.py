"""Reads an image from an OCI image layout (image-spec, image-layout.md) and shows the file system that its layers give."""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import posixpath
import tarfile
from collections.abc import Iterator


@dataclasses.dataclass(frozen=True)
class File:
    """One path of an image: its tar entry, the number of its layer from the lowest, and a regular file's content."""

    entry: tarfile.TarInfo
    layer: int
    data: bytes


class Image:
    """The one image of a layout.

    Args:
        folder: has index.json and blobs/.
    """

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        (descriptor,) = json.loads((folder / "index.json").read_text())["manifests"]
        self.digest: str = descriptor["digest"]
        self.manifest: dict = json.loads(self._blob(descriptor).read_text())
        self.config: dict = json.loads(self._blob(self.manifest["config"]).read_text())

    @property
    def layer_digests(self) -> list[str]:
        return [layer["digest"] for layer in self.manifest["layers"]]

    @functools.cached_property
    def layers(self) -> list[dict[str, File]]:
        """Each layer's paths, without leading or trailing slash, as they are in the archive."""
        return [dict(self._files(number, self._blob(layer))) for number, layer in enumerate(self.manifest["layers"])]

    @functools.cached_property
    def files(self) -> dict[str, File]:
        """All paths of the image. Layers may not remove anything."""
        merged: dict[str, File] = {}
        for layer in self.layers:
            assert not [path for path in layer if posixpath.basename(path).startswith(".wh.")], "a layer removes files"
            merged |= layer
        return merged

    def text(self, path: str) -> str:
        return self.files[path].data.decode()

    def resolve(self, path: str) -> str | None:
        """The path with all symbolic links followed, or None where it leads to nothing."""
        done, rest, links = "", path.split("/"), 0
        while rest:
            part = rest.pop(0)
            if part in ("", ".", ".."):
                done = posixpath.dirname(done) if part == ".." else done
                continue
            step = posixpath.join(done, part)
            if step not in self.files:
                return None
            entry = self.files[step].entry
            if not entry.issym():
                done = step
                continue
            links += 1
            if links > 40:  # Linux's limit
                return None
            done = "" if entry.linkname.startswith("/") else done
            rest = entry.linkname.split("/") + rest
        return done

    def _blob(self, descriptor: dict) -> pathlib.Path:
        return self.folder / "blobs" / descriptor["digest"].replace(":", "/")

    @staticmethod
    def _files(number: int, path: pathlib.Path) -> Iterator[tuple[str, File]]:
        with tarfile.open(path) as tar:
            for entry in tar:
                yield entry.name.rstrip("/"), File(entry, number, tar.extractfile(entry).read() if entry.isreg() else b"")
