#!/usr/bin/python3
"""Writes the wheels that this image was built from, byte for byte.

An image holds each wheel's files once, installed. A recipe next to them holds the rest: the archive's order, times and
modes, and the few entries that installation rewrites, including RECORD with the sha256 of every file.
"""

from __future__ import annotations

import argparse
import base64
import csv
import hashlib
import json
import os
import pathlib
import sys
import tempfile
import zipfile
from typing import IO

RECIPES = pathlib.Path("/usr/local/share/wheels")
INSTALLED = pathlib.Path("/usr/local/lib/python3.11/dist-packages")
OUTPUT = pathlib.Path("/src/mlc-llm/python/dist")

# An archive entry's fields besides its content (PKWARE's APPNOTE, 4.3.7 and 4.3.12). Every file is deflated.
FACTS = ("filename", "date_time", "create_system", "create_version", "extract_version", "external_attr")


class WheelError(Exception):
    """A wheel cannot be written; the message says why and what to do."""


def write_wheel(recipe: dict, installed: pathlib.Path, output: pathlib.Path) -> pathlib.Path:
    """Packs one wheel from its installed files.

    Args:
        recipe: as made by images/private/make_wheel_recipe.py.
        installed: the site-packages folder.
        output: an existing folder.

    Returns:
        The wheel.

    Raises:
        WheelError: the files are not those that were installed; nothing is left in `output`.
        OSError: `output` cannot be written.
    """
    name = recipe["wheel"]
    record = _record(recipe)
    # Next to the target, so that the last step is a rename: nobody sees a partial wheel.
    with tempfile.TemporaryDirectory(prefix=".build-", dir=output) as scratch:
        packed = pathlib.Path(scratch, name)
        with zipfile.ZipFile(packed, "w") as archive:
            for entry in recipe["entries"]:
                info = zipfile.ZipInfo()
                for fact in FACTS:
                    setattr(info, fact, entry[fact])
                year, month, day, hour, minute, second = info.date_time
                info.date_time = (year, month, day, hour, minute, second)
                if info.is_dir():
                    archive.writestr(info, b"")
                    continue
                info.compress_type = zipfile.ZIP_DEFLATED
                with archive.open(info, "w", force_zip64=entry["zip64"]) as target:
                    if "content" in entry:
                        target.write(base64.b64decode(entry["content"]))
                    else:
                        _copy(installed / info.filename, target, name, record.get(info.filename))
        packed.chmod(0o644)
        return packed.replace(output / name)


def _record(recipe: dict) -> dict[str, str]:
    """Path → sha256 as the wheel's RECORD has it (Python Packaging User Guide, "Recording installed projects")."""
    (content,) = (entry["content"] for entry in recipe["entries"] if entry["filename"].endswith(".dist-info/RECORD"))
    return {row[0]: row[1] for row in csv.reader(base64.b64decode(content).decode().splitlines())}


def _copy(source: pathlib.Path, target: IO[bytes], wheel: str, expected: str | None) -> None:
    digest = hashlib.sha256()
    try:
        with open(source, "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
                target.write(chunk)
    except FileNotFoundError:
        raise WheelError(
            f"{wheel}: expected its file {source}, found none. Start a fresh container from this image."
        ) from None
    found = "sha256=" + base64.urlsafe_b64encode(digest.digest()).decode().rstrip("=")
    if found != expected:
        raise WheelError(
            f"{wheel}: {source}: expected {expected}, found {found}: the file has changed since it was installed."
            " Start a fresh container from this image."
        )


def sha256(path: pathlib.Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="build", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=pathlib.Path, default=OUTPUT, help="folder to write to (default: %(default)s)")
    output = parser.parse_args().output
    try:
        output.mkdir(parents=True, exist_ok=True)
        recipes = sorted(RECIPES.glob("*.json"))
        if not recipes:
            raise WheelError(f"expected recipes in {RECIPES}, found none: this is not an image of this project")
        for recipe in recipes:
            wheel = write_wheel(json.loads(recipe.read_text()), INSTALLED, output)
            print(f"{wheel}  {wheel.stat().st_size:,} bytes  sha256 {sha256(wheel)}")
    except WheelError as error:
        print(f"build: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f"build: cannot write to {output} as uid {os.getuid()}: {error.strerror}. If it is mounted from outside,"
            f" give that folder to uid {os.getuid()}, run the container as its owner (docker run --user UID), or choose"
            " another with --output.",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
