"""Prepares to publish what another job built: checks the archive of hand_over.py, and unpacks the publishing tools.

    python3 -m release.private.take_over --archive publication.tar --sha256 DIGEST --place FOLDER

Runs without Bazel in a checkout of the same commit, so no build action and no repository rule runs near the keys.
Writes FOLDER/push and FOLDER/publish: //images:push and //release:publish of this checkout, for the files in FOLDER.
Oras, cosign and gh come from Debian's mirrors by the hashes of locks/debian.lock.json. Standard library only.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import shlex
import shutil
import sys
import tarfile

from fetch import download, errors
from fetch.debian import archive as debian
from fetch.debian import unpack
from fetch.hashes import file_sha256
from release.private import hand_over, publish, stamp

_WORKSPACE = pathlib.Path(__file__).resolve().parents[2]
_TOOLS = ("cosign", "gh", "oras")
_SCRIPT = """\
#!/bin/sh
# Written by release/private/take_over.py.
BUILD_WORKING_DIRECTORY="$PWD" BUILD_WORKSPACE_DIRECTORY={workspace} PYTHONDONTWRITEBYTECODE=1 PYTHONPATH={workspace}
export BUILD_WORKING_DIRECTORY BUILD_WORKSPACE_DIRECTORY PYTHONDONTWRITEBYTECODE PYTHONPATH
exec {python} -P -m release.private.{program} {arguments} "$@"
"""


class Refused(Exception):
    """The archive is not what was handed over, or not what the tests passed on."""


def extract(archive: pathlib.Path, place: pathlib.Path) -> None:
    """Unpacks the archive: plain files only, below the folder, none twice.

    Raises:
        Refused: an entry is anything else.
    """
    with tarfile.open(archive, "r:") as tar:
        for entry in tar:
            path = pathlib.PurePosixPath(entry.name)
            target = place / path
            if not entry.isreg() or path.is_absolute() or ".." in path.parts or target.exists():
                raise Refused(f"{archive.name}: expected plain files, each once, found {entry.name!r}")
            target.parent.mkdir(parents=True, exist_ok=True)
            source = tar.extractfile(entry)
            assert source
            with open(target, "wb") as file:
                shutil.copyfileobj(source, file)


def check(place: pathlib.Path) -> dict:
    """Compares every image and wheel with the gate's record, and every file of the release with its sums.

    Returns:
        What hand_over.py says of the archive.

    Raises:
        Refused, stamp.Untested, publish.Refused: the first that differs.
    """
    facts: dict = json.loads((place / hand_over.FACTS).read_text())
    tested = json.loads((place / hand_over.GATE).read_text())
    layouts = {path.name for path in (place / hand_over.LAYOUTS).iterdir()}
    if layouts != facts["images"].keys():
        raise Refused(f"{hand_over.FACTS}: expected the images {sorted(layouts)}, found {sorted(facts['images'])}")
    for name, digest in facts["images"].items():
        if stamp.check(tested, place / hand_over.LAYOUTS / name) != digest:
            raise Refused(f"{name}: expected {digest}, as {hand_over.FACTS} says")
    publish.Distribution.read(place / hand_over.DIST)
    if (place / hand_over.DIST / "gate.json").read_bytes() != (place / hand_over.GATE).read_bytes():
        raise Refused(f"{hand_over.DIST}/gate.json: expected the record that the images were tested by, found another")
    for wheel in sorted((place / hand_over.DIST).glob("*.whl")):
        stamp.check(tested, wheel)
    return facts


def unpack_tools(place: pathlib.Path) -> pathlib.Path:
    """Downloads and unpacks the publishing tools; returns the folder of their programs.

    Raises:
        errors.UserError: no mirror has a package, or only another file.
    """
    lock = json.loads((_WORKSPACE / "locks/debian.lock.json").read_text())
    packages = place / "packages"
    packages.mkdir()
    files = []
    for key in lock["sets"]["publish_tools"]:
        package = lock["packages"][key]
        urls = [f"{mirror}/{package['path']}" for mirror in debian.mirror_urls(package["archive"])]
        file = packages / package["path"].rpartition("/")[2]
        files.append(str(download.fetch(urls, file, package["sha256"], package["size"])))
    wrappers = [word for tool in _TOOLS for word in ("--wrapper", f"usr/bin/{tool}=usr/bin/{tool}")]
    if unpack.main(["--root", str(place / "tools"), *wrappers, *files]):
        raise Refused("the publishing tools could not be unpacked; the reason is above")
    return place / "tools/usr/bin"


def write_commands(place: pathlib.Path, facts: dict, tools: pathlib.Path) -> None:
    """Writes the scripts that publish."""
    settings = f"--settings={_WORKSPACE / 'release/settings.json'}"
    cosign = f"--cosign={tools / 'cosign'}"
    layouts = [f"--layout={name}={place / hand_over.LAYOUTS / name}" for name in facts["images"]]
    documents = [
        f"--document={image}={kind}={place / hand_over.DOCUMENTS / image / name}"
        for image, kind, name in facts["documents"]
    ]
    commands = {
        "push": [
            *(f"--gate={place / hand_over.GATE}", f"--version={facts['version']}", f"--oras={tools / 'oras'}"),
            *(settings, cosign, *layouts, *documents),
        ],
        "publish": [f"--dist={place / hand_over.DIST}", f"--gh={tools / 'gh'}", settings, cosign],
    }
    for program, words in commands.items():
        script = _SCRIPT.format(
            program=program,
            arguments=shlex.join(words),
            python=shlex.quote(sys.executable),
            workspace=shlex.quote(str(_WORKSPACE)),
        )
        (place / program).write_text(script)
        (place / program).chmod(0o755)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archive", type=pathlib.Path, required=True, help="what hand_over.py wrote")
    parser.add_argument("--sha256", required=True, help="its sha256, from the job that built it")
    parser.add_argument("--place", type=pathlib.Path, required=True, help="folder to unpack into, new or empty")
    options = parser.parse_args()
    place = options.place.absolute()
    try:
        found = file_sha256(options.archive)
        if found != options.sha256:
            raise Refused(f"{options.archive.name}: expected sha256 {options.sha256 or 'none'}, found {found}")
        place.mkdir(parents=True, exist_ok=True)
        if left := sorted(path.name for path in place.iterdir()):
            raise Refused(f"{place}: expected an empty folder, found {left[0]}")
        extract(options.archive, place)
        facts = check(place)
        write_commands(place, facts, unpack_tools(place))
    except (Refused, publish.Refused, stamp.Untested, errors.UserError, tarfile.TarError, OSError, ValueError) as error:
        print(f"take_over: {error}", file=sys.stderr)
        return 1
    print(f"{len(facts['images'])} images and {place / hand_over.DIST} are what the tests passed on")
    return 0


if __name__ == "__main__":
    sys.exit(main())
