"""Reads Bazel's workspace status, which tools/workspace_status.py writes for stamped builds (--config=release)."""

from __future__ import annotations

import pathlib

# Replaces every value if the build is not stamped: a commit without new content must not change an output.
UNSTAMPED = "unstamped"

REVISION = "STABLE_REVISION"
BUILDER = "STABLE_BUILDER_ID"
BAZEL = "STABLE_BAZEL"
BAZEL_LOCKED = "STABLE_BAZEL_LOCKED"


class StatusError(Exception):
    """The status lacks a value."""


def value(status: pathlib.Path | None, key: str) -> str:
    """One value of the status.

    Args:
        status: Bazel's stable-status.txt, "KEY value" per line, or None if the build is not stamped.
        key: REVISION for the commit, BUILDER for the builder's URI, BAZEL for the server's version and digest, or
            BAZEL_LOCKED for "yes" if locks/bazel.lock.json pins that server, else "no".

    Raises:
        StatusError: the key is missing: the build was stamped, but without this repository's status command.
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
