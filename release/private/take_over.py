"""Prepares to publish what another job built: checks the archive of hand_over.py, and unpacks the publishing tools.

    python3 -m release.private.take_over --archive publication.tar --sha256 DIGEST --place FOLDER

Runs without Bazel in a checkout of the same commit, so no build action and no repository rule runs near the keys.
Writes FOLDER/push and FOLDER/publish: //images:push and //release:publish of this checkout, for the archive's files in
FOLDER/content. The archive has no say in anything else: version and commit are the checkout's, paths are made here, and
what the files say of themselves is compared with the checkout (claims.py).
Oras, cosign and gh come from Debian's mirrors by the hashes of locks/debian.lock.json. Standard library only.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import re
import shlex
import sys
from collections.abc import Iterable
from typing import Any

from fetch import archives, download, errors, strict_json
from fetch.debian import archive as debian
from fetch.debian import unpack
from fetch.hashes import file_sha256
from oci import layout as oci_layout
from release import builder
from release.private import claims, hand_over, publish, stamp
from release.private import expected as this_checkout
from release.private.expected import Expected

_WORKSPACE = pathlib.Path(__file__).resolve().parents[2]
_TOOLS = ("cosign", "gh", "oras")
# Where the archive is unpacked: the tools, which run near the keys, are in another folder.
_CONTENT = "content"
# What is at the archive's top level.
_FILES = (hand_over.FACTS, hand_over.GATE)
_FOLDERS = (hand_over.LAYOUTS, hand_over.DIST)
_MODEL_PACK = "application/vnd.cncf.model.manifest.v1+json"
# What a manifest here refers to: no manifest, and no index.
_REFERRED = re.compile(
    r"application/vnd\.(oci\.image\.(config\.v1\+json|layer\.v1\.tar(\+gzip|\+zstd)?)"
    r"|cncf\.model\.(config\.v1\+json|[a-z.]+\.v1\.tar(\+gzip|\+zstd)?))"
)
_SCRIPT = """\
#!/bin/sh
# Written by release/private/take_over.py.
BUILD_WORKING_DIRECTORY="$PWD" BUILD_WORKSPACE_DIRECTORY={workspace} PYTHONDONTWRITEBYTECODE=1 PYTHONPATH={workspace}
export BUILD_WORKING_DIRECTORY BUILD_WORKSPACE_DIRECTORY PYTHONDONTWRITEBYTECODE PYTHONPATH
exec {python} -P -m release.private.{program} {arguments} "$@"
"""


class Refused(Exception):
    """The archive is not what was handed over, not what the tests passed on, or not of this checkout."""


_REFUSALS = (
    *(Refused, claims.Refused, publish.Refused, stamp.Untested, this_checkout.Unreadable, builder.BuilderError),
    *(errors.UserError, OSError, ValueError),
)


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


def check(content: pathlib.Path, expected: Expected) -> dict[str, str]:
    """Compares every image and wheel with the gate's record, every file of the release with its sums, and what they
    say of themselves with the checkout.

    Args:
        content: where the archive was unpacked.
        expected: what this checkout releases.

    Returns:
        The images: name → digest, the default of push first.

    Raises:
        Refused, claims.Refused, stamp.Untested, publish.Refused, builder.BuilderError, errors.UserError: the first that
          differs.
    """
    images = _stated_images(content / hand_over.FACTS, expected)
    tested = _gate(content / hand_over.GATE)
    layouts = {path.name for path in (content / hand_over.LAYOUTS).iterdir()}
    if layouts != images.keys():
        raise Refused(f"{hand_over.FACTS}: expected the images {sorted(layouts)}, found {sorted(images)}")
    for name, digest in images.items():
        layout = content / hand_over.LAYOUTS / name
        if stamp.check(tested, layout) != digest:
            raise Refused(f"{name}: expected {digest}, as {hand_over.FACTS} says")
        for each, image in oci_layout.named_images(name, layout).items():
            _check_labels(each, image, expected)
            _check_manifest(each, image.manifest)
        if oci_layout.images(layout).keys() != {""}:
            _check_index(name, strict_json.read(oci_layout.blob(layout, digest)))
    dist = publish.Distribution.read(content / hand_over.DIST)
    if dist.sums.get("gate.json") != file_sha256(content / hand_over.GATE):
        raise Refused(f"{hand_over.DIST}/gate.json: expected the record that the images were tested by, found another")
    for name in dist.sums:
        if name.endswith(".whl"):
            stamp.check(tested, dist.folder / name)
    digests = {name: oci_layout.named_digests(name, content / hand_over.LAYOUTS / name) for name in images}
    claims.check(dist, digests, expected, lambda: builder.identity(os.environ, expected.revision))
    return images


def _check_labels(name: str, image: oci_layout.Image, expected: Expected) -> None:
    # What calls itself an artifact may still be run as an image, so labels in the configuration count either way.
    labels = image.labels | _texts(image.config, "config", "Labels")
    # Registries show these, and cosign signs them with the manifest.
    annotations = labels | _texts(image.manifest, "annotations")
    for key, value in (("version", expected.version), ("revision", expected.revision)):
        for found in (texts.get(f"org.opencontainers.image.{key}") for texts in (labels, annotations)):
            if found != value:
                raise Refused(
                    f"{name}: expected the {key} of this checkout, {value}, among its labels, found {found!r:.200}"
                )


def _check_index(name: str, index: dict[str, Any]) -> None:
    """Refuses an index that says anything of its images besides where they are and what they are for."""
    _only(name, index, "manifests", "mediaType", "schemaVersion")
    for entry in index["manifests"]:
        _only(name, entry, "digest", "mediaType", "platform", "size")
        _only(name, entry["platform"], "architecture", "os")


def _check_manifest(name: str, manifest: dict[str, Any]) -> None:
    """Refuses a manifest that names other manifests, as subject or as layers: oras copies these too, unread."""
    _only(name, manifest, "annotations", "artifactType", "config", "layers", "mediaType", "schemaVersion")
    for entry in (manifest["config"], *manifest["layers"]):
        _only(name, entry, "annotations", "digest", "mediaType", "size")
        if not _REFERRED.fullmatch(str(entry.get("mediaType"))):
            raise Refused(f"{name}: expected a configuration and layers, found {entry.get('mediaType')!r:.200}")
    if (found := manifest.get("artifactType", _MODEL_PACK)) != _MODEL_PACK:
        raise Refused(f"{name}: expected an image or a ModelPack artifact, found {found!r:.200}")


def _only(name: str, found: dict[str, Any], *known: str) -> None:
    if more := sorted(found.keys() - {*known}):
        raise Refused(f"{name}: expected {', '.join(known)} only, found {more[0]!r:.200}")


def _stated_images(path: pathlib.Path, expected: Expected) -> dict[str, str]:
    """The images that publication.json lists, once everything in it is what hand_over.py writes of this checkout."""
    stated = strict_json.read(path)
    images = stated.get("images") if isinstance(stated, dict) else None
    if not isinstance(images, dict) or not all(isinstance(digest, str) for digest in images.values()):
        raise Refused(f"{path.name}: expected what hand_over.py writes, found {stated!r:.200}")
    # They become paths and parts of repositories' names.
    if unknown := sorted(images.keys() - expected.images.keys()):
        raise Refused(f"{path.name}: expected images of release/published.bzl, found {unknown[0]!r:.200}")
    documents = [[*each] for name in images for each in this_checkout.attached(name, expected.images[name])]
    for key, value in {"version": expected.version, "images": images, "documents": documents}.items():
        found = stated.get(key)
        if key == "documents" and isinstance(found, list):
            found, value = sorted(found, key=repr), sorted(documents, key=repr)
        if found != value:
            raise Refused(f"{path.name}: expected the {key} of this checkout, {value!r:.200}, found {found!r:.200}")
    return images


def _gate(path: pathlib.Path) -> dict[str, Any]:
    """The gate's record, as stamp.py reads it."""
    tested = strict_json.read(path)
    artifacts = tested.get("artifacts") if isinstance(tested, dict) else None
    if not isinstance(artifacts, dict) or not all(
        isinstance(entry, dict) and isinstance(entry.get("digest"), str) for entry in artifacts.values()
    ):
        raise Refused(f"{path.name}: expected what write_stamp.py writes, found {tested!r:.200}")
    return {"artifacts": artifacts}


