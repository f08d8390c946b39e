"""Unpacks chosen files of a wheel or an sdist into a folder.

Standard library only: repository rules run this on the machine's own Python.
"""

from __future__ import annotations

import argparse
import fnmatch
import pathlib
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from typing import IO, cast


def members(archive: pathlib.Path) -> Iterator[tuple[str, bool, IO[bytes]]]:
    """Yields (name, executable, content) of every regular file in a .whl, .zip or .tar.*."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                if not info.is_dir():
                    with opened.open(info) as content:
                        yield info.filename, bool(info.external_attr >> 16 & 0o100), content
    else:
        with tarfile.open(archive, "r|*") as tar:
            for entry in tar:
                if entry.isreg():
                    # Only entries that are not files lack content.
                    yield entry.name, bool(entry.mode & 0o100), cast("IO[bytes]", tar.extractfile(entry))


def extract(archive: pathlib.Path, to: pathlib.Path, prefix: str, patterns: list[str]) -> list[str]:
    """Unpacks the files below `prefix` that match a pattern.

    Args:
        archive: a wheel or an sdist.
        to: the destination folder.
        prefix: removed from the front of each name; files without it are skipped.
        patterns: shell patterns of names without the prefix; `*` matches across folders. An empty list means all.

    Returns:
        The names of the unpacked files, without the prefix.

    Raises:
        ValueError: a name leads out of the folder, or a pattern matches nothing.
    """
    unpacked: list[str] = []
    for name, executable, content in members(archive):
        if not name.startswith(prefix):
            continue
        name = name[len(prefix) :]
        if patterns and not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
            continue
        target = (to / name).resolve()
        if not target.is_relative_to(to.resolve()):
            raise ValueError(f"{archive.name}: {name} leads out of the folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            shutil.copyfileobj(content, file, 1 << 20)
        target.chmod(0o755 if executable else 0o644)
        unpacked.append(name)
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in unpacked):
            raise ValueError(
                f"{archive.name}: nothing below {prefix!r} matches {pattern!r}; has the release's layout changed?"
            )
    return unpacked


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("archive", type=pathlib.Path, help="a wheel or an sdist")
    parser.add_argument("--to", type=pathlib.Path, default=pathlib.Path("."), help="folder that receives the files")
    parser.add_argument("--prefix", default="", help="cut from the front of each name; others are left out")
    parser.add_argument("patterns", nargs="*", help="shell patterns of the names to unpack (default: all)")
    arguments = parser.parse_intermixed_args()
    try:
        extract(arguments.archive, arguments.to, arguments.prefix, arguments.patterns)
    except (OSError, ValueError, tarfile.TarError, zipfile.BadZipFile) as error:
        print(f"extract: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
