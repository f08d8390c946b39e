"""Reads the locks: every Debian package, PyPI distribution, source and Rust crate that a build takes, with version, hash and licence.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packageurl import PackageURL

CRATE, DEBIAN, PYPI, SOURCE = "crate", "debian", "pypi", "source"

CRATES_LOCK = "crates.lock.json"
DEBIAN_LOCK = "debian.lock.json"
REQUIREMENTS_LOCK = "requirements.lock.txt"
SOURCES_LOCK = "sources.lock.json"
LICENSES_LOCK = "licenses.lock.json"
LOCKS = (CRATES_LOCK, DEBIAN_LOCK, REQUIREMENTS_LOCK, SOURCES_LOCK, LICENSES_LOCK)

# The lock that pins an ecosystem, and the ecosystem's section in the licences' lock.
_LOCK_OF = {CRATE: CRATES_LOCK, DEBIAN: DEBIAN_LOCK, PYPI: REQUIREMENTS_LOCK, SOURCE: SOURCES_LOCK}
LICENSES_SECTION = {CRATE: "crates", DEBIAN: "debian", PYPI: "pypi", SOURCE: "sources"}

_GITHUB = "https://github.com/"

# Which locked inputs a wheel of this build is made of: as fetch/pypi/extension.bzl unpacks them, and as wheels/build_id.bzl counts them.
# The first is the one that declares its licence. Without git sources (`without_git_sources`) those are none.
WHEEL_SOURCES: dict[str, tuple[tuple[str, str], ...]] = {
    "apache-tvm": ((PYPI, "apache-tvm"), (SOURCE, "tilelang")),
    # The device runtime is compiled from the source tvm; without git sources it is the one of PyPI's apache-tvm.
    "apache-tvm-cuda": ((PYPI, "apache-tvm"), (SOURCE, "tilelang"), (SOURCE, "tvm")),
    "apache-tvm-ffi": ((PYPI, "apache-tvm-ffi"),),
    "mlc-llm": ((SOURCE, "mlc-llm"), (SOURCE, "sentencepiece"), (SOURCE, "tokenizers-cpp"), (SOURCE, "xgrammar")),
}

# Sets of crates and Debian packages that are compiled into a wheel.
WHEEL_SETS: dict[str, tuple[tuple[str, str], ...]] = {
    "mlc-llm": ((CRATE, "tokenizers_cpp"), (DEBIAN, "cxx_headers")),
}

# What a build takes only if it makes a wheel, and the wheel does not contain: its compiler, and libraries that it calls.
WHEEL_TOOLS: dict[str, tuple[tuple[str, str], ...]] = {
    "apache-tvm-cuda": (
        (PYPI, "nvidia-cublas"),
        (PYPI, "nvidia-cuda-cccl"),
        (PYPI, "nvidia-cuda-crt"),
        (PYPI, "nvidia-cuda-nvcc"),
        (PYPI, "nvidia-cuda-runtime"),
        (PYPI, "nvidia-cudnn-cu13"),
        (PYPI, "nvidia-curand"),
        (PYPI, "nvidia-nccl-cu13"),
        (PYPI, "nvidia-nvtx"),
        (PYPI, "nvidia-nvvm"),
    ),
}

# The same of sets of crates and Debian packages.
WHEEL_TOOL_SETS: dict[str, tuple[tuple[str, str], ...]] = {
    "apache-tvm-cuda": ((DEBIAN, "cuda"),),
}


class InputsError(Exception):
    """The locks contradict each other or the build; one line that names the lock and the command that mends it."""


@dataclasses.dataclass(frozen=True)
class Input:
    """One thing from outside that the build takes.

    Args:
        ecosystem: "crate", "debian", "pypi" or "source".
        name: as its lock has it: without suite; PyPI names normalized (PEP 503).
        version: as its lock has it, with Debian's epoch; the commit of a git repository.
        sha256: of the file or files that the lock accepts, or of a commit's content (fetch/git/checkout.py); lower-case
            hexadecimal, sorted.
        license: SPDX 2.3 licence expression (annex D); empty only where none has been asked for.
        purl: package URL.
        uses: the sets of locks/debian.packages.json or locks/crates.packages.json that take it; empty for other ecosystems.
        suite: Debian's; of a crate the series of compatible versions (fetch/crates/update_crates.py), of which there may be two; else empty.
    """

    ecosystem: str
    name: str
    version: str
    sha256: tuple[str, ...]
    license: str
    purl: str
    uses: tuple[str, ...] = ()
    suite: str = ""

    @property
    def identity(self) -> tuple[str, str, str]:
        """What stays the same when the version changes."""
        return self.ecosystem, self.name, self.suite

    @property
    def key(self) -> str:
        """Its key in its lock and in the licences' lock."""
        return f"{self.suite}/{self.name}" if self.suite else self.name

    @property
    def from_git(self) -> bool:
        """Whether it is a commit of a git repository."""
        return self.ecosystem == SOURCE and not self.purl.startswith("pkg:pypi/")


