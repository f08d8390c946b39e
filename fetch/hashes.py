"""The sha256 of files; standard library only, as the launcher runs it on the machine's own Python."""

from __future__ import annotations

import hashlib
from pathlib import Path

_CHUNK = 1 << 18


def file_sha256(path: Path) -> str:
    """The sha256 of a file, lower-case hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for chunk in iter(lambda: file.read(_CHUNK), b""):
            digest.update(chunk)
    return digest.hexdigest()
