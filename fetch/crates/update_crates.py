"""Updates locks/crates.lock.json: every crate in the Cargo.lock files that locks/crates.packages.json names, by hash.

    tools/bazel run //locks:update_crates              # write the lock
    tools/bazel run //locks:update_crates -- --check   # only compare: exit status 1 if it would change

Needs no registry: the Cargo.lock files have what cargo chose. A crate's key is <series>/<name>; a series is a set of
versions that Cargo considers compatible: 1 for 1.4.2, 0.3 for 0.3.1. A Cargo.lock has one version of each series.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import tomllib

sys.path.insert(0, str(Path(__file__).parents[2]))  # the workspace root, so that this also runs without Bazel

from fetch import lock_file, locks

ASKED = "crates.packages.json"
LOCK = locks.CRATES_LOCK

# Cargo.lock's name for cargo's default registry; a configured mirror does not change it.
DEFAULT_REGISTRY = "registry+https://github.com/rust-lang/crates.io-index"


def series(version: str) -> str:
    """The common part of the versions that Cargo considers compatible (The Cargo Book, "Default requirements").

    >>> series("1.4.2"), series("0.3.1"), series("0.0.7")
    ('1', '0.3', '0.0.7')
    """
    numbers = version.split("+")[0].split("-")[0].split(".")
    significant = next((index for index, number in enumerate(numbers) if number != "0"), len(numbers) - 1)
    return ".".join(numbers[: significant + 1])


def crates(text: str, name: str) -> dict[str, dict[str, str]]:
    """The lock's entries for one Cargo.lock (version 4), without the package that it is of: key → name, version,
    sha256.

    Args:
      text: its content.
      name: its path, for messages.
    """
    found = {}
    for package in tomllib.loads(text)["package"]:
        if "source" not in package:
            continue
        what = f"{name}: {package['name']} {package['version']}"
        if package["source"] != DEFAULT_REGISTRY or "checksum" not in package:
            sys.exit(
                f"{what}: expected a crate of the default registry with its checksum, found {package['source']}: depend"
                " on a released crate"
            )
        key = f"{series(package['version'])}/{package['name']}"
        found[key] = {"name": package["name"], "version": package["version"], "sha256": package["checksum"]}
    return found


def locked(asked: dict[str, Any], workspace: Path) -> dict[str, Any]:
    """The lock's content: sets and crates, both sorted."""
    sets: dict[str, list[str]] = {}
    together: dict[str, dict[str, str]] = {}
    for name, one in sorted(asked["sets"].items()):
        path = workspace / one["lock"]
        if not path.exists():
            sys.exit(f"locks/{ASKED}: set '{name}': expected {one['lock']}, found no such file")
        entries = crates(path.read_text(encoding="utf-8"), one["lock"])
        for key, entry in entries.items():
            if together.setdefault(key, entry) != entry:
                sys.exit(
                    f"{one['lock']}: expected {entry['name']} {together[key]['version']} as in another set, found"
                    f" {entry['version']}: cargo update {entry['name']}@{entry['version']} --precise"
                    f" {together[key]['version']}"
                )
        sets[name] = sorted(entries)
    return {"sets": sets, "crates": dict(sorted(together.items()))}


def main() -> int:
    options = lock_file.parse_arguments(__doc__)
    content = locked(lock_file.read_json(ASKED), lock_file.folder().parent)
    return lock_file.write(LOCK, lock_file.as_json(content), check=options.check, command="//locks:update_crates")


if __name__ == "__main__":
    lock_file.run(main)
