"""The sha256 of files; standard library only, as the launcher runs it on the machine's own Python."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import IO

_CHUNK = 1 << 18


def file_sha256(path: Path) -> str:
    """The sha256 of a file, lower-case hexadecimal."""
    with open(path, "rb") as file:
        return stream_sha256(file)


def stream_sha256(file: IO[bytes]) -> str:
    """The sha256 of the rest of an open file."""
    digest = hashlib.sha256()
    for chunk in iter(lambda: file.read(_CHUNK), b""):
        digest.update(chunk)
    return digest.hexdigest()
