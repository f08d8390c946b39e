"""The stamp of a gate: the digests of the wheels and images that the tests passed on.

Every command that publishes compares these digests with what it is about to send.
"""

from __future__ import annotations

import pathlib
from typing import Any

from fetch.hashes import file_sha256
from oci import layout as oci_layout


class Untested(Exception):
    """An artifact is not what the tests passed on; the message names it, both digests and the fix."""


def sha256(path: pathlib.Path) -> str:
    """The digest of a file, as OCI writes it: "sha256:" and 64 hex digits."""
    return "sha256:" + file_sha256(path)


def image_digest(layout: pathlib.Path) -> str:
    """The digest of an OCI layout's one image or index, after checking every blob against its digest.

    Raises:
        Untested: a blob is damaged or missing, or the layout does not hold exactly one image or index.
    """
    try:
        return oci_layout.verified_digest(layout)
    except oci_layout.LayoutError as error:
        raise Untested(f"{error}; build it again: tools/bazel clean && tools/bazel build") from None


def artifact_file(path: pathlib.Path) -> pathlib.Path:
    """The artifact at the path of a Bazel output.

    A wheel is alone in a folder, because Bazel does not know its name before the build.

    Args:
        path: a file, an OCI layout, or a folder that holds one wheel.
    """
    wheels = sorted(path.glob("*.whl"))
    return wheels[0] if len(wheels) == 1 and len(list(path.iterdir())) == 1 else path


def describe(artifact: pathlib.Path) -> dict[str, str]:
    """The entry of one artifact: its kind ("image" for an OCI layout, otherwise "wheel") and digest."""
    if artifact.is_dir():
        return {"kind": "image", "digest": image_digest(artifact)}
    return {"kind": "wheel", "digest": sha256(artifact)}


def check(stamp: dict[str, Any], artifact: pathlib.Path, name: str = "") -> str:
    """The digest of an artifact that the tests passed on.

    Args:
        stamp: the content of a gate's output.
        artifact: a wheel, or the folder of an image's layout.
        name: what it is published as, if not under its file name.

    Raises:
        Untested: the stamp does not list it, or lists another digest.
    """
    name = name or artifact.name
    entry = stamp["artifacts"].get(name)
    found = describe(artifact)
    if entry != found:
        expected = entry["digest"] if entry else "nothing of that name"
        raise Untested(
            f"{name}: the tests passed on {expected}, and this is {found['digest']}: it is not published. "
            "Run the command again through tools/bazel run, which builds and tests again."
        )
    return found["digest"]