def pinned(locks: Mapping[str, Path]) -> list[Input]:
    """All inputs as the locks pin them, without licences.

    Args:
        locks: file name (all of `LOCKS` but the licences') → where it is.

    Raises:
        InputsError: a lock is missing or cannot be read.
    """
    found = [
        *_crates(json.loads(_read(locks, CRATES_LOCK))),
        *_debian(json.loads(_read(locks, DEBIAN_LOCK))),
        *_pypi(_read(locks, REQUIREMENTS_LOCK)),
        *_sources(json.loads(_read(locks, SOURCES_LOCK))),
    ]
    return sorted(found, key=lambda each: each.identity)


def load(locks: Mapping[str, Path]) -> list[Input]:
    """All inputs of the build with their licences, sorted.

    Args:
        locks: file name (all of `LOCKS`) → where it is.

    Raises:
        InputsError: a lock is missing, or the licences' lock has not exactly the other locks' entries and versions.
    """
    inputs = pinned(locks)
    licenses: dict[str, dict[str, dict[str, str]]] = json.loads(_read(locks, LICENSES_LOCK))
    for ecosystem, section in LICENSES_SECTION.items():
        keys = {each.key for each in inputs if each.ecosystem == ecosystem}
        for key in sorted(set(licenses.get(section, {})) - keys):
            raise _stale(f"has {section} '{key}', which locks/{_LOCK_OF[ecosystem]} has not")
    return [dataclasses.replace(each, license=_license(each, licenses)) for each in inputs]


def _license(locked: Input, licenses: Mapping[str, Mapping[str, Mapping[str, str]]]) -> str:
    section = LICENSES_SECTION[locked.ecosystem]
    entry = licenses.get(section, {}).get(locked.key)
    if entry is None:
        raise _stale(f"expected {section} '{locked.key}' {locked.version}, found no entry")
    if entry["version"] != locked.version:
        raise _stale(f"expected {section} '{locked.key}' {locked.version}, found the licence of {entry['version']}")
    return entry["license"]


def _stale(what: str) -> InputsError:
    return InputsError(f"locks/{LICENSES_LOCK}: {what}: run tools/bazel run //locks:update_licenses")


def _read(locks: Mapping[str, Path], name: str) -> str:
    if name not in locks:
        raise InputsError(f"expected locks/{name} among the locks, found {', '.join(sorted(locks)) or 'none'}: pass it with --locks")
    try:
        return locks[name].read_text(encoding="utf-8")
    except OSError as error:
        raise InputsError(f"{locks[name]}: {error.strerror}: pass the locks of this repository with --locks") from error


