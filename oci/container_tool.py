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
    "runc": ["--version"],
}

# How long a probe may take; podman repairs its storage first, if it must.
_SECONDS = 120

# Tools that store images; runc only runs an unpacked one.
ENGINES = ("podman", "docker")

_REMEDY = "install one (Debian: apt-get install podman) or start Docker's daemon"
_VARIABLE = "MLC_CONTAINER_TOOL"


class NoTool(Exception):
    """No container tool can be used; the message says which were tried."""


def find(candidates: tuple[str, ...], wanted: str | None = None) -> tuple[str, str]:
    """The first tool that works: its name and path.

    Args:
        candidates: names, best first.
        wanted: accept only this one (default: $MLC_CONTAINER_TOOL, otherwise any).

    Raises:
        NoTool: none works.
    """
    wanted = wanted or os.environ.get(_VARIABLE)
    if wanted and wanted not in candidates:
        raise NoTool(f"expected {' or '.join(candidates)} as the container tool, found {wanted!r}")
    tried = []
    for name in [wanted] if wanted else candidates:
        path = shutil.which(name)
        if not path:
            tried.append(f"{name}: not on PATH")
            continue
        try:
            programs.run([path, *_PROBES[name]], seconds=_SECONDS)
            return name, path
        except programs.ProgramError as error:
            tried.append(f"{name}: {(error.said.strip().splitlines() or ['fails'])[-1]}")
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
        _, path = find(ENGINES)
    except NoTool as error:
        print(f"load: {error}", file=sys.stderr)
        return 1
    # Replace this process: the image may come through a pipe that the caller opened.
    os.execv(path, [path, *sys.argv[1:]])
    return 0


if __name__ == "__main__":
    sys.exit(main())
