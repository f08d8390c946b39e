"""Copies the files of a folder whose paths match into another folder.

python3 -m oci.private.select_files --from site-packages --to selected --exclude 'bin/*'
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import pathlib
import shutil
from collections.abc import Sequence


def select(folder: pathlib.Path, to: pathlib.Path, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> None:
    """Copies files, links followed.

    Args:
        folder: the source.
        to: the destination; created.
        include: globs of paths below `folder`, of which one must match; none means all paths. `*` matches `/` too.
        exclude: globs of which none may match.
    """
    to.mkdir(parents=True, exist_ok=True)
    # In a sandbox every input is a link.
    for parent, _, names in os.walk(folder, followlinks=True):
        for name in names:
            source = pathlib.Path(parent, name)
            path = source.relative_to(folder)
            if (not include or _matches(path, include)) and not _matches(path, exclude):
                (to / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, to / path)


def _matches(path: pathlib.Path, globs: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(path.as_posix(), glob) for glob in globs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="folder", type=pathlib.Path, required=True)
    parser.add_argument("--to", type=pathlib.Path, required=True)
    parser.add_argument("--include", action="append", default=[], metavar="GLOB")
    parser.add_argument("--exclude", action="append", default=[], metavar="GLOB")
    arguments = parser.parse_args()
    select(arguments.folder, arguments.to, arguments.include, arguments.exclude)


if __name__ == "__main__":
    main()