def _uses(lock: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """Key → the sets that have it."""
    uses: dict[str, tuple[str, ...]] = {}
    for name, keys in sorted(lock["sets"].items()):
        for key in keys:
            uses[key] = (*uses.get(key, ()), name)
    return uses


def _crates(lock: dict[str, Any]) -> list[Input]:
    uses = _uses(lock)
    found = []
    for key, entry in lock["crates"].items():
        purl = PackageURL("cargo", None, entry["name"], entry["version"]).to_string()
        series = key.partition("/")[0]
        found.append(Input(CRATE, entry["name"], entry["version"], (entry["sha256"],), "", purl, uses.get(key, ()), series))
    return found


def _debian(lock: dict[str, Any]) -> list[Input]:
    uses = _uses(lock)
    found = []
    for key, entry in lock["packages"].items():
        suite, _, name = key.partition("/")
        # Debian policy 5.6.8; a package without machine code is of the architecture "all".
        architecture = entry["path"].removesuffix(".deb").rpartition("_")[2]
        purl = PackageURL("deb", "debian", name, entry["version"], {"arch": architecture, "distro": suite})
        found.append(Input(DEBIAN, name, entry["version"], (entry["sha256"],), "", purl.to_string(), uses.get(key, ()), suite))
    return found


def _pypi(lock: str) -> list[Input]:
    found = []
    for line in lock.replace("\\\n", " ").splitlines():
        if match := re.match(r"(\S+)==(\S+) ", line):
            name, version = match.groups()
            sha256 = tuple(sorted(re.findall(r"--hash=sha256:([0-9a-f]{64})", line)))
            found.append(Input(PYPI, name, version, sha256, "", PackageURL("pypi", None, name, version).to_string()))
    return found


def _sources(lock: dict[str, Any]) -> list[Input]:
    found = []
    for name, entry in lock["sources"].items():
        if entry["registry"] == "git":
            found.append(Input(SOURCE, name, entry["commit"], (entry["sha256"],), "", _git_purl(entry["repository"], entry["commit"])))
            continue
        # The file name tells the archive from the distribution's wheels, which have the same name and version.
        purl = PackageURL(entry["registry"], None, name, entry["version"], {"file_name": entry["file"]})
        found.append(Input(SOURCE, name, entry["version"], (entry["sha256"],), "", purl.to_string()))
    return found


def _git_purl(repository: str, commit: str) -> str:
    """The package URL of a commit: of the type that purl has for GitHub, else a generic one that says where it is."""
    path = repository.removesuffix(".git")
    if path.startswith(_GITHUB):
        owner, _, name = path.removeprefix(_GITHUB).partition("/")
        return PackageURL("github", owner, name, commit).to_string()
    return PackageURL("generic", None, path.rpartition("/")[2], commit, {"vcs_url": f"git+{repository}@{commit}"}).to_string()


def sources_of(wheel: str, locked: list[Input]) -> list[Input]:
    """What a wheel of this build is made of.

    Args:
        wheel: its distribution, a key of `WHEEL_SOURCES`.
        locked: all inputs.
    """
    sets = WHEEL_SETS.get(wheel, ())
    return [
        each
        for each in locked
        if (each.ecosystem, each.name) in WHEEL_SOURCES[wheel] or any((each.ecosystem, use) in sets for use in each.uses)
    ]


def tools_of(wheel: str, locked: list[Input]) -> list[Input]:
    """What a build takes only if it makes this wheel, beside what the wheel is made of.

    Args:
        wheel: its distribution, a key of `WHEEL_SOURCES`.
        locked: all inputs.
    """
    sets = WHEEL_TOOL_SETS.get(wheel, ())
    return [
        each
        for each in locked
        if (each.ecosystem, each.name) in WHEEL_TOOLS.get(wheel, ()) or any((each.ecosystem, use) in sets for use in each.uses)
    ]


def without_git_sources(locked: list[Input]) -> list[Input]:
    """What a build can take that has no git sources (README.md, "Sources of mlc-llm")."""
    return [each for each in locked if not each.from_git]


def add_locks_argument(parser: argparse.ArgumentParser) -> None:
    """The option --locks, the same in every program that reads the inputs."""
    parser.add_argument("--locks", type=Path, nargs="+", required=True, metavar="FILE", help=", ".join(LOCKS))


def by_name(paths: list[Path]) -> dict[str, Path]:
    """File name → path."""
    return {path.name: path for path in paths}
