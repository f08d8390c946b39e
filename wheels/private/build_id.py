"""Prints a build id: eight hex digits of a hash over everything that decides the bytes of wheels' own libraries.

    python3 build_id.py ROOT '{"files": ["toolchains/cc"], "debian": ["cc"], "requirements": ["apache-tvm"], "sources": [], "crates": []}'

Files, and all files of folders, count with name and content. Of the locks only the named entries count, so that a new pytest changes no wheel: sets of
Debian packages and of crates, distributions, source archives.
Standard library only: a repository rule runs it with whatever Python 3 the machine has.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import re
import sys

# Not read by a build.
IGNORED = (".md", ".pyc")


def entries(root: pathlib.Path, inputs: dict[str, list[str]]) -> list[str]:
    """The lines that are hashed, in order.

    Args:
        root: the workspace.
        inputs: what counts, by kind: "files", "debian", "requirements", "sources", "crates".

    Raises:
        KeyError: a lock lacks an entry that the libraries are made of, or a kind is missing.
    """
    lines = []
    for name in inputs["files"]:
        place = root / name
        for file in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if file.is_file() and file.suffix not in IGNORED:
                lines.append(f"{file.relative_to(root).as_posix()} {hashlib.sha256(file.read_bytes()).hexdigest()}")
    for kind, content in (("debian", "packages"), ("crates", "crates")):
        if inputs[kind]:
            lock = _lock(root, f"{kind}.lock.json")
            lines += [f"{key} {lock[content][key]['sha256']}" for name in inputs[kind] for key in lock["sets"][name]]
    requirements = (root / "locks/requirements.lock.txt").read_text(encoding="utf-8").replace("\\\n", " ")
    locked = {line.split("==")[0]: line for line in requirements.splitlines() if "==" in line}
    lines += [f"{name} {' '.join(sorted(re.findall('--hash=sha256:([0-9a-f]+)', locked[name])))}" for name in inputs["requirements"]]
    if inputs["sources"]:
        sources = _lock(root, "sources.lock.json")["sources"]
        lines += [f"{name} {sources[name]['sha256']}" for name in inputs["sources"]]
    return lines


def _lock(root: pathlib.Path, name: str) -> dict:
    return json.loads((root / "locks" / name).read_text(encoding="utf-8"))


def main() -> int:
    root, inputs = sys.argv[1:]
    try:
        lines = entries(pathlib.Path(root), json.loads(inputs))
    except (OSError, KeyError, ValueError) as error:
        print(f"build_id: {type(error).__name__}: {error}; restore the locks: git checkout locks", file=sys.stderr)
        return 1
    print(hashlib.sha256("\n".join(lines).encode()).hexdigest()[:8])
    return 0


if __name__ == "__main__":
    sys.exit(main())
