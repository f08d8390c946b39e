"""Build ids, and reading wheels under their full version.

`py_wheel` assembles a wheel whose version lacks a build id, for example 0.26.0+mlc0.1.0. The id is a hash of the
wheel's content, so it is known only after assembly. `FinishedWheel` presents the assembled wheel under its full
version without a second copy. The build compresses and installs wheels through it.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import dataclasses
import hashlib
import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from fetch import archives

DIGITS = 8
"""Hexadecimal digits of a build id."""


class WheelError(ValueError):
    """A wheel or its identity is malformed: one line with the file, what was expected and what was found."""


def processor_of(tags: str) -> str:
    """The processor that a wheel is for, as Debian calls it: amd64 or arm64.

    Args:
        tags: of its platform, alone or after others (PyPA, Platform compatibility tags).
    """
    return "arm64" if tags.endswith("_aarch64") else "amd64"


@dataclasses.dataclass(frozen=True)
class Identity:
    """What finishing adds to a wheel.

    Args:
        version: the version with the build id.
        requires: requirements to add, for example "apache-tvm-ffi==0.1.13.post3+mlc0.1.0.b1a2b3c4d".
    """

    version: str
    requires: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path) -> Identity:
        """Reads what `write` wrote.

        Raises:
            WheelError: the file is something else.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return cls(content["version"], tuple(content["requires"]))
        except (ValueError, TypeError, KeyError) as error:
            raise WheelError(f"{path}: expected a JSON object with version and requires, found {error!r}") from None

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(dataclasses.asdict(self)) + "\n", encoding="utf-8")


def identify(unversioned: Path, requires: Sequence[str], others: Sequence[Path] = ()) -> Identity:
    """Derives the identity of a wheel from its content.

    The build id is a hash over path, sha256 and executable bit of every file in the finished wheel, under a version
    without the id.
    The metadata are files too, so requirements, pins, entry points, tags and upstream's version count. The zip
    container does not: order, times, other modes and compression do not change what pip installs.

    Args:
        unversioned: the wheel as py_wheel assembled it.
        requires: requirements to add.
        others: the wheels of the same release for other Pythons, which get the same version: it hashes all of them, so
            that one pin is for all.

    Raises:
        WheelError: one is not a wheel, or its RECORD does not list exactly its files, or the versions differ.
    """
    read = [_content(each, requires) for each in (unversioned, *others)]
    version = read[0][0]
    for path, (other, _) in zip(others, read[1:]):
        if other != version:
            raise WheelError(f"{path}: expected version {version} as {unversioned.name} has it, found {other}")
    content = "".join(sorted(content for _, content in read))
    build_id = hashlib.sha256(content.encode()).hexdigest()[:DIGITS]
    # PEP 440 reads an all-digit part of a local version as a number, without leading zeros: hence the letter.
    return Identity(f"{version}.b{build_id}", tuple(requires))


def _content(unversioned: Path, requires: Sequence[str]) -> tuple[str, str]:
    """The version of a wheel, and a line for each file that finishing it with these requirements would give."""
    with _open(unversioned) as archive:
        folder = _dist_info(archive, unversioned)
        version = folder.removesuffix(".dist-info").partition("-")[2]
        digests = {name: digest for name, (digest, _) in _record(archive, folder, unversioned).items()}
        # pip restores the executable bits (PEP 427 leaves other modes to the installer).
        executable = {info.filename for info in archive.infolist() if info.external_attr >> 16 & 0o111}
        with _intact(unversioned):
            metadata = archive.read(f"{folder}/METADATA")
    digests[f"{folder}/METADATA"] = _digest(
        _finished_metadata(metadata, version, Identity(version, tuple(requires)), unversioned)
    )
    # RECORD only lists the other files.
    del digests[f"{folder}/RECORD"]
    return version, "".join(
        f"{name}\0{digest}\0{'x' * (name in executable)}\n" for name, digest in sorted(digests.items())
    )


