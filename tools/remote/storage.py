"""Finds damaged blobs in a storage of buildbox-casd."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path


def damaged(storage: Path) -> Iterator[Path]:
    """Yields blobs whose content does not match the hash in their path, cas/objects/<2 digits>/<62 digits>.

    buildbox-casd verifies what it receives but not what it reads, so a damaged blob stays, unusable, until it is
    deleted.

    Args:
      storage: the folder of buildbox-casd. Stop buildbox-casd first, or restart it after deleting files.
    """
    for path in sorted((storage / "cas/objects").glob("??/*")):
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != path.parent.name + path.name:
                yield path


def remove_damaged(storage: Path) -> int:
    """Deletes damaged blobs, so that they are built again, and returns their number."""
    number = 0
    for path in damaged(storage):
        path.unlink()
        number += 1
    return number
