"""A deterministic image layer: file system entries, added in any order, are written as one sorted archive.

Format: OCI image layer (image-spec, layer.md) as a POSIX.1-2001 (pax) tar; gzip has no name or time stamp. The same
entries give the same bytes on every machine, in every time zone and under every umask.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import os
import pathlib
import posixpath
import tarfile
from collections.abc import Iterator
from typing import IO, Any, Protocol, cast

# 2000-01-01T00:00:00Z, the time of every entry: zip can express it too, and no tool mistakes it for "unset", as with 0.
SOURCE_DATE_EPOCH = 946684800

# zlib's middle level: level 9 takes three times as long for one percent less.
COMPRESSION_LEVEL = 6

# Of zstd: 218 MB of memory; 64 take 742.
_MOST_WORKERS = 8

# Half the time of gzip for four fifths of its size. Level 12 takes twice as long for one percent less.
ZSTD_LEVEL = 9

# Media type of a plain archive (image-spec, layer.md).
TAR = "application/vnd.oci.image.layer.v1.tar"

# A layer must not grant anyone extra rights: drop set-user-id and set-group-id bits, keep the sticky bit.
_MODE_MASK = 0o1777

# Bytes; four times tarfile's default, because some files have hundreds of megabytes.
_COPY_SIZE = 1 << 16

Content = bytes | pathlib.Path


class ByteSink(Protocol):
    """What a layer is written to: all that tarfile needs of a file."""

    def write(self, data: bytes, /) -> int: ...

    def tell(self) -> int: ...


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


@dataclasses.dataclass(frozen=True)
class Written:
    """What an image says of a layer.

    Attributes:
        descriptor: media type, digest and size of the archive (image-spec, descriptor.md).
        diff_id: digest of the archive before compression (image-spec, config.md).
    """

    descriptor: dict[str, Any]
    diff_id: str


@dataclasses.dataclass(frozen=True)
class Entry:
    """One path of a layer.

    Args:
        kind: tarfile's type: DIRTYPE, REGTYPE, SYMTYPE or LNKTYPE.
        origin: the package or file that it comes from, for error messages.
        content: a regular file's bytes, or the path to read them from.
        target: what a link points to; for a hard link, a path in this layer.
    """

    kind: bytes
    origin: str
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    content: Content = b""
    target: str = ""

    def data(self) -> bytes:
        return self.content if isinstance(self.content, bytes) else self.content.read_bytes()


def _gzip(stream: ByteSink) -> IO[bytes]:
    return cast("IO[bytes]", gzip.GzipFile("", "wb", COMPRESSION_LEVEL, cast("IO[bytes]", stream), mtime=0))


def _zstd(stream: ByteSink) -> IO[bytes]:
    """Compresses on all cores: the result is the same for any number of workers (zstd.h, ZSTD_c_nbWorkers)."""
    from backports import zstd  # Not at the top: what only reads layers' names needs none.

    parameter = zstd.CompressionParameter
    options = {
        parameter.compression_level: ZSTD_LEVEL,
        parameter.nb_workers: min(len(os.sched_getaffinity(0)), _MOST_WORKERS),
        parameter.checksum_flag: 1,
    }
    return cast("IO[bytes]", zstd.ZstdFile(cast("IO[bytes]", stream), "wb", options=options))


class LayerError(Exception):
    """The parts of a layer contradict each other."""


class Layer:
    """Entries by path; a path is relative to the image's root, without a leading or trailing slash."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    def __contains__(self, path: str) -> bool:
        return path in self._entries

    def items(self) -> Iterator[tuple[str, Entry]]:
        """All entries so far, by path."""
        return iter(sorted(self._entries.items()))

    def data(self, path: str) -> bytes:
        """The bytes of a regular file in this layer; follows symbolic links within the layer."""
        seen = set()
        entry = self._entries.get(path)
        while entry and entry.kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) and path not in seen:
            seen.add(path)
            base = "" if entry.kind == tarfile.LNKTYPE else posixpath.dirname(path)
            path = posixpath.normpath(posixpath.join("/", base, entry.target)).lstrip("/")
            entry = self._entries.get(path)
        if not entry or entry.kind != tarfile.REGTYPE:
            raise LayerError(
                f"/{path}: expected a regular file in this layer, found {'none' if not entry else 'something else'}"
            )
        return entry.data()

    def add(self, path: str, entry: Entry) -> None:
        """Adds one entry. A path may be added twice only with the same content.

        Raises:
            LayerError: the path is not clean, or another origin has put something different there.
        """
        if path != posixpath.normpath(path) or path.startswith(("/", "..")) or path == ".":
            raise LayerError(f"{entry.origin}: path {path!r} is not a clean path below the image's root")
        entry = dataclasses.replace(entry, mode=entry.mode & _MODE_MASK)
        before = self._entries.get(path)
        if before and not self._same(before, entry):
            raise LayerError(
                f"/{path} comes from {before.origin} and, different, from {entry.origin}: "
                "exclude it in one of them (attribute `exclude`)"
            )
        if not before:
            self._entries[path] = entry

    def add_directory(self, path: str, origin: str, mode: int = 0o755, uid: int = 0, gid: int = 0) -> None:
        self.add(path, Entry(tarfile.DIRTYPE, origin, mode, uid, gid))

    def add_file(self, path: str, content: Content, origin: str, mode: int = 0o644, uid: int = 0, gid: int = 0) -> None:
        self.add(path, Entry(tarfile.REGTYPE, origin, mode, uid, gid, content))

    def add_symlink(self, path: str, target: str, origin: str) -> None:
        self.add(path, Entry(tarfile.SYMTYPE, origin, 0o777, target=target))

    def write(self, output: pathlib.Path) -> Written:
        """Writes the layer and adds missing folders; compressed as its name ends: .gz, .zst, or .tar for not at all."""
        with open(output, "wb") as file:
            stored = HashingStream(file)
            if output.suffix == ".tar":
                self.write_tar(stored)
                return Written({"mediaType": TAR, "digest": stored.digest, "size": stored.size}, stored.digest)
            name, compressor = ("zstd", _zstd(stored)) if output.suffix == ".zst" else ("gzip", _gzip(stored))
            with compressor as compressed:
                plain = HashingStream(compressed)
                self.write_tar(plain)
        return Written({"mediaType": f"{TAR}+{name}", "digest": stored.digest, "size": stored.size}, plain.digest)

    def write_tar(self, stream: ByteSink) -> None:
        """Writes the layer uncompressed and adds missing parent directories."""
        for path in list(self._entries):
            for parent in list(pathlib.PurePosixPath(path).parents)[:-1]:
                kind = self._entries.setdefault(str(parent), Entry(tarfile.DIRTYPE, "its content")).kind
                if kind != tarfile.DIRTYPE:
                    raise LayerError(
                        f"/{path}: /{parent}, from {self._entries[str(parent)].origin}, is not a directory"
                    )
        # A hard link must come after the file that it names.
        order = sorted(self._entries.items(), key=lambda item: (item[1].kind == tarfile.LNKTYPE, item[0]))
        with tarfile.TarFile(
            None, "w", cast("IO[bytes]", stream), format=tarfile.PAX_FORMAT, copybufsize=_COPY_SIZE
        ) as tar:
            for path, entry in order:
                self._write_entry(tar, path, entry)

    @staticmethod
    def _write_entry(tar: tarfile.TarFile, path: str, entry: Entry) -> None:
        info = tarfile.TarInfo(path)
        info.type, info.mode, info.uid, info.gid = entry.kind, entry.mode, entry.uid, entry.gid
        info.mtime = SOURCE_DATE_EPOCH
        info.linkname = entry.target
        if entry.kind != tarfile.REGTYPE:
            tar.addfile(info)
        elif isinstance(entry.content, bytes):
            info.size = len(entry.content)
            tar.addfile(info, io.BytesIO(entry.content))
        else:
            info.size = entry.content.stat().st_size
            with open(entry.content, "rb") as file:
                tar.addfile(info, file)

    @staticmethod
    def _same(one: Entry, other: Entry) -> bool:
        def facts(entry: Entry) -> tuple:
            return entry.kind, entry.mode, entry.uid, entry.gid, entry.target

        return facts(one) == facts(other) and (one.kind != tarfile.REGTYPE or one.data() == other.data())
