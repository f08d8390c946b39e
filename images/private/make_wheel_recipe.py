"""Makes the recipe from which an image's `build` command repacks a wheel out of its installed files.

python3 -m images.private.make_wheel_recipe --unversioned x.whl --identity x.identity.json --installed site-packages
--output x.json
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import pathlib
import sys
from typing import Any

from images.commands import build
from wheels.finished import FinishedWheel, Identity, WheelError

# Installation rewrites only small files (RECORD, scripts); if a larger one differs, the folder holds another wheel.
_MOST_STORED = 1 << 20


def wheel_recipe(wheel: FinishedWheel, installed: pathlib.Path) -> dict[str, Any]:
    """The recipe of one wheel: its entries' fields, and the content of entries that `installed` lacks or has changed.

    Args:
        wheel: not compressed yet, unlike what `build` packs.
        installed: the site-packages folder that it is installed in.

    Raises:
        build.WheelError: too much differs.
    """
    entries = []
    for info in wheel.infolist():
        entry: dict[str, Any] = {fact: getattr(info, fact) for fact in build.FACTS}
        entry["zip64"] = wheel.has_zip64_header(info)
        content = wheel.read(info)
        if not _is_installed(installed / info.filename, content):
            if len(content) > _MOST_STORED:
                raise build.WheelError(
                    f"{wheel.filename}: {info.filename} ({len(content):,} bytes) differs from the one in"
                    f" {installed}: was this wheel installed there?"
                )
            entry["content"] = base64.b64encode(content).decode()
        entries.append(entry)
    return {"wheel": wheel.filename, "entries": entries}


def _is_installed(path: pathlib.Path, content: bytes) -> bool:
    return (
        path.is_file()
        and path.stat().st_size == len(content)
        and build.sha256(path) == hashlib.sha256(content).hexdigest()
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--unversioned", type=pathlib.Path, required=True, metavar="WHEEL", help="the wheel before it has its build id"
    )
    parser.add_argument(
        "--identity", type=pathlib.Path, required=True, metavar="FILE", help="its version and pins (wheels/finished.py)"
    )
    parser.add_argument(
        "--installed", type=pathlib.Path, required=True, help="the site-packages folder that the wheel is installed in"
    )
    parser.add_argument("--output", type=pathlib.Path, required=True, help="the recipe to write, JSON")
    arguments = parser.parse_args()
    try:
        with FinishedWheel(arguments.unversioned, Identity.read(arguments.identity)) as wheel:
            recipe = wheel_recipe(wheel, arguments.installed)
    except (build.WheelError, WheelError) as error:
        print(f"make_wheel_recipe: {error}", file=sys.stderr)
        return 1
    arguments.output.write_text(json.dumps(recipe, separators=(",", ":"), sort_keys=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
