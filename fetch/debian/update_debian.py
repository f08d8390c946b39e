"""Updates locks/debian.lock.json: resolves the sets of locks/debian.packages.json against Debian's signed indexes.

    tools/bazel run //locks:update_debian              # write the lock
    tools/bazel run //locks:update_debian -- --check   # only compare: exit status 1 if it would change

Each set takes the newest version among its suite, the suite's point-release updates and its security archive. The lock
names versions, hashes and pool paths, never a host: mirrors come from the machine (fetch/debian/archive.py).
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # the workspace root, so that this also runs without Bazel

from fetch import lock_file, locks
from fetch.debian import archive as debian

ASKED = "debian.packages.json"
LOCK = locks.DEBIAN_LOCK


def suite_index(suite: str) -> debian.Index:
    """The suite with its updates and security fixes, in the newest version of each package."""
    print(f"reading the indexes of {suite} …", file=sys.stderr)
    index = debian.fetch_index(suite)
    for extra, archive in ((f"{suite}-updates", "debian"), (f"{suite}-security", "debian-security")):
        index = index.merge(debian.fetch_index(extra, archive))
    return index


def resolve_sets(asked: dict[str, Any], indexes: dict[str, debian.Index]) -> dict[str, Any]:
    """The lock's content.

    Args:
      asked: the content of debian.packages.json.
      indexes: suite name → its packages.

    Returns:
      {"sets": {set: ["<suite>/<package>", …]}, "packages": {"<suite>/<package>": {…}}}, sorted.
    """
    sets: dict[str, list[str]] = {}
    packages: dict[str, dict[str, Any]] = {}
    for name, wanted in asked["sets"].items():
        suite = wanted["suite"]
        exclude = {*asked["exclude"], *wanted.get("exclude", {})}
        below = {key for lower in wanted.get("on_top_of", []) for key in sets[lower]}
        chosen = debian.resolve(indexes[suite], wanted["packages"], exclude=exclude)
        sets[name] = [key for package in chosen if (key := f"{suite}/{package.name}") not in below]
        for package in chosen:
            packages[f"{suite}/{package.name}"] = {
                "version": package.version,
                "sha256": package.sha256,
                "size": package.size,
                "path": package.path,
                "archive": package.archive,
            }
            # Vulnerability data names source versions: usually the package's without Debian's rebuild suffix.
            if (source_version := package.source[1]) != re.sub(r"\+b\d+$", "", package.version):
                packages[f"{suite}/{package.name}"]["source_version"] = source_version
        total = sum(packages[key]["size"] for key in sets[name])
        print(f"  {name}: {len(sets[name])} packages, {total / 1e6:.1f} MB", file=sys.stderr)
    return {"sets": dict(sorted(sets.items())), "packages": dict(sorted(packages.items()))}


def main() -> int:
    options = lock_file.parse_arguments(__doc__)
    asked = lock_file.read_json(ASKED)
    suites = sorted({wanted["suite"] for wanted in asked["sets"].values()})
    lock = resolve_sets(asked, {suite: suite_index(suite) for suite in suites})
    return lock_file.write(LOCK, lock_file.as_json(lock), check=options.check, command="//locks:update_debian")


if __name__ == "__main__":
    lock_file.run(main)
