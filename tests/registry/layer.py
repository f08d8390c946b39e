"""Writes a small tar archive for the image tests: layer.py OUTPUT NAME=CONTENT..."""

import gzip
import io
import sys
import tarfile
from pathlib import Path


def main() -> None:
    output = Path(sys.argv[1])
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for entry in sys.argv[2:]:
            name, _, content = entry.partition("=")
            header = tarfile.TarInfo(name)
            header.size, header.mode = len(content), 0o755
            archive.addfile(header, io.BytesIO(content.encode()))
    packed = buffer.getvalue()
    output.write_bytes(gzip.compress(packed, mtime=0) if output.suffix == ".gz" else packed)


if __name__ == "__main__":
    main()
