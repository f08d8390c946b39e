"""Installs wheels, or chosen files of them, into one folder reproducibly.

Files that are not chosen are never written: an image layer is made from the wheel without a whole installed copy.
"""

from __future__ import annotations

import argparse
import fnmatch
import io
import os
import pathlib
import sys
import zipfile
from collections.abc import Iterator, Sequence
from typing import BinaryIO, cast

from installer import install
from installer.destinations import SchemeDictionaryDestination
from installer.exceptions import InstallerError
from installer.records import Hash, RecordEntry
from installer.sources import WheelFile
from installer.utils import Scheme, copyfileobj_with_hashing

from wheels.finished import FinishedWheel, Identity


class Choice:
    """Chooses files by globs of their paths in the installation folder; `*` also matches `/`.

    Args:
        include: take only files that match one of these; none means all.
        exclude: omit files that match one of these.
    """

    def __init__(self, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> None:
        self.include, self.exclude = tuple(include), tuple(exclude)
        self._unused = dict.fromkeys((*include, *exclude))

    def __contains__(self, path: str) -> bool:
        matching = [glob for glob in (*self.include, *self.exclude) if fnmatch.fnmatchcase(path, glob)]
        for glob in matching:
            self._unused.pop(glob, None)
        return not any(glob in self.exclude for glob in matching) and (not self.include or bool(matching))

    def check(self) -> None:
        """Checks that each glob has matched a file.

        Raises:
            ValueError: one has not.
        """
        if self._unused:
            raise ValueError(f"expected files that match {next(iter(self._unused))!r}, found none")


class _Recorded:
    """The content of a file, with what the wheel's RECORD says of it."""

    def __init__(self, content: BinaryIO, record: RecordEntry) -> None:
        self._content, self.record = content, record

    def read(self, size: int = -1) -> bytes:
        return self._content.read(size)


class _Source(WheelFile):
    """Leaves the comparison with RECORD to what writes a file: large ones are read once, others not at all."""

    def get_contents(self) -> Iterator[tuple[tuple[str, str, str], BinaryIO, bool]]:
        for elements, content, is_executable in super().get_contents():
            record = RecordEntry.from_elements(*elements)
            other_hash = record.hash_ is None or record.hash_.name != _Destination.ALGORITHM
            # Metadata is used though it is not chosen, and the first line of a command changes.
            if other_hash or "/scripts/" in record.path or record.path.startswith(f"{self.dist_info_dir}/"):
                data = content.read()
                if not record.validate(data):
                    raise InstallerError(f"{record.path} didn't match RECORD")
                yield elements, io.BytesIO(data), is_executable
            else:
                yield elements, cast("BinaryIO", _Recorded(content, record)), is_executable


class _Destination(SchemeDictionaryDestination):
    """Writes only chosen files. RECORD lists all of them, as in any installation."""

    ALGORITHM = "sha256"

    def __init__(self, to: pathlib.Path, interpreter: str, chosen: Choice) -> None:
        scheme = {"purelib": to, "platlib": to, "scripts": to / "bin", "headers": to / "include", "data": to}
        places = {name: str(path) for name, path in scheme.items()}
        super().__init__(places, interpreter, "posix", hash_algorithm=self.ALGORITHM)
        self._to, self._chosen = to, chosen

    def write_to_fs(self, scheme: Scheme, path: str, stream: BinaryIO, is_executable: bool) -> RecordEntry:
        target = pathlib.Path(self.scheme_dict[scheme], path)
        record = stream.record if isinstance(stream, _Recorded) else None
        # installer changes the mode of a command after writing it, so commands are removed at the end (`main`).
        if scheme == "scripts" or os.path.relpath(target, self._to) in self._chosen:
            written = super().write_to_fs(scheme, path, stream, is_executable)
            if record and (written.hash_, written.size) != (record.hash_, record.size):
                raise InstallerError(f"{record.path} didn't match RECORD")
            return written
        if record:
            return RecordEntry(path, record.hash_, record.size)
        with open(os.devnull, "wb") as nowhere:
            digest, size = copyfileobj_with_hashing(stream, nowhere, self.hash_algorithm)
        return RecordEntry(path, Hash(self.hash_algorithm, digest), size)


def install_wheel(wheel: zipfile.ZipFile, to: pathlib.Path, interpreter: str, chosen: Choice) -> None:
    """Installs a wheel in the layout of `pip install --target`: packages in `to`, commands in `to`/bin.

    Args:
        wheel: the open wheel.
        to: the folder that receives it.
        interpreter: the Python for the first line of the commands.
        chosen: which files to write.

    Raises:
        InstallerError: the wheel's RECORD does not list its files, or does not match its metadata or what is written.
        FileExistsError: another wheel has installed a file of the same name.
    """
    source = _Source(wheel)
    source.validate_record(validate_contents=False)
    install(source, _Destination(to, interpreter, chosen), additional_metadata={"INSTALLER": b"mlc_bazel\n"})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], fromfile_prefix_chars="@")
    parser.add_argument("--to", type=pathlib.Path, required=True, help="folder that receives the packages")
    parser.add_argument("--interpreter", default="/usr/bin/python3", help="Python that runs the installed commands")
    parser.add_argument(
        "--include", action="append", default=[], metavar="GLOB", help="the only paths to take; repeatable"
    )
    parser.add_argument("--exclude", action="append", default=[], metavar="GLOB", help="paths to omit; repeatable")
    parser.add_argument(
        "--unversioned",
        nargs=2,
        action="append",
        default=[],
        type=pathlib.Path,
        metavar=("WHEEL", "IDENTITY"),
        help="a wheel of this build without its build id, and its identity from finish_wheel; repeatable",
    )
    parser.add_argument("wheels", nargs="*", type=pathlib.Path)
    arguments = parser.parse_args()
    chosen = Choice(arguments.include, arguments.exclude)
    wheels = [(wheel, None) for wheel in arguments.wheels] + arguments.unversioned
    for path, identity in wheels:
        try:
            with FinishedWheel(path, Identity.read(identity)) if identity else zipfile.ZipFile(path) as wheel:
                install_wheel(wheel, arguments.to, arguments.interpreter, chosen)
        except (InstallerError, OSError, ValueError, zipfile.BadZipFile) as error:
            print(f"install_wheels: {path.name}: {error}", file=sys.stderr)
            return 1
    commands = arguments.to / "bin"
    for command in sorted(commands.glob("*")):
        if f"bin/{command.name}" not in chosen:
            command.unlink()
    if commands.is_dir() and not any(commands.iterdir()):
        commands.rmdir()
    try:
        chosen.check()
    except ValueError as error:
        print(f"install_wheels: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
