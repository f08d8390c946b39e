"""Updates the locks of Python distributions: resolves each list to one wheel per distribution, pinned by hash.

requirements.in has what is built and tested with, on x86-64 and on arm64, clients.in the clients that the server is
tested with, pythons.packages.json what the wheels are tested with on other CPythons.

    tools/bazel run //locks:update_requirements              # write the locks
    tools/bazel run //locks:update_requirements -- --upgrade # also move what is locked to the newest versions
    tools/bazel run //locks:update_requirements -- --check   # only compare: exit status 1 if it would change

Without --upgrade a locked version stays while requirements.in allows it, so adding a distribution moves no other.

pip resolves, on the packaged CPython: the interpreter that runs the wheels decides which ones fit. For other CPythons
and for arm64 uv resolves, which need not run there; it keeps the versions of requirements.lock.txt where they suit, and
for arm64 they must. Both ask the index that this machine's pip is configured with; the locks name none.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import urllib.parse
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tomllib

sys.path.insert(0, str(Path(__file__).parents[2]))  # the workspace root, so that this also runs without Bazel

from packaging import tags
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name, parse_wheel_filename

from fetch import credentials, errors, lock_file, locks, trust
from fetch.pypi import index

ASKED = {"requirements.in": locks.REQUIREMENTS_LOCK, "clients.in": locks.CLIENTS_LOCK}
ASKED_FOR_PYTHONS = "pythons.packages.json"
PYTHON = (3, 11)  # as in toolchains/python
PLATFORM = "manylinux_2_28"  # as in wheels/defs.bzl
ARM64 = "aarch64"

HEADER = """\
# What locks/{asked} comes to: one wheel per distribution, for CPython 3.11 on Linux {machine}.
# Generated; to update: tools/bazel run //locks:update_requirements
"""


def kept(lock: str, asked: str) -> list[str]:
    """The locked `name==version` pins that requirements.in still allows: they stay unless --upgrade is given.

    Args:
      lock: the text of requirements.lock.txt.
      asked: the text of requirements.in.
    """
    lines = (line.split("#")[0].strip() for line in asked.splitlines())
    ranges: dict[str, SpecifierSet] = {
        canonicalize_name(each.name): each.specifier for each in map(Requirement, filter(None, lines))
    }
    return [
        f"{name}=={pin.version}"
        for name, pin in locks.requirements(lock).items()
        if ranges.get(name, SpecifierSet()).contains(pin.version, prereleases=True)
    ]


def resolve(requirements: Path, pins: list[str]) -> list[dict[str, Any]]:
    """What pip would install: the entries of its installation report.

    Args:
      requirements: the file of what is asked for.
      pins: `name==version` for distributions that must keep their version if they are needed at all.

    Raises:
      UserError: pip cannot meet the requirements; it has said why.
    """
    environment = dict(os.environ)
    # A build from the lock asks one index, so a wheel from elsewhere would be missing there.
    for other_source in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        environment.pop(other_source, None)
    if bundle := trust.bundle():
        environment.setdefault("PIP_CERT", bundle)
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch, "report.json")
        constraints = Path(scratch, "constraints.txt")
        constraints.write_text("\n".join(pins), encoding="utf-8")
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--dry-run",
            "--ignore-installed",
            "--only-binary=:all:",
            "--no-cache-dir",
        ]
        command += [
            "--disable-pip-version-check",
            f"--report={report}",
            f"--requirement={requirements}",
            f"--constraint={constraints}",
        ]
        # pip prints its progress on standard output; keep ours clean.
        if subprocess.run(command, env=environment, stdout=sys.stderr).returncode:
            hint = ". If locked versions are in the way, --upgrade lets them move" if pins else ""
            raise errors.UserError(f"pip cannot resolve {requirements.name}; its reason stands above{hint}")
        return json.loads(report.read_text(encoding="utf-8"))["install"]


def lock_text(pins: Mapping[str, tuple[str, str]], asked: str = "requirements.in", machine: str = "x86-64") -> str:
    """The lock: `name==version --hash=sha256:…` lines, sorted by normalized name (PEP 503).

    Args:
      pins: name → version and sha256.
      asked: the file that it comes from.
      machine: the processor that it is for.
    """
    lines = [f"{name}=={version} \\\n    --hash=sha256:{sha256}\n" for name, (version, sha256) in sorted(pins.items())]
    return HEADER.format(asked=asked, machine=machine) + "".join(lines)


def reported(installed: list[dict[str, Any]]) -> dict[str, tuple[str, str]]:
    """Normalized name → version and sha256 of what pip reports."""
    pins: dict[str, tuple[str, str]] = {}
    for entry in installed:
        name = canonicalize_name(entry["metadata"]["name"])
        source = entry["download_info"]
        if source["url"].startswith("file:") or not source["url"].split("#")[0].endswith(".whl"):
            sys.exit(
                f"{name}: expected a wheel of the index, found {source['url']}; "
                "is pip configured with other sources (find-links)?"
            )
        pins[name] = (entry["metadata"]["version"], source["archive_info"]["hashes"]["sha256"])
    return pins


def uv(folder: Path) -> Path:
    """The program out of the locked wheel of uv, whose path is in the variable UV_WHEEL."""
    with zipfile.ZipFile(os.environ["UV_WHEEL"]) as wheel:
        (name,) = [each for each in wheel.namelist() if each.endswith(".data/scripts/uv")]
        program = folder / "uv"
        program.write_bytes(wheel.read(name))
        program.chmod(0o755)
        return program


def resolve_for(
    version: str, distributions: Iterable[str], pins: Iterable[str], machine: str = "x86_64"
) -> list[dict[str, Any]]:
    """What uv would install on another CPython or processor: the packages of its lock (PEP 751).

    Args:
      version: of the CPython, for example 3.12.
      distributions: what is asked for.
      pins: `name==version` that are kept if they suit.
      machine: the processor, as wheels name it.

    Raises:
      UserError: uv cannot meet the requirements; it has said why.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("UV_")}
    if bundle := trust.bundle():
        environment.setdefault("SSL_CERT_FILE", bundle)
    url = index.index_url()
    if login := credentials.find(url):
        scheme, _, rest = url.partition("://")
        user, password = (urllib.parse.quote(each, safe="") for each in login)
        url = f"{scheme}://{user}:{password}@{rest}"
    environment |= {"UV_DEFAULT_INDEX": url, "UV_PYTHON_DOWNLOADS": "never"}
    with tempfile.TemporaryDirectory() as scratch:
        asked, pinned, lock = (Path(scratch, name) for name in ("asked.in", "pinned.txt", "pylock.toml"))
        asked.write_text("\n".join(distributions), encoding="utf-8")
        # uv keeps the versions in the file that it is to write.
        pinned.write_text("\n".join(pins), encoding="utf-8")
        program = uv(Path(scratch))
        for source, output in ((asked, pinned), (pinned, lock)):
            command = [str(program), "pip", "compile", "--quiet", "--no-config", "--no-cache"]
            command += [
                f"--python={sys.executable}",
                "--only-binary=:all:",
                f"--python-version={version}",
                f"--python-platform={machine}-{PLATFORM}",
            ]
            if subprocess.run(
                [*command, f"--output-file={output}", str(source)], env=environment, stdout=sys.stderr
            ).returncode:
                raise errors.UserError(f"uv cannot resolve for CPython {version} on {machine}; its reason stands above")
        return tomllib.loads(lock.read_text(encoding="utf-8"))["packages"]


