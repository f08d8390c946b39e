"""Reads archives that may be hostile, and writes their members below one folder: the one extractor of this project.

Standard library only, but for zstd: the launcher and repository rules run this on the machine's own Python.
"""

from __future__ import annotations

import bz2
import contextlib
import errno
import gzip
import lzma
import os
import posixpath
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from fetch import errors

# Of one archive, listed and written. Far above the largest input of this build (16,000 members, 2 GB), far below what
# fills a disk.
MOST_MEMBERS = 200_000
MOST_BYTES = 16 << 30
# Linux's limits are 255 bytes for a name and 4096 for a path; the deepest input of this build has 16 folders.
_MOST_DEPTH = 64
_MOST_NAME_BYTES = 255
# The extended header of one member: names and times. tarfile reads it into memory at once.
_MOST_HEADER_BYTES = 1 << 20
_CHUNK = 1 << 20


class ArchiveError(errors.UserError):
    """An archive is damaged or must not be unpacked; one line names the archive, the member and what is wrong."""


# What Python's readers raise on damaged archives; each of them raises several, some only by accident.
_DAMAGE = (
    EOFError,
    LookupError,
    OverflowError,
    RuntimeError,
    ValueError,
    lzma.LZMAError,
    struct.error,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)


@contextlib.contextmanager
def reading(what: str) -> Iterator[None]:
    """Turns whatever a reader of the standard library raises on a damaged archive into an ArchiveError.

    Args:
        what: the archive, for the message.
    """
    try:
        yield
    except _DAMAGE as error:
        raise _damaged(what, error) from error
    except OSError as error:
        # gzip and bz2 raise OSError without a number; EINVAL comes from a negative offset. Others are the machine's.
        if error.errno not in (None, errno.EINVAL):
            raise
        raise _damaged(what, error) from error


def _damaged(what: str, error: BaseException) -> ArchiveError:
    said = " ".join(str(error).split()) or type(error).__name__
    return ArchiveError(f"{what}: expected an intact archive, found a damaged one ({said[:200]})")


def too_much(what: str) -> ArchiveError:
    """The error of an archive with more than MOST_MEMBERS or MOST_BYTES."""
    return ArchiveError(f"{what}: expected at most {MOST_MEMBERS} members and {MOST_BYTES >> 30} GiB, found more")


# Tar -------------------------------------------------------------------------------------------------------------


class _Source:
    """The uncompressed stream of a tar archive: damage of the compression is an ArchiveError.

    `limit` is the most that one read may ask for, while tarfile reads headers into memory; `last` is what the last read
    returned.

    Args:
        file: as stored.
        opened: the same, uncompressed.
    """

    def __init__(self, file: IO[bytes], opened: IO[bytes], what: str) -> None:
        self._stored, self._file, self._what = file, opened, what
        self.limit: int | None = None
        self.last = b""

    def read(self, size: int = -1) -> bytes:
        if self.limit is not None and not 0 <= size <= self.limit:
            raise ArchiveError(f"{self._what}: refused: a header of {size} bytes")
        with reading(self._what):
            self.last = self._file.read(size)
        return self.last

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        with reading(self._what):
            return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()
        self._stored.close()


class _Content(tarfile.ExFileObject):
    """The content of one member; truncation is an ArchiveError."""

    def __init__(self, tar: Tar, member: tarfile.TarInfo) -> None:
        self._what = f"{tar.what}: {member.name!r}"
        super().__init__(tar, member)

    def read(self, size: int | None = -1) -> bytes:
        with reading(self._what):
            return super().read(size)

    def readinto(self, buffer: Any) -> int:
        with reading(self._what):
            return super().readinto(buffer)

    def readline(self, size: int | None = -1) -> bytes:
        with reading(self._what):
            return super().readline(size)


