"""Prints the build id: eight hex digits of a hash over everything that decides the bytes of the wheels' own libraries.

    python3 build_id.py ROOT FILE_OR_FOLDER ...

Files count with name and content. Of the locks only the entries that reach the libraries count, so that a new pytest changes no wheel.
Standard library only: a repository rule runs it with whatever Python 3 the machine has.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import re
import sys

# Distributions in the requirements lock whose wheels are sources of this build.
SOURCES = ("apache-tvm", "apache-tvm-ffi")

# Sets of Debian packages that compile them, or are compiled into them.
DEBIAN_SETS = ("cc", "cxx_headers", "rust")

# Not read by a build.
IGNORED = (".md", ".pyc")


def entries(root: pathlib.Path, names: list[str]) -> list[str]:
    """The lines that are hashed, in order.

    Raises:
        KeyError: a lock lacks an entry that the libraries are made of.
    """
    lines = []
    for name in names:
        place = root / name
        for file in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if file.is_file() and file.suffix not in IGNORED:
                lines.append(f"{file.relative_to(root).as_posix()} {hashlib.sha256(file.read_bytes()).hexdigest()}")
    debian = json.loads((root / "locks/debian.lock.json").read_text(encoding="utf-8"))
    lines += [f"{key} {debian['packages'][key]['sha256']}" for name in DEBIAN_SETS for key in debian["sets"][name]]
    requirements = (root / "locks/requirements.lock.txt").read_text(encoding="utf-8").replace("\\\n", " ")
    locked = {line.split("==")[0]: line for line in requirements.splitlines() if "==" in line}
    lines += [f"{name} {' '.join(sorted(re.findall('--hash=sha256:([0-9a-f]+)', locked[name])))}" for name in SOURCES]
    return lines


def main() -> int:
    root, *names = sys.argv[1:]
    try:
        lines = entries(pathlib.Path(root), names)
    except (OSError, KeyError, ValueError) as error:
        print(f"build_id: {type(error).__name__}: {error}; restore the locks: git checkout locks", file=sys.stderr)
        return 1
    print(hashlib.sha256("\n".join(lines).encode()).hexdigest()[:8])
    return 0


if __name__ == "__main__":
    sys.exit(main())
