"""The digests of published releases, in release/digests.json, with which anyone can compare an artifact.

    {"releases": {"vVERSION": {"revision": COMMIT, "builds": {
        "registries": {"images": {}, "sboms": {}, "wheels": {}}}}}}

A build is named after the network profile, because upstream's rules write archives differently, and its set of parts:
"registries", "registries,cuda", "upstream,without-mlc-llm". An image's digest is that of the index of all processors, a
file's that of its bytes.
"""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from fetch import names
from oci import layout as oci_layout
from release.private import publish, stamp

KINDS = ("images", "sboms", "wheels")
_SBOM_ENDINGS = (".cdx.json", ".spdx.json")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_BUILD = re.compile(r"(upstream|registries)(,cuda)?(,without-mlc-llm)?")

# An artifact's kind and name.
Thing = tuple[str, str]

# Kind → name → digest.
Digests = dict[str, dict[str, str]]


class RecordError(Exception):
    """The record is malformed or must not be written; the message says what was expected and found, and the fix."""


def kind(name: str) -> str | None:
    """The kind under which a file of a release is recorded, or None if it is not recorded."""
    return "wheels" if name.endswith(".whl") else "sboms" if name.endswith(_SBOM_ENDINGS) else None


def read(path: pathlib.Path) -> dict[str, Any]:
    """Reads and checks the record.

    Raises:
        RecordError: it is malformed.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecordError(f"{path}: expected JSON, found {error}. To have it back: git checkout {path.name}") from None
    _check(path, content)
    return content


def _check(path: pathlib.Path, content: Any) -> None:
    def expect(holds: bool, where: str, what: str, found: object) -> None:
        if not holds:
            raise RecordError(
                f"{path}: {where}: expected {what}, found {found!r}. To have it back: git checkout {path.name}"
            )

    def members(value: Any, where: str, names: set[str]) -> None:
        expect(isinstance(value, dict) and set(value) == names, where, " and ".join(sorted(names)), value)

    members(content, "the file", {"releases"})
    expect(isinstance(content["releases"], dict), "releases", "an object", content["releases"])
    for tag, release in content["releases"].items():
        expect(bool(publish.TAG.fullmatch(tag)), "releases", "tags vX.Y.Z", tag)
        members(release, tag, {"builds", "revision"})
        expect(
            bool(_COMMIT.fullmatch(str(release["revision"]))), f"{tag}, revision", "a commit's id", release["revision"]
        )
        expect(
            isinstance(release["builds"], dict) and bool(release["builds"]),
            f"{tag}, builds",
            "at least one",
            release["builds"],
        )
        for build, digests in release["builds"].items():
            where = f"{tag}, {build}"
            expect(bool(_BUILD.fullmatch(build)), f"{tag}, builds", "PROFILE[,cuda][,without-mlc-llm]", build)
            members(digests, where, set(KINDS))
            for name_of_kind, named in digests.items():
                expect(isinstance(named, dict), f"{where}, {name_of_kind}", "name → digest", named)
                for name, digest in named.items():
                    expect(
                        bool(_DIGEST.fullmatch(str(digest))), f"{where}, {name}", "sha256: and 64 hex digits", digest
                    )


def of_build(dist: pathlib.Path, images: Mapping[str, pathlib.Path]) -> Digests:
    """The digests of a build.

    Args:
        dist: a release's folder.
        images: name → OCI layout.
    """
    digests: Digests = {name: {} for name in KINDS}
    for path in sorted(dist.iterdir()):
        if found := kind(path.name):
            digests[found][path.name] = stamp.sha256(path)
    digests["images"] = {name: stamp.image_digest(layout) for name, layout in sorted(images.items())}
    return digests


def write(path: pathlib.Path, tag: str, build: str, digests: Digests, workspace: pathlib.Path, revision: str) -> None:
    """Adds a build of a release to the record.

    Args:
        path: the record.
        tag: the release's tag.
        build: the build's name.
        digests: the result of `of_build`.
        workspace: the checkout that was built.
        revision: the commit that the build says it was built from.

    Raises:
        RecordError: the checkout is not clean or not at the tag, the build is of another commit, or the record has
          other digests for it.
    """
    try:
        head = publish.check_checkout(workspace, tag)
    except publish.Refused as error:
        raise RecordError(f"--record: {error}") from None
    if revision != head:
        raise RecordError(
            f"--record: expected a build that is stamped with the commit {head}, found {revision}. "
            "Run: tools/bazel run --config=release //release:reproduce -- --record"
        )
    content = read(path)
    release = content["releases"].setdefault(tag, {"revision": head, "builds": {}})
    if release["revision"] != head:
        raise RecordError(
            f"{path.name}: {tag}: expected the commit {head}, found {release['revision']}: a release's tag does not"
            " move"
        )
    there = release["builds"].setdefault(build, digests)
    if difference := next((name for name in KINDS if there[name] != digests[name]), None):
        found = publish.first_difference(there[difference], digests[difference])
        raise RecordError(
            f"{path.name}: {tag}, {build}: {found}. What is recorded stays: raise VERSION in version.bzl, and tag that"
        )
    release["builds"] = dict(sorted(release["builds"].items()))
    content["releases"] = dict(
        sorted(content["releases"].items(), key=lambda item: tuple(map(int, item[0][1:].split("."))))
    )
    path.write_text(json.dumps(content, indent=2, sort_keys=False) + "\n", encoding="utf-8")


# What was published -----------------------------------------------------------------------------------------------


def artifacts(thing: pathlib.Path, image: str | None = None) -> list[tuple[Thing, pathlib.Path]]:
    """The artifacts to verify at a path, each with its path; two may have the same name.

    Args:
        thing: a wheel, a bill of materials, the folder of a downloaded release, or an OCI layout.
        image: the name that the image at that path must have (default: whatever its title says).

    Raises:
        RecordError: it is none of these, or an image with another title.
    """
    if oci_layout.is_layout(thing):
        found = title(thing)
        if image and found != image:
            raise RecordError(f"{thing}: expected the image {image}, found one with the title {found}")
        return [(("images", found), thing)]
    if thing.is_dir() and not image:
        listed: list[tuple[Thing, pathlib.Path]] = []
        for path in sorted(thing.iterdir()):
            if path.is_dir() and oci_layout.is_layout(path):
                listed.append((("images", title(path)), path))
            elif path.is_file() and (kind_of_file := kind(path.name)):
                listed.append(((kind_of_file, names.base_name(path.name, str(thing))), path))
        if listed:
            return listed
    elif not image and thing.is_file() and (kind_of_file := kind(thing.name)):
        return [((kind_of_file, names.base_name(thing.name, str(thing.parent))), thing)]
    raise RecordError(
        f"{thing}: expected a wheel, a bill of materials (*.spdx.json, *.cdx.json), a folder of them, an OCI image"
        " layout, or REGISTRY/NAME:TAG or REGISTRY/NAME@sha256:DIGEST; found"
        f" {'a folder' if thing.is_dir() else 'a file' if thing.exists() else 'nothing'}"
    )


def title(layout: pathlib.Path) -> str:
    """The name of an image according to its labels (org.opencontainers.image.title).

    Raises:
        RecordError: it has no such label.
        names.UnsafeNameError: the label is no plain name.
    """
    try:
        [found] = {image.labels["org.opencontainers.image.title"] for image in oci_layout.images(layout).values()}
    except (ValueError, KeyError, TypeError) as error:
        raise RecordError(f"{layout}: expected an image with a title among its labels, found {error!r}") from None
    return names.base_name(found, f"{layout}: the title of the image")


def look_up(
    content: dict[str, Any], tag: str, preferred: str, kind_and_name: Thing, found: str
) -> tuple[str, str, str | None]:
    """Finds an artifact in the record.

    Args:
        content: the record's content.
        tag: the release's tag.
        preferred: the build to try first.
        kind_and_name: the artifact.
        found: the artifact's digest.

    Returns:
        The build that has it with this digest, otherwise one that has it with another; the commit; the expected digest
        (None if there is none).

    Raises:
        RecordError: the record has no such release.
    """
    if tag not in content["releases"]:
        have = ", ".join(content["releases"]) or "none"
        raise RecordError(
            f"release/digests.json: expected {tag}, found {have}. Name another with --tag, or git pull: it is recorded"
            " after a release"
        )
    release = content["releases"][tag]
    group, name = kind_and_name
    builds = sorted(release["builds"], key=lambda build: build != preferred)
    digests = {
        build: release["builds"][build][group][name] for build in builds if name in release["builds"][build][group]
    }
    build = next((build for build, digest in digests.items() if digest == found), next(iter(digests), preferred))
    return build, release["revision"], digests.get(build)