class Tar(tarfile.TarFile):
    """A tar archive, open for reading, whose every fault is an ArchiveError. Made by `open_tar`.

    It refuses negative sizes, which send tarfile round in circles; sparse files, which are small here and huge on disk;
    an unreadable header after the first, which tarfile takes for the end; and more members or bytes than MOST_MEMBERS
    and MOST_BYTES.
    """

    fileobject = _Content

    def __init__(self, source: _Source, what: str) -> None:
        self.what = what
        self._source = source
        self._count = self._bytes = 0
        super().__init__(name=what, mode="r", fileobj=cast("IO[bytes]", source), encoding="utf-8")

    def next(self) -> tarfile.TarInfo | None:
        # The constructor has read it, and asked for it here.
        checked: tarfile.TarInfo | None = getattr(self, "firstmember", None)
        self._source.limit = _MOST_HEADER_BYTES
        try:
            with reading(self.what):
                member = super().next()
        finally:
            self._source.limit = None
        if member is None:
            if len(self._source.last) not in (0, tarfile.BLOCKSIZE) or any(self._source.last):
                raise _damaged(self.what, ValueError(f"no header after {self._count} members"))
            return None
        if member is checked:
            return member
        if member.size < 0:
            raise ArchiveError(f"{self.what}: refused {member.name!r}: {member.size} bytes long")
        if member.issparse():
            raise ArchiveError(f"{self.what}: refused {member.name!r}: a sparse file")
        self._count += 1
        self._bytes += member.size
        if self._count > MOST_MEMBERS or self._bytes > MOST_BYTES:
            raise too_much(self.what)
        return member

    def close(self) -> None:
        super().close()
        self._source.close()


class _Zstd:
    """The content of a file that is compressed with zstd; damage is a ValueError, as of the other readers."""

    def __init__(self, file: IO[bytes]) -> None:
        # Not at the top: the launcher's Python lacks it.
        from backports import zstd

        self._file, self._error = zstd.ZstdFile(file), zstd.ZstdError

    def read(self, size: int = -1) -> bytes:
        try:
            return self._file.read(size)
        except self._error as error:
            raise ValueError(str(error)) from None

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return self._file.seek(offset, whence)
        except self._error as error:
            raise ValueError(str(error)) from None

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()


_READERS: tuple[tuple[bytes, Any], ...] = (
    (b"\x1f\x8b", lambda file: gzip.GzipFile(fileobj=file)),
    (b"\xfd7zXZ\0", lzma.LZMAFile),
    (b"BZh", bz2.BZ2File),
    (b"\x28\xb5\x2f\xfd", _Zstd),
    # Frames that a reader skips, as pzstd begins a file with.
    *((bytes([0x50 + number]) + b"\x2a\x4d\x18", _Zstd) for number in range(16)),
)


def decompressed(file: IO[bytes], what: str) -> IO[bytes]:
    """Returns the content of a file that may be compressed with gzip, xz, bzip2 or zstd.

    Args:
        file: at its beginning, seekable.
        what: the file, for messages. `reading` turns what reading the content raises into an ArchiveError.

    Raises:
        ArchiveError: this Python has no reader for it.
    """
    begin = file.read(6)
    file.seek(0)
    try:
        return next((cast("IO[bytes]", reader(file)) for magic, reader in _READERS if begin.startswith(magic)), file)
    except ImportError:
        raise ArchiveError(
            f"{what}: compressed with zstd, which this Python cannot read: pip install backports.zstd"
        ) from None


def open_tar(file: IO[bytes], what: str) -> Tar:
    """Opens a tar archive, plain or compressed with gzip, xz, bzip2 or zstd.

    Args:
        file: at its beginning, seekable; it belongs to the result, which closes it.
        what: the archive, for messages.

    Raises:
        ArchiveError: it is none, or damaged. Iterating and reading raise it too.
    """
    with reading(what):
        return Tar(_Source(file, decompressed(file, what), what), what)


def open_tar_file(path: Path, what: str = "") -> Tar:
    """Opens a tar archive by its path; see `open_tar`."""
    file = open(path, "rb")  # noqa: SIM115 (the result closes it)
    try:
        return open_tar(file, what or path.name)
    except BaseException:
        file.close()
        raise


def content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    """A regular file of an archive, to read from."""
    file = tar.extractfile(member)
    assert file is not None, f"{member.name!r} is not a regular file"
    return file


# Zip -------------------------------------------------------------------------------------------------------------


class _Entry:
    """The content of one entry of a zip archive; damage is an ArchiveError."""

    def __init__(self, file: IO[bytes], what: str) -> None:
        self._file, self._what = file, what

    def read(self, size: int = -1) -> bytes:
        with reading(self._what):
            return self._file.read(size)


