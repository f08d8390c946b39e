"""Reads an image from an OCI image layout (image-spec, image-layout.md) and shows the file system that its layers give."""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import posixpath
import re
import tarfile
from collections.abc import Iterator

# What `Image.matching` has read: digest of a layer and pattern → entries.
_MATCHING: dict[tuple[str, re.Pattern[str]], list[tuple[str, tarfile.TarInfo, bytes]]] = {}


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

    Raises:
        ValueError: the layout holds no image, or more than one.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        manifests = json.loads((folder / "index.json").read_text())["manifests"]
        if len(manifests) != 1:
            raise ValueError(f"{folder}: expected one image in index.json, found {len(manifests)}")
        self.digest: str = manifests[0]["digest"]
        self.manifest: dict = json.loads(self.blob(self.digest).read_text())
        if "layers" not in self.manifest:
            raise ValueError(f"{folder}: expected an image, found {self.manifest.get('mediaType', 'something else')}")
        self.config: dict = json.loads(self.blob(self.manifest["config"]["digest"]).read_text())

    @property
    def layer_digests(self) -> list[str]:
        return [layer["digest"] for layer in self.manifest["layers"]]

    def walk(self, number: int) -> Iterator[tuple[str, tarfile.TarInfo, tarfile.TarFile]]:
        """The entries of one layer as they stand in it: path without leading or trailing slash, entry, and the archive
        to read it from.

        One pass over the layer, with nothing kept: what is to be read must be read before the next step.
        """
        with tarfile.open(self.blob(self.layer_digests[number]), "r|*") as tar:
            for entry in tar:
                yield entry.name.rstrip("/"), entry, tar

    def matching(self, number: int, pattern: re.Pattern[str]) -> list[tuple[str, tarfile.TarInfo, bytes]]:
        """The entries of one layer whose whole path matches: path, entry, and a regular file's content. Images share
        layers: each is read once.
        """
        key = self.layer_digests[number], pattern
        if key not in _MATCHING:
            found = ((path, entry, tar) for path, entry, tar in self.walk(number) if pattern.fullmatch(path))
            _MATCHING[key] = [
                (path, entry, tar.extractfile(entry).read() if entry.isreg() else b"") for path, entry, tar in found
            ]
        return _MATCHING[key]

    @functools.cached_property
    def layers(self) -> list[dict[str, File]]:
        """Each layer's paths with their content, all in memory."""
        return [
            {
                path: File(entry, number, tar.extractfile(entry).read() if entry.isreg() else b"")
                for path, entry, tar in self.walk(number)
            }
            for number in range(len(self.layer_digests))
        ]

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

    def blob(self, digest: str) -> pathlib.Path:
        """The file of a blob, by its digest ("sha256:…")."""
        return self.folder / "blobs" / digest.replace(":", "/")
