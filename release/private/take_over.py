"""Prepares to publish what another job built: checks the archive of hand_over.py, and unpacks the publishing tools.

    python3 -m release.private.take_over --archive publication.tar --sha256 DIGEST --place FOLDER

Runs without Bazel in a checkout of the same commit, so no build action and no repository rule runs near the keys.
Writes FOLDER/push and FOLDER/publish: //images:push and //release:publish of this checkout, for the archive's files in
FOLDER/content. The archive has no say in anything else: version and commit are the checkout's, and paths are made here.
Oras, cosign and gh come from Debian's mirrors by the hashes of locks/debian.lock.json. Standard library only.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import re
import shlex
import sys

from fetch import archives, download, errors, names, strict_json
from fetch.debian import archive as debian
from fetch.debian import unpack
from fetch.hashes import file_sha256
from oci import layout as oci_layout
from oci import reference
from release import checkout
from release.private import hand_over, publish, stamp

_WORKSPACE = pathlib.Path(__file__).resolve().parents[2]
_TOOLS = ("cosign", "gh", "oras")
# Where the archive is unpacked: the tools, which run near the keys, are in another folder.
_CONTENT = "content"
# What is at the archive's top level.
_FILES = (hand_over.FACTS, hand_over.GATE)
_FOLDERS = (hand_over.LAYOUTS, hand_over.DIST)
_SCRIPT = """\
#!/bin/sh
# Written by release/private/take_over.py.
BUILD_WORKING_DIRECTORY="$PWD" BUILD_WORKSPACE_DIRECTORY={workspace} PYTHONDONTWRITEBYTECODE=1 PYTHONPATH={workspace}
export BUILD_WORKING_DIRECTORY BUILD_WORKSPACE_DIRECTORY PYTHONDONTWRITEBYTECODE PYTHONPATH
exec {python} -P -m release.private.{program} {arguments} "$@"
"""


class Refused(Exception):
    """The archive is not what was handed over, not what the tests passed on, or not of this checkout."""


@dataclasses.dataclass(frozen=True)
class Document:
    """A file of the release that is attached to an image."""

    image: str
    media_type: str
    name: str


@dataclasses.dataclass(frozen=True)
class Facts:
    """What publication.json says; every name in it is one that may become a path and a part of an argument.

    Args:
        images: name → digest, the default of push first.
        documents: what is attached to them.
    """

    version: str
    images: dict[str, str]
    documents: list[Document]

    @classmethod
    def read(cls, path: pathlib.Path) -> Facts:
        """Reads the file.

        Raises:
            Refused, errors.UserError: it is not as hand_over.py writes it.
        """
        content = strict_json.parse(path.read_bytes())
        try:
            images = {_image(name): str(digest) for name, digest in content["images"].items()}
            documents = [
                Document(_image(image), _media_type(kind), names.base_name(name, f"{path.name}: a document"))
                for image, kind, name in content["documents"]
            ]
            return cls(str(content["version"]), images, documents)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise Refused(f"{path.name}: expected what hand_over.py writes, found {error!r:.200}") from None


def _image(name: object) -> str:
    # It becomes a part of a repository's name, too.
    text = names.base_name(name, f"{hand_over.FACTS}: an image")
    if not re.fullmatch(reference.NAME, text):
        raise Refused(f"{hand_over.FACTS}: expected names of images, found {text!r}")
    return text


def _media_type(text: object) -> str:
    if not isinstance(text, str) or not re.fullmatch(r"[a-z]+/[a-z0-9.+-]+", text):
        raise Refused(f"{hand_over.FACTS}: expected media types, found {text!r:.100}")
    return text


def extract(archive: pathlib.Path, content: pathlib.Path) -> None:
    """Unpacks the archive into a new folder: plain files that hand_over.py writes, none of them executable.

    Raises:
        Refused, archives.ArchiveError: an entry is anything else.
    """
    content.mkdir()
    with (
        archives.open_tar_file(archive) as tar,
        archives.Extractor(content, archive.name) as extractor,
    ):
        for entry in tar:
            first, _, rest = archives.relative_name(entry.name, archive.name).partition("/")
            if not entry.isreg() or first not in (_FOLDERS if rest else _FILES):
                raise Refused(f"{archive.name}: expected plain files of a release, found {entry.name!r}")
            extractor.file(entry.name, archives.content(tar, entry), executable=False)


def checked_out() -> tuple[str, str]:
    """The version and the commit of the checkout that publishes.

    Raises:
        Refused: it is no checkout, or has no version.
    """
    text = (_WORKSPACE / "version.bzl").read_text(encoding="utf-8")
    version = re.search(r'^VERSION = "([^"]+)"$', text, re.MULTILINE)
    if not version:
        raise Refused("version.bzl: expected a line VERSION = …, found none")
    try:
        # git would answer for a checkout that this folder is in.
        if (top := checkout.root(str(_WORKSPACE))) != str(_WORKSPACE.resolve()):
            raise Refused(f"{_WORKSPACE}: expected a git checkout, found a folder in that of {top}")
        return version[1], checkout.head(str(_WORKSPACE))
    except checkout.NoCheckout as error:
        raise Refused(f"{_WORKSPACE}: expected a git checkout, found {error}") from None


def check(content: pathlib.Path, version: str, revision: str) -> Facts:
    """Compares every image and wheel with the gate's record, and every file of the release with its sums.

    Args:
        content: where the archive was unpacked.
        version: of the checkout.
        revision: the commit of the checkout, which images and files must name.

    Returns:
        What hand_over.py says of the archive.

    Raises:
        Refused, stamp.Untested, publish.Refused, errors.UserError: the first that differs.
    """
    facts = Facts.read(content / hand_over.FACTS)
    tested = strict_json.parse((content / hand_over.GATE).read_bytes())
    layouts = {path.name for path in (content / hand_over.LAYOUTS).iterdir()}
    if layouts != facts.images.keys():
        raise Refused(f"{hand_over.FACTS}: expected the images {sorted(layouts)}, found {sorted(facts.images)}")
    expected = {"version": version, "revision": revision}
    for name, digest in facts.images.items():
        if stamp.check(tested, content / hand_over.LAYOUTS / name) != digest:
            raise Refused(f"{name}: expected {digest}, as {hand_over.FACTS} says")
        config = oci_layout.Image(content / hand_over.LAYOUTS / name).config.get("config") or {}
        for key, value in expected.items():
            found = (config.get("Labels") or {}).get(f"org.opencontainers.image.{key}")
            if found != value:
                raise Refused(
                    f"{name}: expected the {key} of this checkout, {value}, among its labels, found {found!r}"
                )
    dist = publish.Distribution.read(content / hand_over.DIST)
    for key, value, found in (
        ("version", version, facts.version),
        ("tag", f"v{version}", dist.tag),
        ("revision", revision, dist.revision),
    ):
        if found != value:
            raise Refused(f"{hand_over.DIST}: expected the {key} of this checkout, {value}, found {found!r}")
    if (dist.folder / "gate.json").read_bytes() != (content / hand_over.GATE).read_bytes():
        raise Refused(f"{hand_over.DIST}/gate.json: expected the record that the images were tested by, found another")
    for wheel in sorted(dist.folder.glob("*.whl")):
        stamp.check(tested, wheel)
    for document in facts.documents:
        if document.image not in facts.images or document.name not in dist.sums:
            raise Refused(
                f"{hand_over.FACTS}: expected documents of images among the files in {hand_over.DIST}, found"
                f" {document.name!r} of {document.image!r}"
            )
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
    # New, so that nothing but these packages is what the tools' loader finds.
    (place / "tools").mkdir()
    if unpack.main(["--root", str(place / "tools"), *wrappers, *files]):
        raise Refused("the publishing tools could not be unpacked; the reason is above")
    return place / "tools/usr/bin"


def write_commands(place: pathlib.Path, facts: Facts, tools: pathlib.Path) -> None:
    """Writes the scripts that publish."""
    content = place / _CONTENT
    settings = f"--settings={_WORKSPACE / 'release/settings.json'}"
    cosign = f"--cosign={tools / 'cosign'}"
    layouts = [f"--layout={name}={content / hand_over.LAYOUTS / name}" for name in facts.images]
    attached = [
        f"--document={document.image}={document.media_type}={content / hand_over.DIST / document.name}"
        for document in facts.documents
    ]
    commands = {
        "push": [
            *(f"--gate={content / hand_over.GATE}", f"--version={facts.version}", f"--oras={tools / 'oras'}"),
            *(settings, cosign, *layouts, *attached),
        ],
        "publish": [f"--dist={content / hand_over.DIST}", f"--gh={tools / 'gh'}", settings, cosign],
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
        extract(options.archive, place / _CONTENT)
        version, revision = checked_out()
        facts = check(place / _CONTENT, version, revision)
        write_commands(place, facts, unpack_tools(place))
    except (Refused, publish.Refused, stamp.Untested, errors.UserError, OSError, ValueError) as error:
        errors.tell("take_over", error)
        return 1
    print(f"{len(facts.images)} images and the release {version} of {revision} are what the tests passed on")
    return 0


if __name__ == "__main__":
    sys.exit(main())
