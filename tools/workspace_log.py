"""Reads the downloads in Bazel's log of repository rules (--experimental_workspace_rules_log_file).

The log is a stream of `WorkspaceEvent` messages (Bazel's src/main/protobuf/workspace_log.proto), each after its length
as a varint. Few fields matter here, and no package ships the schema, so this decodes the wire format directly
(https://protobuf.dev/programming-guides/encoding/).
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterator

# Fields of WorkspaceEvent.
_DOWNLOAD = 4
_DOWNLOAD_AND_EXTRACT = 5
# Fields that both kinds of event have.
_URL, _OUTPUT, _SHA256 = 1, 2, 3

# Endings of wheels and sdists.
_OF_PYPI = (".whl", ".tar.gz", ".zip")

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}


def downloads(log: bytes) -> dict[str, str]:
    """Maps the sha256 of each download to its file name.

    The name is that of the output; that of the URL if Bazel unpacks the download into a folder, or if it is one of
    PyPI's, whose outputs have names that no index chose (fetch/pypi/pypi.bzl).

    Raises:
      ValueError: the log is truncated or not in this format.
    """
    found = {}
    for event in _messages(log):
        for number, value in _fields(event):
            if number in (_DOWNLOAD, _DOWNLOAD_AND_EXTRACT):
                fields = dict(_fields(value))
                if _SHA256 in fields:
                    named = urllib.parse.unquote(urllib.parse.urlsplit(fields.get(_URL, b"").decode()).path)
                    own = number == _DOWNLOAD and not named.endswith(_OF_PYPI)
                    path = fields.get(_OUTPUT, b"").decode() if own else named
                    found[fields[_SHA256].decode()] = path.rpartition("/")[2]
    return found


def _messages(stream: bytes) -> Iterator[bytes]:
    position = 0
    while position < len(stream):
        size, position = _varint(stream, position)
        yield _take(stream, position, size)
        position += size


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields the number and the value of each length-delimited field, and skips all other fields."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == _VARINT:
            _, position = _varint(message, position)
        elif wire_type == _BYTES:
            size, position = _varint(message, position)
            yield number, _take(message, position, size)
            position += size
        elif wire_type in _FIXED_SIZES:
            position += len(_take(message, position, _FIXED_SIZES[wire_type]))
        else:
            raise ValueError(f"field {number}: expected a wire type of protobuf, found {wire_type}")


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Returns the number that starts at `position`, and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        (byte,) = _take(data, position, 1)
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("expected a varint of at most 10 bytes")


def _take(data: bytes, position: int, size: int) -> bytes:
    part = data[position : position + size]
    if len(part) != size:
        raise ValueError(f"expected {size} bytes at {position}, found {len(part)}: the log is truncated")
    return part
