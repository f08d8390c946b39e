"""Reads OCI image layouts (image-spec, image-layout.md): digests, manifest, and the files in the layers."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import pathlib
import posixpath
import re
import tarfile
from collections.abc import Iterator
from typing import Any

from fetch import archives, strict_json
from fetch.hashes import file_sha256
from oci.reference import DIGEST

# The cache of `Image.matching`: digest of a layer and pattern → entries.
_MATCHING: dict[tuple[str, re.Pattern[str]], list[tuple[str, tarfile.TarInfo, bytes]]] = {}


MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
_MANIFESTS = (MANIFEST, "application/vnd.docker.distribution.manifest.v2+json")
# What a platform is (image-spec, image-index.md); the same keys are in a configuration.
_PLATFORM = ("architecture", "os", "os.features", "os.version", "variant")
CONFIG = "application/vnd.oci.image.config.v1+json"
_CONFIGS = (CONFIG, "application/vnd.docker.container.image.v1+json")

# The names in image-spec's index, manifest, descriptor and configuration, without those of health checks.
_NAMES = frozenset(
    """
    schemaVersion mediaType artifactType manifests config layers subject annotations digest size urls data platform
    architecture os os.version os.features variant features created author rootfs history type diff_ids created_by
    comment empty_layer User ExposedPorts Env Entrypoint Cmd Volumes WorkingDir Labels StopSignal ArgsEscaped Memory
    MemorySwap CpuShares Healthcheck
    """.split()
)
_SPELLING = {name.casefold(): name for name in _NAMES}
# What has these names has any keys.
_FREE = frozenset("annotations ExposedPorts Volumes Labels".split())


class LayoutError(ValueError):
    """A folder is not a layout with one intact image, or one intact index of images; the message names it and says what
    was expected and found.
    """


def is_layout(folder: pathlib.Path) -> bool:
    """Whether a folder claims to be a layout; `Image` reads it, `verified_digest` checks it."""
    return (folder / "oci-layout").is_file() and (folder / "index.json").is_file()


def blob(folder: pathlib.Path, digest: str) -> pathlib.Path:
    """The file of a blob, by its digest ("sha256:…").

    Raises:
        LayoutError: it is no digest; as a path it could lead anywhere.
    """
    if not isinstance(digest, str) or not re.fullmatch(DIGEST, digest):
        raise LayoutError(f"{folder}: expected a digest, sha256:…, found {digest!r:.100}")
    return folder / "blobs" / digest.replace(":", "/")


def manifest_digest(folder: pathlib.Path) -> str:
    """The digest of the layout's one manifest.

    Raises:
        LayoutError: index.json is missing or malformed, lists no manifest or more than one, or a nested index.
    """
    digest, media_type = _listed(folder)
    if media_type not in _MANIFESTS:
        raise LayoutError(f"{folder}: expected an image in index.json, found {media_type!r:.100}")
    return digest


def _listed(folder: pathlib.Path) -> tuple[str, str]:
    """The digest and the media type of the one thing that index.json lists."""
    with _malformed(f"{folder}: expected an OCI image layout"):
        manifests = _document(folder / "index.json")["manifests"]
        listed: list[tuple[str, str]] = [(entry["digest"], entry.get("mediaType", MANIFEST)) for entry in manifests]
    if len(listed) != 1:
        raise LayoutError(f"{folder}: expected one image in index.json, found {len(listed)}")
    blob(folder, listed[0][0])
    return listed[0]


def listed_digest(folder: pathlib.Path) -> str:
    """The digest of the one thing, an image, an artifact or an index of images, that index.json lists.

    Raises:
        LayoutError: index.json is missing or malformed, or lists another number of them.
    """
    return _listed(folder)[0]


def images(folder: pathlib.Path) -> dict[str, Image]:
    """The images of a layout: architecture, as Go names it → image. If it has one image or artifact alone: "" → it.

    Raises:
        LayoutError: index.json lists something else, or the index in it is malformed: each of its images must be for
          Linux, and for another architecture, which its configuration has too.
    """
    digest, media_type = _listed(folder)
    if media_type != INDEX:
        return {"": Image(folder)}
    with _malformed(f"{folder}: expected an index of images"):
        index = _document(blob(folder, digest))
        if "layers" in index or index.get("mediaType", INDEX) != INDEX:
            raise ValueError("another document")
        found: dict[str, Image] = {}
        for entry in index["manifests"]:
            image = Image(folder, entry["digest"])
            platform = {key: image.config[key] for key in _PLATFORM if key in image.config}
            architecture = platform["architecture"]
            if entry["mediaType"] not in _MANIFESTS or entry["platform"] != platform or platform["os"] != "linux":
                raise ValueError(f"{entry['mediaType']} for {entry['platform']}, an image for {platform}")
            # "" is the key of an image alone.
            if not isinstance(architecture, str) or not re.fullmatch("[a-z0-9]+", architecture):
                raise ValueError(f"the architecture {architecture!r:.100}")
            if architecture in found:
                raise ValueError(f"two images for {architecture}")
            found[architecture] = image
        if not found:
            raise ValueError("none")
    return found


def named_images(name: str, folder: pathlib.Path) -> dict[str, Image]:
    """The images of a layout by name: an image alone has the layout's, those of an index NAME_amd64 and so on.

    Args:
        name: the layout's.
        folder: has it.

    Raises:
        LayoutError: see `images`.
    """
    return {f"{name}_{architecture}" if architecture else name: image for architecture, image in images(folder).items()}


def named_digests(name: str, folder: pathlib.Path) -> dict[str, str]:
    """The digests of a layout by name: that of the one thing that it lists, and those of `named_images`.

    Raises:
        LayoutError: see `images`.
    """
    return {name: listed_digest(folder)} | {each: image.digest for each, image in named_images(name, folder).items()}


def _document(path: pathlib.Path) -> Any:
    """Reads a JSON document of an image.

    oras, skopeo and container engines are written in Go, whose reader takes "Layers" for "layers". A document that has
    both is another image to them, so it is refused.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no JSON, too large, or Go reads other values of it.
    """
    content = strict_json.read(path, any_case=True)
    _check_spelling(content)
    return content


def _check_spelling(content: Any) -> None:
    if isinstance(content, list):
        for each in content:
            _check_spelling(each)
    elif isinstance(content, dict):
        for name, value in content.items():
            if (right := _SPELLING.get(name.casefold(), name)) != name:
                raise ValueError(f"expected the key {right!r}, found {name!r:.100}")
            if name not in _FREE:
                _check_spelling(value)


@contextlib.contextmanager
def _malformed(expected: str) -> Iterator[None]:
    """Turns what reading a malformed document raises into a LayoutError."""
    try:
        yield
    except LayoutError:
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise LayoutError(f"{expected}, found {error!r:.200}") from error


def artifact_labels(manifest: dict[str, Any]) -> dict[str, str] | None:
    """An artifact's labels, which are its manifest's annotations. None for an image: its configuration has them."""
    if manifest["config"].get("mediaType", CONFIG) in _CONFIGS:
        return None
    return manifest.get("annotations") or {}


def verified_digest(folder: pathlib.Path) -> str:
    """The digest of the layout's one manifest or index, after checking every blob of its images against its digest.

    Raises:
        LayoutError: a blob is damaged or missing, or the layout does not hold one image or one index.
    """
    digest, _ = _listed(folder)
    _verify(folder, digest)
    # A layer of two images is read once.
    for name in dict.fromkeys(
        name for image in images(folder).values() for name in (image.digest, image.config_digest, *image.layer_digests)
    ):
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
    """An image of a layout.

    Args:
        folder: has index.json and blobs/.
        digest: of its manifest; by default the layout's only one.

    Raises:
        LayoutError: the layout does not hold exactly one readable image, or none with this digest.
    """

    def __init__(self, folder: pathlib.Path, digest: str = "") -> None:
        self.folder = folder
        self.digest = digest or manifest_digest(folder)
        self.manifest = self._json(self.digest)
        # A document that is image and index at once is another thing to another reader (image-spec, manifest.md).
        found = self.manifest.get("mediaType", MANIFEST)
        if "layers" not in self.manifest or "manifests" in self.manifest or found not in _MANIFESTS:
            found = "an index" if "manifests" in self.manifest else found
            raise LayoutError(f"{folder}: expected an image, found {found!r:.100}")
        with _malformed(f"{folder}: expected a configuration and layers in the manifest"):
            for digest in (self.manifest["config"]["digest"], *(layer["digest"] for layer in self.manifest["layers"])):
                self.blob(digest)

    def _json(self, digest: str) -> dict[str, Any]:
        with _malformed(f"{self.folder}: expected JSON in the blob {digest}"):
            content = _document(self.blob(digest))
            if not isinstance(content, dict):
                raise TypeError(type(content).__name__)
        return content

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """The image's configuration (image-spec, config.md).

        Raises:
            LayoutError: its blob is missing or malformed.
        """
        return self._json(self.config_digest)

    @property
    def labels(self) -> dict[str, str]:
        """The labels of an image's configuration, or the annotations of an artifact's manifest.

        Raises:
            LayoutError: the configuration is missing or malformed.
        """
        with _malformed(f"{self.folder}: expected labels"):
            found = artifact_labels(self.manifest)
            if found is None:
                found = (self.config.get("config") or {}).get("Labels") or {}
            if not isinstance(found, dict):
                raise TypeError(type(found).__name__)
        return found

    @property
    def config_digest(self) -> str:
        digest: str = self.manifest["config"]["digest"]
        return digest

    @property
    def layer_digests(self) -> list[str]:
        return [layer["digest"] for layer in self.manifest["layers"]]

    @property
    def has_zstd(self) -> bool:
        """Whether a layer is compressed with zstd, which not every tool reads."""
        return any(str(layer.get("mediaType")).endswith("+zstd") for layer in self.manifest["layers"])

    def walk(self, number: int) -> Iterator[tuple[str, tarfile.TarInfo, tarfile.TarFile]]:
        """Walks one layer in order: path without trailing slash, entry, and the archive to read it from.

        The layer is a stream, read once: read what you need from an entry before you move to the next.

        Raises:
            LayoutError: the layer is missing or damaged.
        """
        path = self.blob(self.layer_digests[number])
        try:
            with archives.open_tar_file(path, f"{self.folder}: the layer {path.name}") as tar:
                for entry in tar:
                    yield entry.name.rstrip("/"), entry, tar
        except (OSError, archives.ArchiveError) as error:
            raise LayoutError(str(error)) from error

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
