"""Updates locks/debian.lock.json: resolves the sets of locks/debian.packages.json against Debian's signed indexes.

    tools/bazel run //locks:update_debian              # write the lock
    tools/bazel run //locks:update_debian -- --check   # only compare: exit status 1 if it would change

Each set takes the newest version among its suite, the suite's point-release updates and its security archive. The lock
names versions, hashes and pool paths, never a host: mirrors come from the machine (fetch/debian/archive.py).

A set is of amd64. One with "architectures" is resolved for each, and the others get a set of their own: image_base and
image_base_arm64, whose packages are called bookworm/bash:arm64, as apt does.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # the workspace root, so that this also runs without Bazel

from fetch import errors, lock_file, locks
from fetch.debian import archive as debian

ASKED = "debian.packages.json"
LOCK = locks.DEBIAN_LOCK


# What a set is for by default; it adds nothing to names.
DEFAULT_ARCHITECTURE = "amd64"

# How the names of packages spell an architecture that they are for: {gnu} in debian.packages.json.
GNU = {"amd64": "x86-64-linux-gnu", "arm64": "aarch64-linux-gnu"}


def architectures(wanted: dict[str, Any]) -> list[str]:
    """Those that a set is resolved for."""
    return wanted.get("architectures", [DEFAULT_ARCHITECTURE])


def suite_index(suite: str, architecture: str) -> debian.Index:
    """The suite with its updates and security fixes, in the newest version of each package."""
    print(f"reading the indexes of {suite} for {architecture} …", file=sys.stderr)
    index = debian.fetch_index(suite, architecture=architecture)
    for extra, archive in ((f"{suite}-updates", "debian"), (f"{suite}-security", "debian-security")):
        index = index.merge(debian.fetch_index(extra, archive, architecture=architecture))
    return index


def resolve_sets(asked: dict[str, Any], indexes: dict[tuple[str, str], debian.Index]) -> dict[str, Any]:
    """The lock's content.

    Args:
      asked: the content of debian.packages.json.
      indexes: suite and architecture → its packages.

    Returns:
      {"sets": {set: ["<suite>/<package>", …]}, "packages": {"<suite>/<package>": {…}}}, sorted.
    """
    sets: dict[str, list[str]] = {}
    packages: dict[str, dict[str, Any]] = {}
    each = ((name, wanted, at) for name, wanted in asked["sets"].items() for at in architectures(wanted))
    for name, wanted, architecture in each:
        suite = wanted["suite"]
        suffix = "" if architecture == DEFAULT_ARCHITECTURE else f"_{architecture}"
        exclude = {*asked["exclude"], *wanted.get("exclude", {})}
        below = {key for lower in wanted.get("on_top_of", []) for key in sets[lower + suffix]}
        roots = [package.replace("{gnu}", GNU[architecture]) for package in wanted["packages"]]
        chosen = debian.resolve(indexes[suite, architecture], roots, exclude=exclude)
        keys = {
            f"{suite}/{package.name}"
            + ("" if package.architecture in (DEFAULT_ARCHITECTURE, "all") else f":{architecture}"): package
            for package in chosen
        }
        name += suffix
        sets[name] = [key for key in keys if key not in below]
        for key, package in keys.items():
            if (known := packages.get(key)) and known["sha256"] != package.sha256:
                raise errors.UserError(
                    f"{key}: expected one version for all architectures, found {known['version']} and"
                    f" {package.version}: a mirror is being updated; run again later"
                )
            packages[key] = {
                "version": package.version,
                "sha256": package.sha256,
                "size": package.size,
                "path": package.path,
                "archive": package.archive,
            }
            # Vulnerability data names source versions: usually the package's without Debian's rebuild suffix.
            if (source_version := package.source[1]) != re.sub(r"\+b\d+$", "", package.version):
                packages[key]["source_version"] = source_version
        total = sum(packages[key]["size"] for key in sets[name])
        print(f"  {name}: {len(sets[name])} packages, {total / 1e6:.1f} MB", file=sys.stderr)
    return {"sets": dict(sorted(sets.items())), "packages": dict(sorted(packages.items()))}


def main() -> int:
    options = lock_file.parse_arguments(__doc__)
    asked = lock_file.read_json(ASKED)
    wanted = sorted({(each["suite"], at) for each in asked["sets"].values() for at in architectures(each)})
    lock = resolve_sets(
        asked, {(suite, architecture): suite_index(suite, architecture) for suite, architecture in wanted}
    )
    return lock_file.write(LOCK, lock_file.as_json(lock), check=options.check, command="//locks:update_debian")


if __name__ == "__main__":
    lock_file.run(main)