class FinishedWheel(zipfile.ZipFile):
    """Presents a wheel that was assembled without a build id as the finished wheel.

    .dist-info and .data have the full version in their names, METADATA has version and pins, RECORD matches.
    Everything else comes from the assembled wheel. Folder entries are omitted.

    Args:
        unversioned: the wheel as py_wheel assembled it.
        identity: the result of `identify`.

    Attributes:
        filename: the finished wheel's file name.

    Raises:
        WheelError: it is not a wheel, its RECORD does not list exactly its files, or `identity` is another wheel's.
    """

    def __init__(self, unversioned: Path, identity: Identity) -> None:
        try:
            with _intact(unversioned):
                super().__init__(unversioned)
        except OSError as error:
            raise WheelError(f"{unversioned}: expected a wheel, found {error}") from None
        try:
            self._finish(unversioned, identity)
        except BaseException:
            self.close()
            raise

    def _finish(self, unversioned: Path, identity: Identity) -> None:
        folder = _dist_info(self, unversioned)
        distribution, _, version = folder.removesuffix(".dist-info").partition("-")
        if not identity.version.startswith(f"{version}.b"):
            raise WheelError(
                f"{unversioned}: expected the identity of {distribution} {version}, found that of {identity.version}"
            )
        record = _record(self, folder, unversioned)
        with _intact(unversioned):
            metadata = self.read(f"{folder}/METADATA")
        metadata = _finished_metadata(metadata, version, identity, unversioned)
        prefixes = {
            f"{distribution}-{version}.{kind}/": f"{distribution}-{identity.version}.{kind}/"
            for kind in ("data", "dist-info")
        }

        def renamed(name: str) -> str:
            for old, new in prefixes.items():
                if name.startswith(old):
                    return new + name.removeprefix(old)
            return name

        record[f"{folder}/METADATA"] = (_digest(metadata), str(len(metadata)))
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(
            (renamed(name), digest, size) for name, (digest, size) in record.items()
        )
        self._rewritten = {
            renamed(f"{folder}/METADATA"): metadata,
            renamed(f"{folder}/RECORD"): text.getvalue().encode(),
        }
        self.filelist = [info for info in self.filelist if not info.is_dir()]
        for info in self.filelist:
            # `orig_filename` keeps the name of the entry in the archive.
            info.filename = renamed(info.filename)
            if content := self._rewritten.get(info.filename):
                info.file_size, info.CRC = len(content), zlib.crc32(content)
        self.NameToInfo = {info.filename: info for info in self.filelist}
        self.filename = unversioned.name.replace(f"{distribution}-{version}-", f"{distribution}-{identity.version}-", 1)
        self.expected = {renamed(name): digest for name, (digest, _) in record.items()}

    def open(self, name: str | zipfile.ZipInfo, *arguments: Any, **options: Any) -> IO[bytes]:
        """Opens an entry for reading."""
        path = name.filename if isinstance(name, zipfile.ZipInfo) else name
        # `_rewritten` does not exist yet while __init__ reads METADATA and RECORD.
        if path in (rewritten := getattr(self, "_rewritten", {})):
            return io.BytesIO(rewritten[path])
        return super().open(name, *arguments, **options)

    def has_zip64_header(self, info: zipfile.ZipInfo) -> bool:
        """Whether an entry's local header has 64-bit sizes (APPNOTE 4.3.7, 4.5.3), as py_wheel writes for any size."""
        assert self.fp
        self.fp.seek(info.header_offset + 26)
        name, extra = struct.unpack("<HH", self.fp.read(4))
        self.fp.seek(name, os.SEEK_CUR)
        return extra >= 2 and self.fp.read(2) == b"\x01\x00"

    def write_to(self, folder: Path) -> Path:
        """Writes the finished wheel, compressed reproducibly.

        Args:
            folder: an existing folder for the file.

        Raises:
            WheelError: a file does not match RECORD. Nothing is left in `folder`.
        """
        assert self.filename
        output = folder / self.filename
        try:
            with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED) as archive:
                for info in self.infolist():
                    self._copy(info, archive)
        except WheelError:
            output.unlink()
            raise
        return output

    def _copy(self, info: zipfile.ZipInfo, archive: zipfile.ZipFile) -> None:
        entry = zipfile.ZipInfo(info.filename, info.date_time)
        entry.create_system, entry.external_attr, entry.compress_type = (
            info.create_system,
            info.external_attr,
            zipfile.ZIP_DEFLATED,
        )
        digest = hashlib.sha256()
        with (
            _intact(self.filename),
            self.open(info) as source,
            archive.open(entry, "w", force_zip64=self.has_zip64_header(info)) as target,
        ):
            while block := source.read(1 << 20):
                digest.update(block)
                target.write(block)
        if (expected := self.expected[info.filename]) and (found := _encoded(digest.digest())) != expected:
            raise WheelError(f"{self.filename}: {info.filename}: expected {expected}, as RECORD has it, found {found}")


