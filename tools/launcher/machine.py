"""The workspace, and the launcher's cache folder. Imports little, because every run pays for it."""

from __future__ import annotations

import json
import os
import sys
import time

from fetch import errors, folders

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
# How long `remembered` returns what a probe of the network or of a program found.
KEPT_SECONDS = 3600


def say(line: str) -> None:
    """Prints one line on standard error, apart from Bazel's output and without passwords."""
    print("tools/bazel: " + errors.redact(line), file=sys.stderr, flush=True)


# Returns the folder that the launcher installs into.
cache_folder = folders.cache


def wanted_version() -> str:
    """Returns the version in .bazelversion."""
    path = os.path.join(ROOT, ".bazelversion")
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().split()[0]
    except (OSError, IndexError) as error:
        raise errors.UserError(
            f"{path}: expected a version of Bazel, found none ({error}). Restore it: git checkout .bazelversion"
        ) from error


def remembered(name: str, key: str) -> Any:
    """Returns what `remember` stored for this name and key within the last hour, else None."""
    return _memory(name).get(key, {}).get("value")


def _memory(name: str) -> dict[str, Any]:
    try:
        with open(os.path.join(cache_folder(), name + ".json"), encoding="utf-8") as file:
            known = json.load(file)
        return {key: entry for key, entry in known.items() if 0 <= time.time() - entry["time"] < KEPT_SECONDS}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, folders.NoCacheError):
        return {}


def remember(name: str, key: str, value: Any) -> None:
    """Stores a result for later runs. Failing to write the cache is not an error."""
    try:
        path = os.path.join(cache_folder(), name + ".json")
        temporary = f"{path}.{os.getpid()}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump({**_memory(name), key: {"value": value, "time": time.time()}}, file)
        os.replace(temporary, path)
    except (OSError, folders.NoCacheError):
        pass


def is_writable(folder: str) -> bool:
    """Says whether this user can write to a folder, or create it."""
    while not os.path.lexists(folder) and os.path.dirname(folder) != folder:
        folder = os.path.dirname(folder)
    return os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)
