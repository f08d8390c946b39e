"""Reads OCI image layouts (image-spec, image-layout.md): digests, manifest, and the files in the layers."""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import pathlib
import posixpath
import re
import tarfile
from collections.abc import Iterator
from typing import Any

from fetch.hashes import file_sha256

# The cache of `Image.matching`: digest of a layer and pattern → entries.
_MATCHING: dict[tuple[str, re.Pattern[str]], list[tuple[str, tarfile.TarInfo, bytes]]] = {}


class LayoutError(ValueError):
    """A folder is not a layout with one intact image; the message names it and says what was expected and found."""


def is_layout(folder: pathlib.Path) -> bool:
    """Whether a folder claims to be a layout; `Image` reads it, `verified_digest` checks it."""
    return (folder / "oci-layout").is_file() and (folder / "index.json").is_file()


def blob(folder: pathlib.Path, digest: str) -> pathlib.Path:
    """The file of a blob, by its digest ("sha256:…")."""
    return folder / "blobs" / digest.replace(":", "/")


def manifest_digest(folder: pathlib.Path) -> str:
    """The digest of the layout's one manifest.

    Raises:
        LayoutError: index.json is missing or malformed, or lists no manifest or more than one.
    """
    try:
        manifests = json.loads((folder / "index.json").read_bytes())["manifests"]
        digests: list[str] = [manifest["digest"] for manifest in manifests]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LayoutError(f"{folder}: expected an OCI image layout, found {error!r}") from error
    if len(digests) != 1:
        raise LayoutError(f"{folder}: expected one image in index.json, found {len(digests)}")
    return digests[0]


def verified_digest(folder: pathlib.Path) -> str:
    """The digest of the layout's one manifest, after checking every blob of the image against its digest.

    Raises:
        LayoutError: a blob is damaged or missing, or the layout does not hold one image.
    """
    digest = manifest_digest(folder)
    _verify(folder, digest)
    image = Image(folder)
    for name in (image.config_digest, *image.layer_digests):
        _verify(folder, name)
    return digest


def _verify(folder: pathlib.Path, digest: str) -> None:
    path = blob(folder, digest)
    found = f"sha256:{file_sha256(path)}" if path.exists() else "none"
    if found != digest:
        raise LayoutError(f"{folder.name}: expected the blob {digest}, found {found}")


@dataclasses.dataclass(frozen=True)
class File:
    """One path of an image: its tar entry, the number of its layer from the lowest, and a regular file's content."""

    entry: tarfile.TarInfo
    layer: int
    data: bytes


def content(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    """The bytes of a regular file in an archive; nothing for any other entry."""
    return stream(tar, entry).read() if entry.isreg() else b""


def stream(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> io.BufferedReader:
    """A regular file in an archive, opened for reading."""
    file = tar.extractfile(entry)
    assert isinstance(file, io.BufferedReader), f"{entry.name} is not a regular file"
    return file


class Image:
    """The one image of a layout.

    Args:
        folder: has index.json and blobs/.

    Raises:
        LayoutError: the layout does not hold exactly one readable image.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.digest = manifest_digest(folder)
        self.manifest = self._json(self.digest)
        if "layers" not in self.manifest:
            found = self.manifest.get("mediaType", "something else")
            raise LayoutError(f"{folder}: expected an image, found {found}")

    def _json(self, digest: str) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads(self.blob(digest).read_bytes())
        except (OSError, ValueError) as error:
            raise LayoutError(f"{self.folder}: expected JSON in the blob {digest}, found {error!r}") from error
        return content

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """The image's configuration (image-spec, config.md).

        Raises:
            LayoutError: its blob is missing or malformed.
        """
        return self._json(self.config_digest)

    @property
    def config_digest(self) -> str:
        digest: str = self.manifest["config"]["digest"]
        return digest

    @property
    def layer_digests(self) -> list[str]:
        return [layer["digest"] for layer in self.manifest["layers"]]

    def walk(self, number: int) -> Iterator[tuple[str, tarfile.TarInfo, tarfile.TarFile]]:
        """Walks one layer in order: path without trailing slash, entry, and the archive to read it from.

        The layer is a stream, read once: read what you need from an entry before you move to the next.
        """
        with tarfile.open(self.blob(self.layer_digests[number]), "r|*") as tar:
            for entry in tar:
                yield entry.name.rstrip("/"), entry, tar

    def matching(self, number: int, pattern: re.Pattern[str]) -> list[tuple[str, tarfile.TarInfo, bytes]]:
        """The entries of one layer whose whole path matches: path, entry, and a regular file's content.

        Images share layers, so results are cached by digest.
        """
        key = self.layer_digests[number], pattern
        if key not in _MATCHING:
            found = ((path, entry, tar) for path, entry, tar in self.walk(number) if pattern.fullmatch(path))
            _MATCHING[key] = [(path, entry, content(tar, entry)) for path, entry, tar in found]
        return _MATCHING[key]

    @functools.cached_property
    def layers(self) -> list[dict[str, File]]:
        """Each layer's paths and their content, all in memory."""
        return [
            {path: File(entry, number, content(tar, entry)) for path, entry, tar in self.walk(number)}
            for number in range(len(self.layer_digests))
        ]

    @functools.cached_property
    def files(self) -> dict[str, File]:
        """All paths of the image. Its layers must not remove anything."""
        merged: dict[str, File] = {}
        for layer in self.layers:
            assert not [path for path in layer if posixpath.basename(path).startswith(".wh.")], "a layer removes files"
            merged |= layer
        return merged

    def text(self, path: str) -> str:
        return self.files[path].data.decode()

    def resolve(self, path: str) -> str | None:
        """The path with all symbolic links followed, or None if it leads nowhere."""
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
        return blob(self.folder, digest)
