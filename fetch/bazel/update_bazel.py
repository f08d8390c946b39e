"""Updates the locks of what tools/bazel assembles Bazel from on a machine that has none: bazel.lock.json and
bazel_arm64.lock.json.

    tools/bazel run //locks:update_bazel              # write the locks
    tools/bazel run //locks:update_bazel -- --check   # only compare: exit status 1 if it would change

Takes the Debian packages of the version in .bazelversion from the first suite in locks/bazel.packages.json whose signed
index has it, and the newest wheel of each project there for Linux. A wheel is downloaded once to check its hash.
Releases refuse a Bazel that is not the lock's, so commit the result when Debian replaces a package.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # the workspace root, so that this also runs without Bazel

from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from fetch import lock_file
from fetch.bazel import hosts, packages
from fetch.debian import archive as debian
from fetch.pypi import index as pypi


def newest(listed: list[dict[str, Any]], processor: str) -> tuple[str, str, str]:
    """Returns version, file name and sha256 of the newest suitable wheel.

    Args:
      listed: the files of a project as the index lists them.
      processor: as `uname -m` calls it.

    Raises:
      ValueError: there is none.
    """
    # glibc's or musl's: the launcher needs only the programs in it.
    suitable = re.compile(rf"py3-none-.*manylinux[0-9a-z_]*_{processor}")
    found = []
    for file in listed:
        try:
            _, version, build, _ = parse_wheel_filename(file["filename"])
        except InvalidWheelFilename:
            continue
        if suitable.search(file["filename"]) and not version.is_prerelease and not file.get("yanked"):
            found.append((version, build, file["filename"], file["hashes"]["sha256"]))
    version, _, filename, sha256 = max(found)
    return str(version), filename, sha256


def locked_package(package: debian.Package) -> dict[str, Any]:
    """Returns the lock's entry of a package."""
    entry: dict[str, Any] = {
        "version": package.version,
        "sha256": package.sha256,
        "size": package.size,
        "path": package.path,
        "archive": package.archive,
    }
    # Vulnerability data names source packages.
    source, version = package.source
    if source != package.name:
        entry["source"] = source
    if version != package.version:
        entry["source_version"] = version
    return entry


def resolve(version: str, wanted: dict[str, Any], host: hosts.Host) -> dict[str, Any]:
    """Returns the content of a machine's lock."""
    chosen = packages.from_index(version, wanted, host, lambda line: print(line, file=sys.stderr))
    wheels = {}
    with tempfile.TemporaryDirectory() as scratch:
        for project in wanted["wheels"]:
            try:
                of, filename, sha256 = newest(pypi.files(project), host.processor)
            except ValueError as error:
                raise packages.BazelError(f"{project}: expected a wheel for Linux on {host}, found none") from error
            size = pypi.fetch(project, filename, sha256, Path(scratch, filename)).stat().st_size
            wheels[filename] = {"project": project, "version": of, "sha256": sha256, "size": size}
    print(f"  {host.lock}: {len(chosen)} packages, {len(wheels)} wheels", file=sys.stderr)
    return {
        "bazel": version,
        "packages": {f"{package.suite}/{package.name}": locked_package(package) for package in chosen},
        "wheels": dict(sorted(wheels.items())),
    }


def main() -> int:
    options = lock_file.parse_arguments(__doc__)
    folder = lock_file.folder()
    version = (folder.parent / ".bazelversion").read_text(encoding="utf-8").split()[0]
    asked = packages.asked(folder)
    found = [(host.lock, resolve(version, asked, host)) for host in hosts.HOSTS.values()]
    return max(
        lock_file.write(name, lock_file.as_json(lock), check=options.check, command="//locks:update_bazel")
        for name, lock in found
    )


if __name__ == "__main__":
    lock_file.run(main)
