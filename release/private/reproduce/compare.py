"""Compares the outputs of two builds file by file, and shows differences with diffoscope."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import hashlib
import io
import json
import os
import pathlib
import posixpath
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator

from fetch import archives, errors, programs
from fetch.hashes import file_sha256
from oci.layout import Image, LayoutError, images, is_layout

# Lines on the terminal; the page has all of them.
_SHOWN_LINES = 60
# Seconds. diffoscope disassembles; if that takes longer, only the file and its digests are reported.
_TIME_LIMIT = 1800
# --max-report-size, and the difference's frame.
_MOST_BYTES = 100_000_000


class CompareError(Exception):
    """Two things cannot be compared; the message says what was expected and found."""


@dataclasses.dataclass(frozen=True)
class Difference:
    """A file that differs, or that only one build has.

    Attributes:
        name: a path below the artifacts, or a part of an image by its position.
        first, second: the paths of both; None if that build lacks it.
    """

    name: str
    first: pathlib.Path | None
    second: pathlib.Path | None

    def __str__(self) -> str:
        if self.first and self.second:
            members = same_members(self.first, self.second)
            how = {
                True: "the same members with the same content, packed differently (order, modes, times, compression)",
                False: "different content",
            }
            return (
                f"{self.name}: {file_sha256(self.first)} in the first build, {file_sha256(self.second)} in the second:"
                f" {how[members]}"
            )
        return f"{self.name}: only in the {'first' if self.first else 'second'} build"


def files(artifacts: Iterable[tuple[str, pathlib.Path]]) -> dict[str, pathlib.Path]:
    """Every file of artifacts: name → path. An artifact is a file, or a folder of files."""
    found = {}
    for name, artifact in artifacts:
        for path in sorted(artifact.rglob("*")) if artifact.is_dir() else [artifact]:
            if path.is_file():
                found[f"{name}/{path.relative_to(artifact).as_posix()}" if artifact.is_dir() else name] = path
    return found


def parts(layout: pathlib.Path) -> dict[str, pathlib.Path]:
    """The files of an OCI layout by role, not by digest: roles are the same in images that differ.

    Raises:
        CompareError: the folder does not hold exactly one image, or one index of images.
    """
    try:
        return {
            posixpath.join(architecture, name): path
            for architecture, image in images(layout).items()
            for name, path in _parts_of_image(image).items()
        }
    except LayoutError as error:
        raise CompareError(str(error)) from None


def _parts_of_image(found: Image) -> dict[str, pathlib.Path]:
    endings = {"gzip": ".tar.gz", "zstd": ".tar.zst"}
    layers = {
        f"layer-{number:02}{endings.get(layer['mediaType'].rpartition('+')[2], '.tar')}": found.blob(layer["digest"])
        for number, layer in enumerate(found.manifest["layers"])
    }
    return {"manifest.json": found.blob(found.digest), "config.json": found.blob(found.config_digest), **layers}


def differences(first: dict[str, pathlib.Path], second: dict[str, pathlib.Path]) -> tuple[int, list[Difference]]:
    """Compares artifacts (name → file, or folder of files).

    Returns:
        The number of files compared, including every file of an image's layout, and the differences.

    Raises:
        CompareError: there is nothing to compare.
    """
    one, other = files(first.items()), files(second.items())
    names = sorted(one.keys() | other.keys())
    if not one:
        raise CompareError("expected files to compare, found none")
    unequal = [
        name
        for name in names
        if name not in one or name not in other or file_sha256(one[name]) != file_sha256(other[name])
    ]
    layouts = [name for name, path in first.items() if is_layout(path) and name in second and is_layout(second[name])]
    different = []
    for layout in layouts:
        if any(name.startswith(layout + "/") for name in unequal):
            unequal = [name for name in unequal if not name.startswith(layout + "/")]
            ours, theirs = parts(first[layout]), parts(second[layout])
            for part in sorted(ours.keys() | theirs.keys()):
                if part not in ours or part not in theirs or file_sha256(ours[part]) != file_sha256(theirs[part]):
                    different.append(Difference(f"{layout}/{part}", ours.get(part), theirs.get(part)))
            # The rest says nothing if the images already differ: an index names their digests.
            if not any(each.name.startswith(layout + "/") for each in different):
                different.append(
                    Difference(f"{layout}/index.json", first[layout] / "index.json", second[layout] / "index.json")
                )
    return len(names), different + [Difference(name, one.get(name), other.get(name)) for name in unequal]


# What is in a container -------------------------------------------------------------------------------------------


def _record(data: bytes) -> str:
    """A wheel's RECORD, whose lines may come in any order (PyPA, Recording installed projects)."""
    return json.dumps(sorted(csv.reader(io.StringIO(data.decode()))))


