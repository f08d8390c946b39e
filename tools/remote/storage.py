"""Finds what no longer is what it says in a storage of buildbox-casd."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path


def damaged(storage: Path) -> Iterator[Path]:
    """Files of blobs whose content does not have the hash that their path names: cas/objects/<2 digits>/<62 digits>.

    buildbox-casd verifies what it is given, not what it reads: a damaged blob stays until it is deleted, and nobody can
    use it meanwhile.

    Args:
      storage: the folder that buildbox-casd was given. It must not be running, or be told to forget the file (a
        restart).
    """
    for path in sorted((storage / "cas/objects").glob("??/*")):
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != path.parent.name + path.name:
                yield path


def remove_damaged(storage: Path) -> int:
    """Deletes damaged blobs, so that they are made again; returns how many."""
    number = 0
    for path in damaged(storage):
        path.unlink()
        number += 1
    return number
