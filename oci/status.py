"""Reads Bazel's workspace status, as tools/workspace_status.py writes it: what a stamped build (--config=release) says
of itself.
"""

from __future__ import annotations

import pathlib

# Instead of any value where the build is not stamped: a commit without new content must not change an output.
UNSTAMPED = "unstamped"

REVISION = "STABLE_REVISION"
BUILDER = "STABLE_BUILDER_ID"


class StatusError(Exception):
    """The status lacks a value."""


def value(status: pathlib.Path | None, key: str) -> str:
    """One value of the status.

    Args:
        status: Bazel's stable-status.txt, "KEY value" a line, or None for a build that is not stamped.
        key: REVISION, the commit, or BUILDER, the URI of who builds.

    Raises:
        StatusError: it has no such key: the build was stamped, but without this repository's status command.
    """
    if status is None:
        return UNSTAMPED
    found = (
        dict(line.partition(" ")[::2] for line in status.read_text(encoding="utf-8").splitlines()).get(key, "").strip()
    )
    if not found:
        raise StatusError(
            f"the workspace status has no {key}: build with --config=release, which sets it, not --stamp alone"
        )
    return found
