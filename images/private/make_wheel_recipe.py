"""Makes the recipe by which an image's `build` command packs a wheel again from its installed files.

    python3 -m images.private.make_wheel_recipe --wheel x.whl --installed site-packages --output x.json
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import pathlib
import struct
import sys
import zipfile

from images.commands import build

# Installation rewrites small files (RECORD, scripts); a larger one that differs means that the folder is of another wheel.
_MOST_STORED = 1 << 20


def wheel_recipe(wheel: pathlib.Path, installed: pathlib.Path) -> dict:
    """The recipe of one wheel: its entries' facts, and the content of those that `installed` has not, or has different.

    Args:
        wheel: compressed or not; what `build` packs is compressed.
        installed: the site-packages folder that it is installed in.

    Raises:
        build.WheelError: too much differs.
    """
    entries = []
    with zipfile.ZipFile(wheel) as archive:
        for info in archive.infolist():
            entry = {fact: getattr(info, fact) for fact in build.FACTS} | {"zip64": _has_zip64_header(archive, info)}
            content = archive.read(info)
            if not info.is_dir() and not _is_installed(installed / info.filename, content):
                if len(content) > _MOST_STORED:
                    raise build.WheelError(
                        f"{wheel.name}: {info.filename} ({len(content):,} bytes) differs from what {installed} has installed: "
                        "is that folder made from this wheel?"
                    )
                entry["content"] = base64.b64encode(content).decode()
            entries.append(entry)
    return {"wheel": wheel.name, "entries": entries}


def _has_zip64_header(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bool:
    """Whether an entry's local header has 64-bit sizes (APPNOTE 4.3.7, 4.5.3): upstream's py_wheel writes them for files of any size."""
    archive.fp.seek(info.header_offset + 26)
    name, extra = struct.unpack("<HH", archive.fp.read(4))
    archive.fp.seek(name, os.SEEK_CUR)
    return extra >= 2 and archive.fp.read(2) == b"\x01\x00"


def _is_installed(path: pathlib.Path, content: bytes) -> bool:
    return path.is_file() and path.stat().st_size == len(content) and build.sha256(path) == hashlib.sha256(content).hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", type=pathlib.Path, required=True)
    parser.add_argument("--installed", type=pathlib.Path, required=True, help="the site-packages folder that the wheel is installed in")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="the recipe to write, JSON")
    arguments = parser.parse_args()
    try:
        recipe = wheel_recipe(arguments.wheel, arguments.installed)
    except build.WheelError as error:
        print(f"make_wheel_recipe: {error}", file=sys.stderr)
        return 1
    arguments.output.write_text(json.dumps(recipe, separators=(",", ":"), sort_keys=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