def best_wheel(package: Mapping[str, Any], version: str, machine: str = "x86_64") -> dict[str, str]:
    """The wheel of a package of a PEP 751 lock that pip would choose for a CPython on Linux."""
    major, minor = map(int, version.split("."))
    newest = int(PLATFORM.rpartition("_")[2])
    names = [f"manylinux_2_{number}" for number in range(newest, 4, -1)]
    names += ["manylinux2014", "manylinux2010", "manylinux1", "linux"]
    platforms = [f"{name}_{machine}" for name in names]
    python = (major, minor)
    order = {
        tag: number
        for number, tag in enumerate(
            [
                *tags.cpython_tags(python, platforms=platforms),
                *tags.compatible_tags(python, f"cp{major}{minor}", platforms),
            ]
        )
    }
    ranked = []
    for wheel in package["wheels"]:
        file = wheel["url"].rpartition("/")[2]
        numbers = [order[tag] for tag in parse_wheel_filename(file)[3] if tag in order]
        if numbers:
            ranked.append((min(numbers), file, wheel["hashes"]["sha256"]))
    _, file, sha256 = min(ranked)
    return {"version": package["version"], "file": file, "sha256": sha256}


def pythons_lock(asked: Mapping[str, Any], pins: Iterable[str]) -> dict[str, Any]:
    """The content of pythons.lock.json.

    Args:
      asked: that of pythons.packages.json.
      pins: `name==version` that are kept where they suit.
    """
    return {
        "pythons": {
            python: {
                canonicalize_name(package["name"]): best_wheel(package, version)
                for package in resolve_for(version, asked["distributions"], pins)
            }
            for python, version in asked["pythons"].items()
        }
    }