def _open(path: Path) -> zipfile.ZipFile:
    try:
        with _intact(path):
            return zipfile.ZipFile(path)
    except OSError as error:
        raise WheelError(f"{path}: expected a wheel, found {error}") from None


@contextlib.contextmanager
def _intact(path: object) -> Iterator[None]:
    """Turns what zipfile raises on a damaged wheel into a WheelError."""
    try:
        with archives.reading(str(path)):
            yield
    except archives.ArchiveError as error:
        raise WheelError(f"{path}: expected a wheel, found {error.__cause__}") from None


def _dist_info(archive: zipfile.ZipFile, path: Path) -> str:
    """Returns the wheel's .dist-info folder, which must match the file name."""
    names = path.name.split("-")
    if len(names) != 5 or not path.name.endswith(".whl"):
        raise WheelError(
            f"{path}: expected a file name like name-version-python-abi-platform.whl (binary distribution format)"
        )
    expected = f"{names[0]}-{names[1]}.dist-info"
    found = sorted({name.split("/")[0] for name in archive.namelist() if ".dist-info/" in name})
    if found != [expected]:
        raise WheelError(f"{path}: expected the folder {expected}, found {', '.join(found) or 'none'}")
    return expected


def _record(archive: zipfile.ZipFile, folder: str, path: Path) -> dict[str, tuple[str, str]]:
    """Returns the sha256 and size of every file in RECORD, by path (PyPA, Recording installed projects)."""
    try:
        with archives.reading(f"{folder}/RECORD"):
            rows = list(csv.reader(archive.read(f"{folder}/RECORD").decode("utf-8").splitlines()))
            record = {name: (digest, size) for name, digest, size in rows}
    except (archives.ArchiveError, csv.Error) as error:
        raise WheelError(f"{path}: expected {folder}/RECORD with lines path,hash,size, found {error}") from None
    for what, names in (("RECORD", [row[0] for row in rows]), ("the archive", archive.namelist())):
        if twice := sorted({name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else ()):
            raise WheelError(f"{path}: expected each file once, found {twice[0]} twice in {what}")
    files = {name for name in archive.namelist() if not name.endswith("/")}
    if f"{folder}/METADATA" not in files:
        raise WheelError(f"{path}: expected {folder}/METADATA, found none")
    if unlisted := sorted(files ^ record.keys()):
        where = "only in the archive" if unlisted[0] in files else "only in RECORD"
        raise WheelError(f"{path}: expected RECORD to list exactly the archive's files, found {unlisted[0]} {where}")
    for name, (digest, _) in record.items():
        if name != f"{folder}/RECORD" and (not digest.startswith("sha256=") or len(digest) != len("sha256=") + 43):
            raise WheelError(f"{path}: expected the sha256 of {name} in RECORD, found {digest or 'nothing'}")
    return record


def _finished_metadata(content: bytes, version: str, identity: Identity, path: Path) -> bytes:
    """Returns METADATA with the full version, and with the pins before the other requirements."""
    head, blank, body = content.partition(b"\n\n")
    lines = head.decode("utf-8", "surrogateescape").split("\n")
    versions = [line for line in lines if line.startswith("Version:")]
    if versions != [f"Version: {version}"]:
        raise WheelError(f"{path}: expected one line 'Version: {version}' in METADATA, found {versions}")
    lines[lines.index(f"Version: {version}")] = f"Version: {identity.version}"
    followers = ("Requires-Dist:", "Provides-Extra:", "Version:")
    place = next(number for number, line in enumerate(lines) if line.startswith(followers))
    lines[place:place] = [f"Requires-Dist: {requirement}" for requirement in identity.requires]
    return "\n".join(lines).encode("utf-8", "surrogateescape") + blank + body


def _encoded(digest: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _digest(content: bytes) -> str:
    return _encoded(hashlib.sha256(content).digest())
