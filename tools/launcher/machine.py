"""What the launcher knows of the workspace and this machine: folders, which network profile, which Bazel. Imports
little, since each run pays for it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from fetch import errors

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
PROFILES = ("upstream", "registries")
# What a probe of the network or of a program found is believed for so long.
KEPT_SECONDS = 3600
_PROBE_SECONDS = 2.0


def say(line: str) -> None:
    """One line to the user, on standard error, where it does not mix with Bazel's output."""
    print("tools/bazel: " + line, file=sys.stderr, flush=True)


def cache_folder() -> str:
    """Where the launcher keeps what it installs: $MLC_BAZEL_CACHE, else below the user's cache folder."""
    chosen = os.environ.get("MLC_BAZEL_CACHE")
    if chosen:
        return os.path.abspath(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "mlc-bazel")


def wanted_version() -> str:
    """The version in .bazelversion."""
    path = os.path.join(ROOT, ".bazelversion")
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().split()[0]
    except (OSError, IndexError) as error:
        raise errors.UserError(
            f"{path}: expected a version of Bazel, found none ({error}). Restore it: git checkout .bazelversion"
        )


def remembered(name: str, key: str) -> Any:
    """What `remember` was given for this name and key within the last hour, else None."""
    return _memory(name).get(key, {}).get("value")


def _memory(name: str) -> dict[str, Any]:
    try:
        with open(os.path.join(cache_folder(), name + ".json"), encoding="utf-8") as file:
            known = json.load(file)
        return {key: entry for key, entry in known.items() if 0 <= time.time() - entry["time"] < KEPT_SECONDS}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def remember(name: str, key: str, value: Any) -> None:
    """Keeps a finding for the next runs; a cache that cannot be written is no error."""
    path = os.path.join(cache_folder(), name + ".json")
    temporary = f"{path}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump({**_memory(name), key: {"value": value, "time": time.time()}}, file)
        os.replace(temporary, path)
    except OSError:
        pass


def choose_profile(arguments: Sequence[str] = (), anew: bool = False) -> tuple[str, str]:
    """The network profile and why: from --config=, else MLC_PROFILE, else a probe that is kept for an hour.

    Args:
      arguments: Bazel's command line.
      anew: probe even if an earlier answer is still good.
    """
    for profile in PROFILES:
        if "--config=" + profile in arguments:
            return profile, "--config"
    chosen = os.environ.get("MLC_PROFILE")
    if chosen:
        if chosen not in PROFILES:
            raise errors.UserError(f"MLC_PROFILE: expected {' or '.join(PROFILES)}, found '{chosen}'")
        return chosen, "MLC_PROFILE"
    known = None if anew else remembered("profile", "probe")
    if not known:
        from . import probe

        known = probe.profile(_PROBE_SECONDS)
        remember("profile", "probe", known)
    return tuple(known)


def find_bazel(version: str) -> tuple[str, str] | None:
    """A Bazel of this machine that suits: (path, where it was found), or None.

    Args:
      version: what .bazelversion says; $BAZEL_REAL (Bazelisk sets it) is taken whatever it is.
    """
    real = os.environ.get("BAZEL_REAL")
    if real:
        if not os.access(real, os.X_OK):
            raise errors.UserError(
                f"BAZEL_REAL: expected the path of a Bazel program, found '{real}', which cannot be run. Unset it."
            )
        return real, "BAZEL_REAL"
    ourselves = os.path.join(ROOT, "tools", "bazel")
    for name in ("bazelisk", "bazel"):
        for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
            path = os.path.join(folder or ".", name)
            if os.access(path, os.X_OK) and os.path.isfile(path) and not os.path.samefile(path, ourselves):
                if _version_of(path) == version:
                    return path, "PATH"
    return None


def _version_of(path: str) -> str:
    """What `<path> --version` says, remembered for an hour."""
    status = os.stat(path)
    key = f"{os.path.realpath(path)} {status.st_mtime_ns} {status.st_size} {wanted_version()}"
    known = remembered("version", key)
    if known is None:
        from . import probe

        known = probe.bazel_version(path, ROOT)
        remember("version", key, known)
    return known
