"""Updates locks/sources.lock.json: file name, size and hash of the source archives in locks/sources.packages.json.

    tools/bazel run //locks:update_sources              # write the lock
    tools/bazel run //locks:update_sources -- --check   # only compare: exit status 1 if it would change

The index that this machine's pip is set up with is asked (tools/launcher/pypi.py); the lock names none.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))  # the workspace root, so that the file also runs without Bazel

from locks import lock_file
from tools.launcher import pypi

ASKED = "sources.packages.json"
LOCK = "sources.lock.json"


def source_archive(project: str, version: str, files: list[dict[str, Any]]) -> dict[str, Any]:
    """The lock's entry for one source distribution.

    Args:
      files: what the index has of the project, as `pypi.files` lists it.
    """
    # PEP 625: runs of "-", "_" and "." in the name become one "_".
    name = f"{project.replace('-', '_').replace('.', '_').lower()}-{version}.tar.gz"
    found = [file for file in files if file["filename"] == name]
    if not found or "sha256" not in found[0]["hashes"]:
        sys.exit(f"{project} {version}: expected {name} with its sha256 in the index, found neither or only one; see locks/{ASKED}")
    return {"registry": "pypi", "version": version, "file": name, "size": found[0].get("size"), "sha256": found[0]["hashes"]["sha256"]}


def main() -> int:
    options = lock_file.parse_arguments(__doc__)
    lock = {}
    for project, wanted in sorted(lock_file.read_json(ASKED)["sources"].items()):
        print(f"asking the index for {project} {wanted['version']} …", file=sys.stderr)
        lock[project] = source_archive(project, wanted["version"], pypi.files(project))
    return lock_file.write(LOCK, lock_file.as_json({"sources": lock}), check=options.check, command="//locks:update_sources")


if __name__ == "__main__":
    sys.exit(main())
