"""Finds a Bazel that this machine already has. Imports little, because every run pays for it."""

from __future__ import annotations

import os

from fetch import errors

from . import machine

# Set for programs that are asked for their version: one may be a wrapper of a tools/bazel, which must not ask again.
_ASKED = "MLC_ASKED_FOR_VERSION"


def find_bazel(version: str, search: bool = True) -> tuple[str, str] | None:
    """Returns a suitable Bazel as (path, where it was found), or None.

    Args:
      version: the version in .bazelversion. $BAZEL_REAL, which Bazelisk sets, is used whatever its version.
      search: whether to run what is on PATH to learn its version; Bazelisk then downloads.
    """
    ourselves = os.path.join(machine.ROOT, "tools", "bazel")
    if os.environ.get(_ASKED):
        raise errors.UserError("started by another tools/bazel that looks for Bazel: found none")
    real = os.environ.get("BAZEL_REAL")
    if real:
        if not os.access(real, os.X_OK):
            raise errors.UserError(
                f"BAZEL_REAL: expected the path of a Bazel program, found '{real}', which is not executable. Unset it."
            )
        if os.path.samefile(real, ourselves):
            raise errors.UserError(f"BAZEL_REAL: expected the path of Bazel, found '{real}', this launcher. Unset it.")
        return real, "BAZEL_REAL"
    for name in ("bazelisk", "bazel") if search else ():
        for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
            path = os.path.join(folder or ".", name)
            if os.access(path, os.X_OK) and os.path.isfile(path) and not os.path.samefile(path, ourselves):
                if _version_of(path) == version:
                    return path, "PATH"
    return None


def _version_of(path: str) -> str:
    """Returns the version that `<path> --version` prints, cached for an hour."""
    status = os.stat(path)
    key = f"{os.path.realpath(path)} {status.st_mtime_ns} {status.st_size} {machine.wanted_version()}"
    known = machine.remembered("version", key)
    if not isinstance(known, str):
        known = _ask_version(path)
        machine.remember("version", key, known)
    return known


def _ask_version(path: str) -> str:
    """Runs `<path> --version`; returns "" if that prints no version (Bazelisk may have to download Bazel first)."""
    import re
    import subprocess

    try:
        done = subprocess.run(
            [path, "--version"],
            cwd=machine.ROOT,
            env={**os.environ, "BAZELISK_SKIP_WRAPPER": "true", _ASKED: "true"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            timeout=120,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    match = re.search(r"^bazel (\S+)", done.stdout, re.MULTILINE)
    return match[1] if match and not done.returncode else ""
