"""The format of packs, and how to read one. A pack is one file with everything that a build downloads, for machines
without a network. //tools:pack writes packs.

A pack is a tar of an OCI image layout (image-spec 1.1, image-layout.md) with one artifact:

    oci-layout  index.json          names the manifest by its digest
    blobs/sha256/<manifest>         a layer per blob: digest, size; annotations: kind, name, version and file name
    blobs/sha256/<configuration>    format, profile, whether CUDA and git sources are included, digests of the locks,
                                    and what Bazel is installed from
    blobs/sha256/…                  the blobs as downloaded, sorted by digest

The digest of the manifest is the name of the pack, and what --airgap-digest= expects: it covers the configuration and
every blob. An incremental pack lists all blobs but carries only those that its base lacks.

The author of a file decides its content, so nothing in it becomes a path except through fetch/names.py.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import stat
import tarfile
from collections.abc import Iterator
from typing import Any, BinaryIO

from fetch import errors, names

FORMAT = 1
TYPE = "application/vnd.mlc-bazel.pack.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
TITLE = "org.opencontainers.image.title"
BLOBS = "blobs/sha256/"
KINDS = frozenset({"bazel", "crate", "deb", "git", "jar", "model", "sdist", "wheel"})

REPACK = "make it again where there is a network: tools/bazel run //tools:pack -- FILE"
_SMALL_BYTES = 1 << 26  # Of a document, which is read whole.
_LARGE_BYTES = 1 << 50


class PackError(errors.UserError):
    """A pack is unusable. The message says why, what is missing and how to fix it."""


@dataclasses.dataclass(frozen=True)
class Blob:
    """One file of a pack.

    Args:
      sha256: lower-case hexadecimal.
      size: bytes.
      kind: deb, wheel, sdist, crate, git, model, or bazel for files that only Bazel's installation uses.
      name: the name in the lock.
      version: the version in the lock; for git, a commit.
      file: the file name of the download.
    """

    sha256: str
    size: int
    kind: str
    name: str
    version: str
    file: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name} {self.version} (sha256 {self.sha256})"

    def layer(self) -> dict[str, Any]:
        """Returns the blob's descriptor in the manifest (image-spec 1.1, descriptor.md)."""
        about = {"kind": self.kind, "name": self.name, "version": self.version, TITLE: self.file}
        return {
            "mediaType": "application/octet-stream",
            "digest": "sha256:" + self.sha256,
            "size": self.size,
            "annotations": about,
        }

    @classmethod
    def from_layer(cls, layer: dict[str, Any]) -> Blob:
        """Reads what `layer` returns.

        Raises:
          names.UnsafeNameError, ValueError, KeyError, TypeError: it is malformed.
        """
        about = layer["annotations"]
        size, kind = layer["size"], about["kind"]
        if type(size) is not int or size < 0:
            raise ValueError(f"size: expected a number of bytes, found {size!r}")
        if kind not in KINDS:
            raise ValueError(f"kind: expected one of {', '.join(sorted(KINDS))}, found {kind!r}")
        name = _typed(about["name"], str, "name")
        # Debian's names have their suite in front; all others become a folder.
        for part in name.split("/", 1) if kind == "deb" else [name]:
            names.base_name(part, "name")
        version = names.base_name(about["version"], "version")
        return cls(
            names.sha256(layer["digest"], "digest", "sha256:"),
            size,
            kind,
            name,
            version,
            names.base_name(about[TITLE], TITLE),
        )


@dataclasses.dataclass(frozen=True)
class Pack:
    """The description of a pack.

    Args:
      name: sha256 of its manifest.
      blobs: everything that a build needs, including blobs that only the base carries.
      about: its configuration: format, profile, cuda, sources, locks (digests), left_out (hashes in the locks that no
        build with this configuration needs), bazel (version, packages, wheels), base (name of the pack that this one
        adds to, or null) and from_base (hashes of blobs that only the base carries).
    """

    name: str
    blobs: tuple[Blob, ...]
    about: dict[str, Any]

    def size(self) -> int:
        """Returns the total size of all blobs in bytes."""
        return sum(blob.size for blob in self.blobs)


class OtherFormat(ValueError):
    """A pack that another version of this module wrote. Its argument is the format."""