def _members(path: pathlib.Path) -> dict[str, str] | None:
    """Member → digest of its content, or link target, without packing metadata; None if it is neither zip nor tar."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
            content = {name: archive.read(name) for name in names}
        return {
            name: _record(data) if name.endswith(".dist-info/RECORD") else hashlib.sha256(data).hexdigest()
            for name, data in content.items()
        }
    try:
        with archives.open_tar_file(path) as archive:
            return {
                os.path.normpath(member.name): (
                    hashlib.file_digest(archive.extractfile(member), "sha256").hexdigest()  # type: ignore[arg-type]
                    if member.isfile()
                    else f"{member.type!r} {member.linkname}"
                )
                for member in archive
            }
    except archives.ArchiveError:
        return None


def same_members(first: pathlib.Path, second: pathlib.Path) -> bool:
    """Whether both are archives (zip, or tar in any compression that Python reads) whose members have the same names
    and content.
    """
    one, other = _members(first), _members(second)
    return one is not None and one == other


def changed_members(first: pathlib.Path, second: pathlib.Path) -> list[str]:
    """Names of the members that differ or that one archive lacks; empty if they are not archives."""
    one, other = _members(first) or {}, _members(second) or {}
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


# diffoscope -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _side_by_side(different: Iterable[Difference]) -> Iterator[pathlib.Path]:
    """A folder with `first` and `second`, in which the files have their real names."""
    with tempfile.TemporaryDirectory(prefix="reproduce-") as scratch:
        for side in "first", "second":
            pathlib.Path(scratch, side).mkdir()
            for difference in different:
                path = getattr(difference, side)
                if path:
                    target = pathlib.Path(scratch, side, difference.name)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, target)
        yield pathlib.Path(scratch)


def show(different: list[Difference], diffoscope: pathlib.Path, html: pathlib.Path) -> str:
    """Shows how files differ.

    Args:
        different: the files.
        diffoscope: the program, in the folder into which the set `diffoscope` of Debian packages was unpacked.
        html: the page to write, with all differences.

    Returns:
        The beginning of the differences, as text.

    Raises:
        CompareError: diffoscope fails.
    """
    # diffoscope and its programs find each other by PATH, libarchive by LIBARCHIVE, libmagic's data by MAGIC.
    root = pathlib.Path(os.path.abspath(diffoscope)).parents[2]
    environment = {
        "LC_ALL": "C.UTF-8",
        "LIBARCHIVE": str(root / "usr/lib/x86_64-linux-gnu/libarchive.so.13"),
        "MAGIC": str(root / "usr/lib/file/magic.mgc"),
        "PATH": f"{root / 'usr/bin'}:/usr/bin:/bin",
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": tempfile.gettempdir(),
    }
    with _side_by_side(different) as folder:
        options = [
            "--no-progress",
            "--exclude-directory-metadata=recursive",
            "--max-page-size=50000000",
            "--max-report-size=50000000",
        ]
        command = [os.path.abspath(diffoscope), *options, "--text=-", f"--html={html.absolute()}", "first", "second"]
        try:
            # 1: they differ.
            text = programs.run(
                command,
                seconds=_TIME_LIMIT,
                most=_MOST_BYTES,
                environment=environment,
                folder=folder,
                accepted=(0, 1),
            )
        except programs.ProgramError as error:
            raise CompareError(
                f"diffoscope: expected exit status 0 or 1, found {error.status}: {error.said.strip()[-2000:]}"
            ) from None
    lines = [errors.printable(line) for line in text.splitlines()]
    if len(lines) > _SHOWN_LINES:
        lines = [*lines[:_SHOWN_LINES], f"… {len(lines) - _SHOWN_LINES} more lines in {html}"]
    return "\n".join(lines)


def tell(different: list[Difference], diffoscope: pathlib.Path, html: pathlib.Path) -> None:
    """Prints the differences: files, members of archives, then diffoscope's output."""
    for difference in different:
        print(f"  {difference}")
        if difference.first and difference.second:
            members = changed_members(difference.first, difference.second)
            for member in members[:20]:
                print(f"      {errors.printable(member)}")
            if len(members) > 20:
                print(f"      and {len(members) - 20} more members")
    sys.stdout.flush()
    print(show(different, diffoscope, html))
    print(f"how they differ, as a page: {html.absolute()}")
