"""Packs files and folders into a reproducible tar.xz: the tool behind `bundle` (bundle.bzl).

The specification is a JSON object:
    files: list of [source, path in the archive]; a folder stands for everything in it, and the first of two entries for
      one path wins.
    exclude: list of globs of paths in the archive to leave out; `*` also matches `/`.
    folder: name of the archive's top folder.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import lzma
import os
import re
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path


def members(files: list[tuple[str, str]], exclude: list[str]) -> dict[str, Path]:
    """Path in the archive → file, sorted by path.

    Raises:
        FileNotFoundError: a source does not exist.
    """
    excluded = re.compile("|".join(map(fnmatch.translate, exclude)) or r"(?!)")
    found: dict[str, Path] = {}
    for source, path in files:
        for file, name in _walk(Path(source), path):
            if not excluded.match(name):
                found.setdefault(name, file)
    return dict(sorted(found.items()))


def _walk(source: Path, path: str) -> Iterator[tuple[Path, str]]:
    if source.is_dir():
        for folder, _, names in os.walk(source, followlinks=True):
            for name in names:
                file = Path(folder, name)
                yield file, f"{path}/{file.relative_to(source)}"
    elif source.is_file():
        yield source, path
    else:
        raise FileNotFoundError(f"{source}: expected a file or folder, found nothing")


def pack(output: Path, folder: str, files: dict[str, Path]) -> None:
    """Writes the archive: regular files without owner or time; only the executable bit is kept."""
    with (
        lzma.open(output, "wb", preset=6) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for path, file in files.items():
            member = tarfile.TarInfo(f"{folder}/{path}")
            member.size = file.stat().st_size
            member.mode = 0o755 if os.access(file, os.X_OK) else 0o644
            with file.open("rb") as content:
                archive.addfile(member, content)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--specification", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    specification = json.loads(options.specification.read_text())
    pack(options.output, specification["folder"], members(specification["files"], specification["exclude"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
