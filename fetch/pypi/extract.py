"""Unpacks chosen files of a wheel, an sdist or a jar into a folder.

Standard library only: repository rules run this on the machine's own Python.
"""

from __future__ import annotations

import argparse
import fnmatch
import pathlib
import sys
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from typing import IO

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))  # repository rules run this file by path

from fetch import archives, errors


def members(archive: pathlib.Path) -> Iterator[tuple[str, bool, IO[bytes]]]:
    """Yields (name, executable, content) of every regular file in a .whl, .jar or .tar.*; links in a .tar are left out.

    Raises:
        ArchiveError: the archive is damaged, or has a member that is neither file, folder nor link.
    """
    if zipfile.is_zipfile(archive):
        for info, content in archives.zip_entries(archive):
            yield info.filename, bool(info.external_attr >> 16 & 0o100), content
        return
    with archives.open_tar_file(archive) as tar:
        for entry in tar:
            if entry.isreg():
                yield entry.name, bool(entry.mode & 0o100), archives.content(tar, entry)
            elif not (entry.isdir() or entry.issym() or entry.islnk()):
                raise archives.ArchiveError(f"{archive.name}: refused {entry.name!r}: neither a file, folder nor link")


def extract(
    archive: pathlib.Path, to: pathlib.Path, prefix: str, patterns: Sequence[str], exclude: Sequence[str] = ()
) -> list[str]:
    """Unpacks the files below `prefix` that match a pattern.

    Args:
        archive: a wheel, an sdist or a jar.
        to: the destination folder.
        prefix: removed from the front of each name; files without it are skipped.
        patterns: shell patterns of names without the prefix; `*` matches across folders. An empty list means all.
        exclude: shell patterns of names to leave out all the same.

    Returns:
        The names of the unpacked files, without the prefix.

    Raises:
        ArchiveError: the archive is damaged or must not be unpacked.
        ValueError: a pattern matches nothing.
    """
    unpacked: list[str] = []
    # A repository may lay an sdist over a wheel.
    with archives.Extractor(to, archive.name, replace=True) as extractor:
        for name, executable, content in members(archive):
            if not name.startswith(prefix):
                continue
            name = name[len(prefix) :]
            if patterns and not _matches(name, patterns) or _matches(name, exclude):
                continue
            extractor.file(name, content, executable)
            unpacked.append(name)
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in unpacked):
            raise ValueError(
                f"{archive.name}: nothing below {prefix!r} matches {pattern!r}; has the release's layout changed?"
            )
    return unpacked


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("archive", type=pathlib.Path, help="a wheel, an sdist or a jar")
    parser.add_argument("--to", type=pathlib.Path, default=pathlib.Path("."), help="folder that receives the files")
    parser.add_argument("--prefix", default="", help="cut from the front of each name; others are left out")
    parser.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="PATTERN",
        help="shell pattern of names to leave out; repeatable",
    )
    parser.add_argument("patterns", nargs="*", help="shell patterns of the names to unpack (default: all)")
    arguments = parser.parse_intermixed_args()
    try:
        extract(arguments.archive, arguments.to, arguments.prefix, arguments.patterns, arguments.exclude)
    except (OSError, ValueError, errors.UserError) as error:
        print(f"extract: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
