"""Describes a layer in one pass: digest, size, media type, and the digest of the unpacked content.

OCI image specification: descriptor.md, layer.md, config.md ("Layer DiffID"). Standard library only.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import zlib
from pathlib import Path
from typing import BinaryIO

TAR = "application/vnd.oci.image.layer.v1.tar"


class LayerError(Exception):
    """A layer that cannot be used."""


class _Gzip:
    """Decompresses a gzip file of any number of members."""

    def __init__(self) -> None:
        self.member = zlib.decompressobj(wbits=31)

    def feed(self, block: bytes) -> bytes:
        parts = []
        while block:
            if self.member.eof:
                self.member = zlib.decompressobj(wbits=31)
            parts.append(self.member.decompress(block))
            block = self.member.unused_data
        return b"".join(parts)


def describe(layer: BinaryIO, label: str) -> dict:
    """Returns {"descriptor": ..., "diff_id": ..., "history": ...} of a tar archive, plain or with gzip.

    Args:
        layer: the layer's file, opened for reading.
        label: the target that built it, for the image's history.

    Raises:
        LayerError: the compression is unsupported, or the file is truncated.
    """
    block = layer.read(1 << 20)
    if block[:4] == b"\x28\xb5\x2f\xfd":
        raise LayerError("layers compressed with zstd need --config=upstream; here use gzip or none")
    gzip = _Gzip() if block[:2] == b"\x1f\x8b" else None
    digest, diff_id, size = hashlib.sha256(), hashlib.sha256(), 0
    while block:
        digest.update(block)
        size += len(block)
        if gzip:
            try:
                diff_id.update(gzip.feed(block))
            except zlib.error as error:
                raise LayerError(f"expected a gzip file, found damage: {error}") from error
        block = layer.read(1 << 20)
    if gzip and not gzip.member.eof:
        raise LayerError("expected a whole gzip file, found one that ends early")
    return {
        "descriptor": {
            "mediaType": TAR + ("+gzip" if gzip else ""),
            "digest": f"sha256:{digest.hexdigest()}",
            "size": size,
        },
        "diff_id": f"sha256:{(diff_id if gzip else digest).hexdigest()}",
        "history": {"created": "1970-01-01T00:00:00Z", "created_by": f"bazel build {label}"},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layer", type=Path, required=True, help="tar archive, with gzip or not compressed")
    parser.add_argument("--label", required=True, help="the target that made it, for the image's history")
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    arguments = parser.parse_args()
    try:
        with arguments.layer.open("rb") as layer:
            description = describe(layer, arguments.label)
    except LayerError as error:
        sys.exit(f"{arguments.label}: {arguments.layer.name}: {error}")
    arguments.output.write_text(json.dumps(description, sort_keys=True))


if __name__ == "__main__":
    main()