def decode(manifest: bytes, configuration: bytes) -> Pack:
    """Returns the pack that its manifest and its configuration describe.

    Raises:
      OtherFormat: of another format.
      names.UnsafeNameError, ValueError, KeyError, TypeError: they are not the documents of a pack, or do not belong
        together.
    """
    content, about = _object(manifest), _object(configuration)
    if content["artifactType"] != TYPE or content["config"]["digest"] != "sha256:" + sha256(configuration):
        raise ValueError("another artifact, or a modified configuration")
    if about["format"] != FORMAT:
        raise OtherFormat(f"{about['format']!r:.100}")
    blobs = tuple(map(Blob.from_layer, _typed(content["layers"], list, "layers")))
    hashes = {blob.sha256 for blob in blobs}
    if len(hashes) != len(blobs):
        raise ValueError("layers: expected each blob once")
    return Pack(sha256(manifest), blobs, _checked_about(about, hashes))


def _checked_about(about: dict[str, Any], hashes: set[str]) -> dict[str, Any]:
    """Returns the configuration of a pack if all that the launcher reads in it has the right type."""
    for name in ("cuda", "sources"):
        _typed(about[name], bool, name)
    for name in ("left_out", "from_base"):
        for each in _typed(about[name], list, name):
            names.sha256(each, name)
    for lock, digest in _typed(about["locks"], dict, "locks").items():
        names.base_name(lock, "locks")
        names.sha256(digest, lock)
    if about["base"] is not None:
        names.sha256(about["base"], "base")
    bazel = _typed(about["bazel"], dict, "bazel")
    names.base_name(bazel["bazel"], "bazel")
    for part in ("packages", "wheels"):
        for name, entry in _typed(bazel[part], dict, part).items():
            names.base_name(name, part)
            if names.sha256(entry["sha256"], name) not in hashes:
                raise ValueError(f"{part}: expected {name} among the blobs, found no sha256 {entry['sha256']}")
    for name, entry in bazel["packages"].items():
        for field in ("version", "suite"):
            names.base_name(entry[field], f"{field} of {name}")
        source = _typed(entry.get("source", [name, entry["version"]]), list, f"source of {name}")
        if len(source) != 2:
            raise ValueError(f"source of {name}: expected a name and a version, found {len(source)} items")
        for each in source:
            names.base_name(each, f"source of {name}")
    return about


def _typed(value: Any, kind: type, what: str) -> Any:
    if type(value) is not kind:
        raise ValueError(f"{what}: expected {kind.__name__}, found {type(value).__name__}")
    return value


