"""The stamp of a gate: which wheels and images, by digest, the tests passed on; what publishes compares before it
sends.
"""

from __future__ import annotations

import hashlib
import json
import pathlib


class Untested(Exception):
    """An artifact is not what the tests passed on; the message names it, both digests and the remedy."""


def sha256(path: pathlib.Path) -> str:
    """The digest of a file, as OCI writes it: "sha256:" and 64 hex digits."""
    with open(path, "rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def image_digest(layout: pathlib.Path) -> str:
    """The digest of the one manifest in an OCI layout, once every blob below it was found to have the digest that names
    it.

    Raises:
        Untested: a blob is damaged or missing, or the layout holds other than one manifest.
    """
    try:
        manifests = json.loads((layout / "index.json").read_bytes())["manifests"]
    except (OSError, ValueError, KeyError) as error:
        raise Untested(f"{layout}: expected an OCI image layout, found {error!r}; build it again") from None
    if len(manifests) != 1:
        raise Untested(f"{layout}: expected one manifest in index.json, found {len(manifests)}")
    digest = manifests[0]["digest"]
    pending = [digest]
    while pending:
        name = pending.pop()
        blob = layout / "blobs" / name.replace(":", "/")
        found = sha256(blob) if blob.exists() else "none"
        if found != name:
            raise Untested(
                f"{layout.name}: expected the blob {name}, found {found}; build it again: tools/bazel clean &&"
                " tools/bazel build"
            )
        if name == digest:
            manifest = json.loads(blob.read_bytes())
            pending += [manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])]
    return digest


def artifact_file(path: pathlib.Path) -> pathlib.Path:
    """The artifact at the path of a Bazel output: a wheel is alone in a folder, since Bazel cannot know its name before
    it builds it.

    Args:
        path: a file, an OCI layout, or a folder that holds one wheel.
    """
    wheels = sorted(path.glob("*.whl"))
    return wheels[0] if len(wheels) == 1 and len(list(path.iterdir())) == 1 else path


def describe(artifact: pathlib.Path) -> dict[str, str]:
    """The entry of one artifact: its kind ("image" for an OCI layout, else "wheel") and digest."""
    if artifact.is_dir():
        return {"kind": "image", "digest": image_digest(artifact)}
    return {"kind": "wheel", "digest": sha256(artifact)}


def check(stamp: dict, artifact: pathlib.Path) -> str:
    """The digest of an artifact that the tests passed on.

    Args:
        stamp: the content of a gate's output.
        artifact: a wheel, or the folder of an image's layout.

    Raises:
        Untested: the stamp does not list it, or with another digest.
    """
    entry = stamp["artifacts"].get(artifact.name)
    found = describe(artifact)
    if entry != found:
        expected = entry["digest"] if entry else "nothing of that name"
        raise Untested(
            f"{artifact.name}: the tests passed on {expected}, and this is {found['digest']}: it is not published. "
            "Run the command again through tools/bazel run, which builds and tests anew."
        )
    return found["digest"]