def arm64_lock(asked: str, pins: Mapping[str, str]) -> str:
    """The lock for arm64.

    Args:
      asked: the text of requirements.in.
      pins: name → version that requirements.lock.txt has.

    Raises:
      UserError: the versions cannot be the same.
    """
    packages = resolve_for(
        ".".join(map(str, PYTHON)),
        [line.split("#")[0] for line in asked.splitlines()],
        [f"{name}=={version}" for name, version in pins.items()],
        ARM64,
    )
    found = {canonicalize_name(package["name"]): best_wheel(package, "3.11", ARM64) for package in packages}
    for name, wheel in found.items():
        if pins.get(name) != wheel["version"]:
            raise errors.UserError(
                f"{name}: expected the version {pins.get(name)} of {locks.REQUIREMENTS_LOCK} for {ARM64} too, found"
                f" {wheel['version']}: demand a version in requirements.in that both have, or say there where it is"
                ' needed, for example with ; platform_machine == "x86_64"'
            )
    return lock_text({name: (wheel["version"], wheel["sha256"]) for name, wheel in found.items()}, machine="arm64")


def main() -> int:
    parser = lock_file.argument_parser(__doc__)
    parser.add_argument(
        "--upgrade", action="store_true", help="move locked versions to the newest that requirements.in allows"
    )
    options = parser.parse_args()
    if sys.version_info[:2] != PYTHON:
        sys.exit(
            f"expected CPython {PYTHON[0]}.{PYTHON[1]}, found {sys.version.split()[0]}: "
            "tools/bazel run //locks:update_requirements"
        )
    status = 0
    for asked_name, lock_name in ASKED.items():
        asked, lock = lock_file.folder() / asked_name, lock_file.folder() / lock_name
        pins = (
            []
            if options.upgrade or not lock.exists()
            else kept(lock.read_text(encoding="utf-8"), asked.read_text(encoding="utf-8"))
        )
        text = lock_text(reported(resolve(asked, pins)), asked_name)
        status |= lock_file.write(lock_name, text, check=options.check, command="//locks:update_requirements")
    newest = (lock_file.folder() / locks.REQUIREMENTS_LOCK).read_text(encoding="utf-8")
    versions = {name: pin.version for name, pin in locks.requirements(newest).items()}
    for lock_name, text in {
        locks.PYTHONS_LOCK: lock_file.as_json(
            pythons_lock(
                lock_file.read_json(ASKED_FOR_PYTHONS), [f"{name}=={version}" for name, version in versions.items()]
            )
        ),
        locks.ARM64_LOCK: arm64_lock((lock_file.folder() / "requirements.in").read_text(encoding="utf-8"), versions),
    }.items():
        status |= lock_file.write(lock_name, text, check=options.check, command="//locks:update_requirements")
    return status


if __name__ == "__main__":
    lock_file.run(main)
