"""The format of packs, and how to read one. A pack is one file with everything that a build downloads, for machines
without a network. //tools:pack writes packs.

A pack is a tar of an OCI image layout (image-spec 1.1, image-layout.md) with one artifact:

    oci-layout  index.json          names the manifest by its digest
    blobs/sha256/<manifest>         a layer per blob: digest, size; annotations: kind, name, version and file name
    blobs/sha256/<configuration>    format, profile, whether CUDA and git sources are included, digests of the locks,
                                    and what Bazel is installed from
    blobs/sha256/…                  the blobs as downloaded, sorted by digest

The digest of the manifest is the name of the pack. An incremental pack lists all blobs but carries only those that its
base lacks.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tarfile
from collections.abc import Iterator
from typing import IO, Any

from fetch import errors

FORMAT = 1
TYPE = "application/vnd.mlc-bazel.pack.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
TITLE = "org.opencontainers.image.title"
BLOBS = "blobs/sha256/"

REPACK = "make it again where there is a network: tools/bazel run //tools:pack -- FILE"
_SMALL_BYTES = 1 << 26


class PackError(errors.UserError):
    """A pack is unusable. The message says why, what is missing and how to fix it."""


@dataclasses.dataclass(frozen=True)
class Blob:
    """One file of a pack.

    Args:
      sha256: lower-case hexadecimal.
      size: bytes.
      kind: deb, wheel, sdist, crate, git, or bazel for files that only Bazel's installation uses.
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
        about = layer["annotations"]
        return cls(
            layer["digest"].partition(":")[2],
            layer["size"],
            about["kind"],
            about["name"],
            about["version"],
            about[TITLE],
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


def decode(manifest: bytes, configuration: bytes) -> Pack:
    """Returns the pack that its manifest and its configuration describe.

    Raises:
      ValueError, KeyError: they are not the documents of a pack, or do not belong together.
    """
    content = json.loads(manifest)
    if content["artifactType"] != TYPE or content["config"]["digest"] != "sha256:" + sha256(configuration):
        raise ValueError("another artifact, or a modified configuration")
    return Pack(sha256(manifest), tuple(map(Blob.from_layer, content["layers"])), json.loads(configuration))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Reader:
    """An open pack. `pack` describes it; iterating yields the hash, size and content of each blob that it carries.

    Raises:
      PackError: the file is not a pack, has a later format, or is damaged before its first blob.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.documents: tuple[bytes, bytes] = (b"", b"")
        try:
            self._tar = tarfile.open(path, "r:")  # noqa: SIM115 (closed by `close`)
        except FileNotFoundError as error:
            raise PackError(
                f"{path}: no such file; expected a pack: tools/bazel run //tools:pack -- FILE makes one"
            ) from error
        except (OSError, tarfile.TarError) as error:
            raise self._no_pack(error) from error
        try:
            self.pack = self._read_documents()
        except BaseException:
            self._tar.close()
            raise

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._tar.close()

    def __iter__(self) -> Iterator[tuple[str, int, IO[bytes]]]:
        for member in self._members():
            content = self._tar.extractfile(member) if member.isreg() and member.name.startswith(BLOBS) else None
            if not content:
                raise PackError(
                    f"{self.path}: expected blobs, found {member.name!r}: a damaged pack; copy it again, or {REPACK}"
                )
            yield member.name[len(BLOBS) :], member.size, content

    def _members(self) -> Iterator[tarfile.TarInfo]:
        while True:
            try:
                member = self._tar.next()
            except (OSError, tarfile.TarError):
                return  # Truncated: the caller counts the blobs and reports what is missing.
            if member is None:
                return
            yield member

    def _no_pack(self, found: object) -> PackError:
        return PackError(
            f"{self.path}: expected a pack (tools/bazel run //tools:pack -- FILE makes one), found another file:"
            f" {found}"
        )

    def _document(self, name: str) -> bytes:
        member = next(self._members(), None)
        if member is None or member.name != name or not member.isreg() or member.size > _SMALL_BYTES:
            raise self._no_pack(
                f"{member.name!r} where {name!r} is expected" if member else f"it ends where {name!r} is expected"
            )
        data = self._tar.extractfile(member).read()  # type: ignore[union-attr]
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
            (descriptor,) = json.loads(self._document("index.json"))["manifests"]
            if descriptor.get("artifactType") != TYPE:
                raise self._no_pack(f"an OCI layout of {descriptor.get('artifactType') or descriptor.get('mediaType')}")
            manifest = self._document(BLOBS + descriptor["digest"].partition(":")[2])
            configuration = self._document(BLOBS + json.loads(manifest)["config"]["digest"].partition(":")[2])
            pack = decode(manifest, configuration)
        except (OSError, tarfile.TarError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._no_pack(error) from error
        if pack.about["format"] != FORMAT:
            raise PackError(
                f"{self.path}: expected a pack of format {FORMAT}, found format {pack.about['format']}: {REPACK} with"
                " this checkout"
            )
        self.documents = (manifest, configuration)
        return pack


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
