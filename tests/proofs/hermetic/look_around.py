"""Reports what a build action sees of the machine: files, environment, network. build.py runs it as an action."""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import socket

# The kernel's folders differ in every process.
KERNEL = ("/dev", "/proc", "/sys")


def files(within: list[str]) -> list[str]:
    """Every file outside the folders `within` and the kernel's."""
    found = []
    for folder, folders, names in os.walk("/"):
        folders[:] = [name for name in folders if os.path.join(folder, name) not in [*KERNEL, *within]]
        found += [os.path.join(folder, name) for name in names]
    return sorted(found)


def reaches(port: int) -> bool:
    """Whether a server on this machine's loopback interface answers."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=pathlib.Path, help="JSON file to write")
    parser.add_argument("--run", required=True, help="number of this run, so that Bazel runs the action again")
    parser.add_argument("--port", type=int, required=True, help="port of a server on the machine's loopback interface")
    parser.add_argument("--ask", action="append", default=[], help="also report whether this file exists")
    options = parser.parse_args()
    # The sandbox's top folder, which holds what the action declared.
    own = "/" + pathlib.Path.cwd().parts[1]
    seen = {
        "environment": dict(os.environ),
        "files": files([own]) if own == "/execroot" else None,
        "interfaces": [name for _, name in socket.if_nameindex()],
        "reaches": reaches(options.port),
        "there": [path for path in options.ask if os.path.exists(path)],
    }
    options.output.write_text(json.dumps(seen, indent=2))


if __name__ == "__main__":
    main()