def _texts(document: Any, *keys: str) -> dict[str, Any]:
    """The object at a path of keys, or an empty one."""
    for key in keys:
        document = document.get(key) if isinstance(document, dict) else None
    return document if isinstance(document, dict) else {}


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


def write_commands(place: pathlib.Path, images: Iterable[str], expected: Expected, tools: pathlib.Path) -> None:
    """Writes the scripts that publish."""
    content = place / _CONTENT
    settings = f"--settings={_WORKSPACE / 'release/settings.json'}"
    cosign = f"--cosign={tools / 'cosign'}"
    layouts = [f"--layout={name}={content / hand_over.LAYOUTS / name}" for name in images]
    attached = [
        f"--document={name}={kind}={content / hand_over.DIST / file}"
        for layout in images
        for name, kind, file in this_checkout.attached(layout, expected.images[layout])
    ]
    commands = {
        "push": [
            *(f"--gate={content / hand_over.GATE}", f"--version={expected.version}", f"--oras={tools / 'oras'}"),
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
    parser.add_argument("--only-check", action="store_true", help="unpack and check; fetch no tools, write no commands")
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
        expected = this_checkout.read(_WORKSPACE)
        images = check(place / _CONTENT, expected)
        if not options.only_check:
            write_commands(place, images, expected, unpack_tools(place))
    except _REFUSALS as error:
        errors.tell("take_over", error)
        return 1
    print(
        f"{len(images)} images and the release {expected.version} of {expected.revision} are what the tests passed on"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