def _object(data: bytes) -> dict[str, Any]:
    """Parses a JSON object, in which no key comes twice."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a key comes twice in a JSON object")
        return found

    try:
        return _typed(json.loads(data, object_pairs_hook=unique), dict, "document")
    except RecursionError as error:
        raise ValueError("JSON nested too deeply") from error


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Reader:
    """An open pack. `pack` describes it; iterating yields the hash, size and content of each blob that it carries.

    Reads the file once, from start to end, so that a file that changes meanwhile is not what was checked. Accepts plain
    USTAR members only: no links, sparse files or extended headers.

    Raises:
      PackError: the file is not a pack, has another format, or is damaged before its first blob.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.documents: tuple[bytes, bytes] = (b"", b"")
        try:
            # A FIFO would block until somebody writes to it.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise PackError(
                f"{path}: no such file; expected a pack: tools/bazel run //tools:pack -- FILE makes one"
            ) from error
        except (OSError, ValueError) as error:
            raise self._no_pack(error) from error
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise self._no_pack("something that is not a regular file")
        self.identity = identity(status)
        self._file = os.fdopen(descriptor, "rb")
        self._end = 0  # Where the next member starts.
        try:
            self.pack = self._read_documents()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[tuple[str, int, Content]]:
        while True:
            try:
                member = self._next()
            except (OSError, tarfile.TarError, ValueError):
                return  # Truncated: the caller counts the blobs and reports what is missing.
            if member is None:
                return
            name, size, content = member
            try:
                if not name.startswith(BLOBS):
                    raise names.UnsafeNameError(f"expected blobs, found {ascii(name)}")
                digits = names.sha256(name[len(BLOBS) :], "a blob")
            except names.UnsafeNameError as error:
                raise PackError(f"{self.path}: {error}: a damaged pack; copy it again, or {REPACK}") from error
            yield digits, size, content

    def _next(self) -> tuple[str, int, Content] | None:
        """Returns name, size and content of the next member, or None at the end.

        Raises:
          OSError, tarfile.TarError, ValueError: there is no valid header.
          PackError: the member is not a plain file.
        """
        self._file.seek(self._end)
        try:
            header = tarfile.TarInfo.frombuf(self._file.read(tarfile.BLOCKSIZE), "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            if type(error).__name__ == "EOFHeaderError":
                return None
            raise
        if header.type != tarfile.REGTYPE or not 0 <= header.size < _LARGE_BYTES:
            raise PackError(
                f"{self.path}: expected plain files, found {ascii(header.name)} of type {header.type!r}: a damaged"
                f" pack; copy it again, or {REPACK}"
            )
        begin = self._end + tarfile.BLOCKSIZE
        self._end = begin + -(-header.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        return header.name, header.size, Content(self._file, header.size)

    def _no_pack(self, found: object) -> PackError:
        return PackError(
            f"{self.path}: expected a pack (tools/bazel run //tools:pack -- FILE makes one), found another file:"
            f" {' '.join(str(found).split())[:200]}"
        )

    def _document(self, name: str) -> bytes:
        member = self._next()
        if member is None or member[0] != name or member[1] > _SMALL_BYTES:
            raise self._no_pack(
                f"{ascii(member[0])} where {name!r} is expected" if member else f"it ends where {name!r} is expected"
            )
        data = member[2].read(member[1])
        if name.startswith(BLOBS) and sha256(data) != name[len(BLOBS) :]:
            raise PackError(
                f"{self.path}: damaged: expected sha256 {name[len(BLOBS) :]}, as listed, found {sha256(data)}; copy it"
                f" again, or {REPACK}"
            )
        return data

    def _read_documents(self) -> Pack:
        try:
            if self._document("oci-layout") != LAYOUT:
                raise self._no_pack("an OCI layout of another version")
            (descriptor,) = _object(self._document("index.json"))["manifests"]
            if descriptor.get("artifactType") != TYPE:
                raise self._no_pack(f"an OCI layout of {descriptor.get('artifactType') or descriptor.get('mediaType')}")
            manifest = self._document(BLOBS + names.sha256(descriptor["digest"], "index.json", "sha256:"))
            config = _object(manifest)["config"]["digest"]
            configuration = self._document(BLOBS + names.sha256(config, "the manifest's config", "sha256:"))
            pack = decode(manifest, configuration)
        except OtherFormat as error:
            raise PackError(
                f"{self.path}: expected a pack of format {FORMAT}, found format {error}: {REPACK} with this checkout"
            ) from error
        except (OSError, tarfile.TarError, names.UnsafeNameError) as error:
            raise self._no_pack(error) from error
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise self._no_pack(f"{type(error).__name__}: {error}") from error
        self.documents = (manifest, configuration)
        return pack


class Content:
    """The content of a member: reads as far as that goes, and no further."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._left = file, size

    def read(self, size: int) -> bytes:
        data = self._file.read(min(size, self._left))
        self._left -= len(data)
        return data


def identity(status: os.stat_result) -> list[int]:
    """Returns what tells a file from another one under the same path."""
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def listed(blobs: list[Any], most: int = 5) -> str:
    """Returns lines that name the first few and count the rest."""
    more = [f"  and {len(blobs) - most} more"] if len(blobs) > most else []
    return "\n".join([f"  {blob}" for blob in blobs[:most]] + more)


def describe(pack: Pack, path: str | None = None) -> str:
    """Returns a line that describes a pack to the user."""
    about = pack.about
    parts = [
        f"{len(pack.blobs)} files, {pack.size() / 1e6:.0f} MB",
        "with CUDA" if about["cuda"] else "without CUDA",
        "with git sources" if about["sources"] else "without git sources",
        f"Bazel {about['bazel']['bazel']}",
    ]
    return f"{path or pack.name[:12]}: {', '.join(parts)}"
