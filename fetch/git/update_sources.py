"""Updates locks/sources.lock.json: pins the archives, jars and git commits in locks/sources.packages.json by hash.

    tools/bazel run //locks:update_sources              # write the lock
    MLC_SOURCES=FOLDER tools/bazel run //locks:update_sources
    tools/bazel run //locks:update_sources -- --check   # only compare: exit status 1 if it would change

For archives the lock has file name, size and hash, from the index that this machine's pip is configured with
(fetch/pypi/index.py); for jars the same, of the repository that Maven uses (fetch/maven/repository.py). For git
repositories it has the hash of the named paths at the commit (fetch/git/checkout.py), from the checkouts in
MLC_SOURCES, else from upstream. If neither answers, an entry with unchanged commit and paths stays, and a line says
that it was not verified.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # the workspace root, so that this also runs without Bazel

from fetch import download, hashes, lock_file, locks
from fetch.git import checkout
from fetch.maven import repository as maven
from fetch.pypi import index as pypi

ASKED = "sources.packages.json"
LOCK = locks.SOURCES_LOCK


def source_archive(project: str, version: str, files: list[dict[str, Any]]) -> dict[str, Any]:
    """The lock's entry for one source distribution.

    Args:
      files: what the index has of the project, as `pypi.files` lists it.
    """
    # PEP 625: runs of "-", "_" and "." in the name become one "_".
    name = f"{project.replace('-', '_').replace('.', '_').lower()}-{version}.tar.gz"
    found = [file for file in files if file["filename"] == name]
    if not found or "sha256" not in found[0]["hashes"]:
        sys.exit(
            f"{project} {version}: expected {name} with its sha256 in the index, found neither or only one; see"
            f" locks/{ASKED}"
        )
    return {
        "registry": "pypi",
        "version": version,
        "file": name,
        "size": found[0].get("size"),
        "sha256": found[0]["hashes"]["sha256"],
    }


def jar(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The lock's entry for one jar.

    Args:
      wanted: its entry in sources.packages.json.
    """
    entry = {key: wanted[key] for key in ("registry", "group", "artifact", "version", "classifier")}
    path = maven.path_of(entry)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "jar")
        download.save(f"{maven.base_url(Path(os.environ['MAVEN']))}/{path}", file)
        return {
            **entry,
            "path": path,
            "file": path.rpartition("/")[2],
            "size": file.stat().st_size,
            "sha256": hashes.file_sha256(file),
        }


def git_source(name: str, wanted: Mapping[str, Any], locked: Mapping[str, Any], checkouts: str) -> dict[str, Any]:
    """The lock's entry for the named paths of one commit.

    Args:
      wanted: its entry in sources.packages.json.
      locked: its entry in the lock so far; empty if it has none.
      checkouts: the folder with a checkout <name>; empty if there is none.
    """
    entry = {key: wanted[key] for key in ("registry", "repository", "commit", "paths")}
    try:
        return {**entry, "sha256": checkout.sha256(checkout.from_anywhere(checkout.from_entry(name, entry), checkouts))}
    except checkout.SourceError as error:
        if entry != {key: value for key, value in locked.items() if key != "sha256"}:
            sys.exit(str(error))
        print(f"not verified, kept as locked: {error}", file=sys.stderr)
        return dict(locked)


def main() -> int:
    options = lock_file.parse_arguments(__doc__)
    locked = lock_file.read_json(LOCK)["sources"]
    checkouts = checkout.folder_of_checkouts(lock_file.folder().parent)
    lock = {}
    for name, wanted in sorted(lock_file.read_json(ASKED)["sources"].items()):
        if wanted["registry"] == "git":
            print(f"taking {name} {wanted['commit']} …", file=sys.stderr)
            lock[name] = git_source(name, wanted, locked.get(name, {}), checkouts)
        elif wanted["registry"] == "maven":
            print(f"downloading {name} {wanted['version']} …", file=sys.stderr)
            lock[name] = jar(wanted)
        else:
            print(f"asking the index for {name} {wanted['version']} …", file=sys.stderr)
            lock[name] = source_archive(name, wanted["version"], pypi.files(name))
    return lock_file.write(
        LOCK, lock_file.as_json({"sources": lock}), check=options.check, command="//locks:update_sources"
    )


if __name__ == "__main__":
    lock_file.run(main)