def zip_entries(path: Path, what: str = "") -> Iterator[tuple[zipfile.ZipInfo, IO[bytes]]]:
    """Yields every file of a zip archive, such as a wheel, with its content; folders are left out.

    Raises:
        ArchiveError: it is no zip archive, is damaged or encrypted, has an entry that is neither file nor folder, or
          more than MOST_MEMBERS and MOST_BYTES.
    """
    what = what or path.name
    with reading(what):
        archive = zipfile.ZipFile(path)
    with archive:
        infos = archive.infolist()
        if len(infos) > MOST_MEMBERS or sum(info.file_size for info in infos) > MOST_BYTES:
            raise too_much(what)
        for info in infos:
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or info.is_dir() != (kind == stat.S_IFDIR) and kind:
                raise ArchiveError(f"{what}: refused {info.filename!r}: neither a file nor a folder")
            if info.is_dir():
                continue
            with reading(what):
                opened = archive.open(info)
            with opened:
                yield info, cast("IO[bytes]", _Entry(opened, f"{what}: {info.filename!r}"))


# Names -----------------------------------------------------------------------------------------------------------


def relative_name(name: str, what: str) -> str:
    """A member's name as a plain path below the folder that the archive is unpacked into; "" is that folder.

    Raises:
        ArchiveError: the name is absolute, has "..", or is nothing that every file system and terminal can take.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    try:
        longest = max((len(part.encode("utf-8")) for part in parts), default=0)
    except UnicodeEncodeError:
        raise ArchiveError(f"{what}: refused {name!r}: the name is not UTF-8") from None
    if name.startswith("/") or ".." in parts:
        raise ArchiveError(f"{what}: refused {name!r}: the name leads out of the folder")
    if any(unicodedata.category(character) == "Cc" for character in name):
        raise ArchiveError(f"{what}: refused {name!r}: the name has control characters")
    if longest > _MOST_NAME_BYTES or len(parts) > _MOST_DEPTH:
        raise ArchiveError(f"{what}: refused {name[:80]!r}…: the name is too long or too deep")
    return "/".join(parts)


def relative_link(name: str, destination: str) -> str:
    """A symbolic link's destination relative to its own folder; both are below the root.

    >>> relative_link("usr/lib/libm.so", "/lib/libm.so.6")
    '../../lib/libm.so.6'
    """
    if not destination.startswith("/"):
        return destination
    return posixpath.relpath(posixpath.normpath("/" + destination.lstrip("/")), posixpath.dirname("/" + name))


# Extraction ------------------------------------------------------------------------------------------------------


class Extractor:
    """Writes the members of one archive below a folder, and nothing anywhere else.

    It opens each folder on the way without following links, so nothing resolves through a link that this or another
    archive has written. Symbolic links stay below the root: absolute ones become relative, and ".." may only stand in
    front, where it climbs real folders. Hard links become copies, of files that this archive has written.

    It counts what it writes: copies of a file take as much room as others, and an archive states no size of them.

        with Extractor(root, "x.deb") as extractor, open_tar_file(path) as tar:
            for member in tar:
                extractor.add(tar, member)

    Args:
        root: an existing folder, or one to make.
        what: the archive, for messages.
        replace: whether a file may replace one that another archive has written.

    Raises:
        ArchiveError: each method, if the member must not be written, or is one too many (MOST_MEMBERS, MOST_BYTES).
    """

    def __init__(self, root: Path, what: str, *, replace: bool = False) -> None:
        self._what, self._replace = what, replace
        self._kinds: dict[str, str] = {}
        self._left = MOST_BYTES
        root.mkdir(parents=True, exist_ok=True)
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        # The folder of the last member: archives list a folder's files one after the other.
        self._last: tuple[str, int] = ("", self._root)

    def __enter__(self) -> Extractor:
        return self

    def __exit__(self, *_: object) -> None:
        self._forget()
        os.close(self._root)

    def add(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        """Writes one member of a tar archive. Folders are made with the first file in them."""
        if member.isdir():
            self.folder(member.name)
        elif member.issym():
            self.symbolic_link(member.name, member.linkname)
        elif member.islnk():
            self.hard_link(member.name, member.linkname)
        elif member.isreg():
            self.file(member.name, content(tar, member), bool(member.mode & 0o111))
        else:
            raise self._refused(member.name, "neither a file, a folder nor a link")

    def folder(self, name: str) -> None:
        """Notes that the archive has a folder of this name, which may be no other member's."""
        path = relative_name(name, self._what)
        if self._kinds.setdefault(path, "folder") != "folder":
            raise self._refused(name, f"the archive also has a {self._kinds[path]} of that name")

    def file(self, name: str, data: IO[bytes], executable: bool) -> None:
        """Writes a regular file, with mode 0755 or 0644."""
        path, folder, base = self._place(name, "file")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            target = os.open(base, flags, 0o600, dir_fd=folder)
        except FileExistsError:
            if not self._replace or not stat.S_ISREG(os.stat(base, dir_fd=folder, follow_symlinks=False).st_mode):
                raise self._refused(name, "another archive has written that path") from None
            os.unlink(base, dir_fd=folder)
            target = os.open(base, flags, 0o600, dir_fd=folder)
        with open(target, "wb") as out:
            while chunk := data.read(_CHUNK):
                self._left -= len(chunk)
                if self._left < 0:
                    raise too_much(self._what)
                out.write(chunk)
            os.fchmod(target, 0o755 if executable else 0o644)

    def symbolic_link(self, name: str, destination: str) -> None:
        """Writes a symbolic link that stays below the root."""
        path, folder, base = self._place(name, "symbolic link")
        relative = relative_link(path, destination)
        parts = [part for part in relative.split("/") if part not in ("", ".")]
        climbs = next((number for number, part in enumerate(parts) if part != ".."), len(parts))
        if not destination or climbs > path.count("/") or ".." in parts[climbs:]:
            raise self._refused(name, f"a link to {destination!r}, which leads out of the folder")
        relative_name("/".join(parts[climbs:]), f"{self._what}: {name!r}")
        try:
            os.symlink(relative, base, dir_fd=folder)
        except FileExistsError:
            raise self._refused(name, "another archive has written that path") from None

    def hard_link(self, name: str, target: str) -> None:
        """Copies a file that this archive has written, as file systems without hard links need it."""
        source = relative_name(target, self._what)
        if self._kinds.get(source) != "file":
            raise self._refused(name, f"a hard link to {target!r}, which is no file that the archive has written")
        folder, base = self._folder(source, target)
        with open(os.open(base, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder), "rb") as data:
            self.file(name, data, bool(os.fstat(data.fileno()).st_mode & 0o111))

    def _place(self, name: str, kind: str) -> tuple[str, int, str]:
        """Claims a name for one member: its path, its folder's descriptor and its name there."""
        path = relative_name(name, self._what)
        if not path:
            raise self._refused(name, "the folder itself")
        if path in self._kinds:
            raise self._refused(name, f"the archive also has a {self._kinds[path]} of that name")
        self._kinds[path] = kind
        return (path, *self._folder(path, name))

    def _folder(self, path: str, name: str) -> tuple[int, str]:
        """Opens the folder of a path, without following links, and makes it if it is missing."""
        parent, _, base = path.rpartition("/")
        if self._last[0] == parent:
            return self._last[1], base
        current = os.dup(self._root)
        try:
            for part in parent.split("/") if parent else ():
                following = self._step(current, part, name)
                os.close(current)
                current = following
        except BaseException:
            os.close(current)
            raise
        self._forget()
        self._last = (parent, current)
        return current, base

    def _step(self, folder: int, part: str, name: str) -> int:
        # Another thread that unpacks into the same folder may be faster.
        with contextlib.suppress(FileExistsError):
            os.mkdir(part, dir_fd=folder)
        try:
            return os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        except OSError:
            if stat.S_ISDIR(os.stat(part, dir_fd=folder, follow_symlinks=False).st_mode):
                raise
            raise self._refused(name, f"{part!r} on the way is a link or a file") from None

    def _forget(self) -> None:
        if self._last[1] != self._root:
            os.close(self._last[1])
        self._last = ("", self._root)

    def _refused(self, name: str, why: str) -> ArchiveError:
        return ArchiveError(f"{self._what}: refused {name!r}: {why}")
