"""Finds a container tool that works on this machine.

Run as a program, it replaces itself with that tool; every oci_load here has it as its `loader`.
"""

from __future__ import annotations

import os
import shutil
import sys

from fetch import programs

# Commands that show whether a tool works; Docker's client is often installed without its daemon.
_PROBES = {
    "podman": ["info"],
    "docker": ["version", "--format", "{{.Server.Os}}"],
}

# How long a probe may take; podman repairs its storage first, if it must.
_SECONDS = 120

# Best first.
ENGINES = ("podman", "docker")

_REMEDY = "install one (Debian: apt-get install podman) or start Docker's daemon"
_VARIABLE = "MLC_CONTAINER_TOOL"


class NoTool(Exception):
    """No container tool can be used; the message says which were tried."""


def find(wanted: str | None = None, otherwise: str | None = None) -> tuple[str, str]:
    """The first engine that works: its name and path.

    Args:
        wanted: accept only this one (default: $MLC_CONTAINER_TOOL, otherwise any).
        otherwise: what the caller has in place of an engine, by a name that may be wanted too. It has no path.

    Raises:
        NoTool: none works, and there is nothing in its place.
    """
    wanted = wanted or os.environ.get(_VARIABLE)
    if otherwise and wanted == otherwise:
        return otherwise, ""
    if wanted and wanted not in ENGINES:
        known = [*ENGINES, *([otherwise] if otherwise else [])]
        raise NoTool(f"expected {' or '.join(known)} as the container tool, found {wanted!r}")
    tried = []
    for name in [wanted] if wanted else ENGINES:
        path = shutil.which(name)
        if not path:
            tried.append(f"{name}: not on PATH")
            continue
        try:
            programs.run([path, *_PROBES[name]], seconds=_SECONDS)
            return name, path
        except programs.ProgramError as error:
            tried.append(f"{name}: {(error.said.strip().splitlines() or ['fails'])[-1]}")
    if otherwise and not wanted:
        return otherwise, ""
    raise NoTool(f"no container tool works here ({'; '.join(tried)}): {_REMEDY}")


def environment(tool: str) -> dict[str, str]:
    """The environment in which an oci_load target loads into this tool."""
    return {
        **os.environ,
        _VARIABLE: tool,
        "RUNFILES_DIR": os.environ.get("RUNFILES_DIR") or os.path.dirname(os.getcwd()),
    }


def main() -> int:
    try:
        _, path = find()
    except NoTool as error:
        print(f"load: {error}", file=sys.stderr)
        return 1
    # Replace this process: the image may come through a pipe that the caller opened.
    os.execv(path, [path, *sys.argv[1:]])
    return 0


if __name__ == "__main__":
    sys.exit(main())
