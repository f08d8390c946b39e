"""Looks up versions of packages in vulnerability data, offline: OSV records and Debian's security tracker.

Formats: OSV schema 1.7 (https://ossf.github.io/osv-schema/), as files of one record, as the archives that OSV publishes
for each ecosystem (all.zip), or unpacked; and the JSON of Debian's security tracker.

Each ecosystem's own library orders its versions: packaging (PEP 440), python-debian (Debian policy 5.6.12),
semantic-version (SemVer 2.0.0, as Cargo). univers 32.0.1 does not replace them: its reader of OSV ranges is an empty
function, its ranges refuse some event lists that the schema allows, such as two fixes in a row, and its SemVer compares
build metadata and guesses at strings that are not versions.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import cvss
import semantic_version
from debian.debian_support import Version as DebianVersion
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion
from packaging.version import Version as PythonVersion

# OSV's names of ecosystems; the name of Rust's crates only up to its dot.
PYPI, CRATES, DEBIAN, GIT, MAVEN = "PyPI", "crates", "Debian", "GIT", "Maven"

# Where data comes from.
ARCHIVE, OSV, TRACKER = "Debian's security archive", "OSV", "Debian's security tracker"

# From the least to the most severe (CVSS 3.1, section 5); "unknown" is for unrated vulnerabilities.
SEVERITIES = ("none", "low", "medium", "high", "critical")
UNKNOWN = "unknown"

# Debian's suites by their numbers in OSV.
RELEASES = {"bullseye": "11", "bookworm": "12", "trixie": "13", "forky": "14"}
# Testing, which gets its fixes through unstable: its security archive proves nothing.
WITHOUT_ARCHIVE = ("forky",)

# Words in GitHub's advisories and in Debian's tracker.
_WORDS = {
    "unimportant": "none",
    "negligible": "none",
    "low": "low",
    "moderate": "medium",
    "medium": "medium",
    "important": "high",
    "high": "high",
    "critical": "critical",
}


class DataError(Exception):
    """A file is not vulnerability data; the message is one line that names it."""


@dataclasses.dataclass(frozen=True)
class Pin:
    """One locked input as the data names it.

    Args:
        ecosystem: OSV's name; for Debian with the release, "Debian:12".
        name: of the distribution, crate or Debian source package; the address of a git repository.
        version: in the ecosystem's form; for a git repository, a commit.
        uses: what uses it, in words.
        suite: the name of Debian's suite.
    """

    ecosystem: str
    name: str
    version: str
    uses: tuple[str, ...] = ()
    suite: str = ""

    @property
    def without_uses(self) -> Pin:
        """What it is, whatever uses it."""
        return dataclasses.replace(self, uses=())


@dataclasses.dataclass(frozen=True)
class Finding:
    """One vulnerability of one pin.

    Args:
        aliases: further names of the same vulnerability.
        severity: one of SEVERITIES, or UNKNOWN.
        fixed: the versions that fix it, as the data names them.
        note: what a reader must know to judge it, usually "".
    """

    pin: Pin
    id: str
    aliases: tuple[str, ...]
    severity: str
    fixed: tuple[str, ...]
    summary: str
    note: str = ""

    @property
    def names(self) -> set[str]:
        return {self.id, *self.aliases}


# Versions --------------------------------------------------------------------------------------------------------


def version_order(ecosystem: str) -> Callable[[str], Any]:
    """The function that makes an ecosystem's versions comparable; it raises ValueError for anything else.

    >>> python, crates, debian = version_order("PyPI"), version_order("crates"), version_order("Debian:12")
    >>> python("1.0rc1") < python("1.0"), crates("1.0.0-rc.1") < crates("1.0.0"), debian("1.0~rc1") < debian("1.0")
    (True, True, True)
    """
    if ecosystem == PYPI:
        return PythonVersion
    if ecosystem == CRATES:
        # Build metadata says nothing about precedence (SemVer 2.0.0, 10 and 11), but the library compares it.
        return lambda text: semantic_version.Version(text).truncate("prerelease")
    return DebianVersion


def _in_range(version: str, events: list[dict[str, str]], order: Callable[[str], Any]) -> bool:
    """Whether a version is in a range (OSV schema, "Evaluation"): the last event, in order of versions, at or before
    the version decides.

    Raises:
        ValueError: one of them is not a version.
    """
    key = order(version)
    vulnerable = False
    # "0" is before every version. At the same version, a fix comes before an introduction, so that a range can start
    # again there; a last affected version comes after an introduction, so that both can be the same.
    kinds = {"fixed": 0, "limit": 0, "introduced": 1, "last_affected": 2}
    listed = [(kind, text) for event in events for kind, text in event.items() if kind in kinds]

    def compare(one: tuple[str, str], other: tuple[str, str]) -> int:
        if one[1] == other[1]:
            return kinds[one[0]] - kinds[other[0]]
        if "0" in (one[1], other[1]):
            return -1 if one[1] == "0" else 1
        first, second = order(one[1]), order(other[1])
        return -1 if first < second else 1 if second < first else kinds[one[0]] - kinds[other[0]]

    for kind, text in sorted(listed, key=functools.cmp_to_key(compare)):
        if kind == "introduced":
            vulnerable = vulnerable or text == "0" or order(text) <= key
        elif kind == "last_affected":
            vulnerable = vulnerable and not order(text) < key
        else:
            vulnerable = vulnerable and not order(text) <= key
    return vulnerable


def _enumerated(pin: Pin, versions: Iterable[str]) -> bool:
    if pin.version in versions:
        return True
    if pin.ecosystem != PYPI:
        return False
    for text in versions:
        try:
            if PythonVersion(text) == PythonVersion(pin.version):
                return True
        except InvalidVersion:
            continue
    return False


# Severities ------------------------------------------------------------------------------------------------------


def severity(record: dict[str, Any], affected: dict[str, Any]) -> str:
    """A record's highest severity for one package: by CVSS base score, otherwise by a word, otherwise UNKNOWN."""
    found = []
    for entry in [*record.get("severity", []), *affected.get("severity", [])]:
        kind = {"CVSS_V2": cvss.CVSS2, "CVSS_V3": cvss.CVSS3, "CVSS_V4": cvss.CVSS4}.get(entry.get("type"))
        if not kind:
            continue
        try:
            found.append(kind(entry["score"]).severities()[0].lower())
        except cvss.CVSSError:
            continue
    if not found:
        for place in (
            affected.get("ecosystem_specific"),
            affected.get("database_specific"),
            record.get("database_specific"),
        ):
            word = (place or {}).get("severity") or (place or {}).get("urgency")
            if isinstance(word, str) and word.lower() in _WORDS:
                found.append(_WORDS[word.lower()])
    return max(found, key=SEVERITIES.index) if found else UNKNOWN


# Records ---------------------------------------------------------------------------------------------------------


def _name_of(package: dict[str, str]) -> tuple[str, str]:
    ecosystem, name = package.get("ecosystem", ""), package.get("name", "")
    if ecosystem.partition(".")[0] == CRATES:
        ecosystem = CRATES
    return ecosystem, canonicalize_name(name) if ecosystem == PYPI else name


def _repository(address: str) -> str:
    return address.removesuffix("/").removesuffix(".git").lower()


Ancestry = Callable[[str, str, str], "bool | None"]


def unknown_ancestry(repository: str, older: str, newer: str) -> bool | None:
    """Whether one commit is in the history of another; unknown without a checkout."""
    return None


@dataclasses.dataclass
class Database:
    """The vulnerability data that was read, reduced to the pins.

    Args:
        pins: the pins to look up; records about other packages are dropped while reading.
        in_history: (repository, commit, later commit) → whether the first is in the second's history; None if unknown.
    """

    pins: list[Pin]
    in_history: Ancestry = unknown_ancestry
    found: list[Finding] = dataclasses.field(default_factory=list)
    sources: dict[str, set[str]] = dataclasses.field(default_factory=dict)
    records: int = 0
    newest: str = ""

    def __post_init__(self) -> None:
        self._by_name: dict[tuple[str, str], list[Pin]] = {}
        for pin in self.pins:
            key = (pin.ecosystem, _repository(pin.name) if pin.ecosystem == GIT else pin.name)
            self._by_name.setdefault(key, []).append(pin)

    @property
    def not_covered(self) -> list[Pin]:
        """Pins of ecosystems for which the data has no records."""
        return [pin for pin in self.pins if pin.ecosystem not in self.sources]

    def _covers(self, ecosystem: str, source: str) -> None:
        self.sources.setdefault(ecosystem, set()).add(source)

    def add_archive(self, ecosystem: str, newer: dict[str, str]) -> None:
        """Adds what a security archive of Debian shows: a newer version there fixes something, of unknown severity.

        Args:
            ecosystem: the archive's release, such as "Debian:12".
            newer: source package → the version there, of those pins that are older.
        """
        self._covers(ecosystem, ARCHIVE)
        for pin in self.pins:
            if pin.ecosystem == ecosystem and pin.name in newer:
                id = f"{pin.name} {newer[pin.name]}"
                what = "the security archive has a newer version"
                self.found.append(Finding(pin, id, (), UNKNOWN, (newer[pin.name],), what))

    def add(self, content: Any, name: str) -> None:
        """Adds one JSON document: an OSV record, a list of them, or Debian's tracker.

        Raises:
            DataError: it is neither.
        """
        if isinstance(content, list):
            for each in content:
                self.add(each, name)
        elif isinstance(content, dict) and isinstance(content.get("id"), str) and "modified" in content:
            self._add_record(content)
        elif isinstance(content, dict) and content and all(_is_tracker_entry(entry) for entry in content.values()):
            self._add_tracker(content)
        else:
            raise DataError(
                f"{name}: expected a record of the OSV schema (with id and modified), a list of them, or the JSON of"
                f" Debian's security tracker, found {str(content)[:60]!r}"
            )

    def _add_record(self, record: dict[str, Any]) -> None:
        self.records += 1
        self.newest = max(self.newest, record["modified"][:10])
        for affected in record.get("affected", []):
            ecosystem, name = _name_of(affected.get("package", {}))
            if ecosystem:
                # "Debian:12" is about that release; "Debian" alone names no release.
                self._covers(ecosystem, OSV)
            git = [each for each in affected.get("ranges", []) if each.get("type") == "GIT"]
            if git:
                self._covers(GIT, OSV)
            if record.get("withdrawn"):
                continue
            for pin in self._by_name.get((ecosystem, name), []):
                hit, note = _affects(pin, affected)
                if hit:
                    self._find(pin, record, affected, note)
            for each in git:
                for pin in self._by_name.get((GIT, _repository(each.get("repo", ""))), []):
                    hit, note = self._commit_in_range(pin, each, affected)
                    if hit:
                        self._find(pin, record, affected, note)

    def _commit_in_range(self, pin: Pin, git: dict[str, Any], affected: dict[str, Any]) -> tuple[bool, str]:
        """Whether a commit is in a range of commits (OSV schema, type GIT): after one that introduced the vulnerability
        and not after one that fixed it.
        """
        if pin.version in affected.get("versions", []):
            return True, ""
        introduced, fixed, last = (
            [event[kind] for event in git.get("events", []) if kind in event]
            for kind in ("introduced", "fixed", "last_affected")
        )
        answers = [True if commit == "0" else self.in_history(pin.name, commit, pin.version) for commit in introduced]
        if answers and all(answer is False for answer in answers):
            return False, ""
        repaired = [self.in_history(pin.name, commit, pin.version) for commit in fixed]
        repaired += [self.in_history(pin.name, commit, pin.version) for commit in last if commit != pin.version]
        if True in repaired:
            return False, ""
        return True, (
            "commits cannot be compared without a checkout: judge it by hand"
            if None
            in [
                *answers,
                *repaired,
            ]
            else ""
        )

    def _find(self, pin: Pin, record: dict[str, Any], affected: dict[str, Any], note: str) -> None:
        aliases = set(record.get("aliases", []))
        if record["id"].startswith("DEBIAN-"):
            # Debian's name for a single CVE. An advisory (DSA) covers several, so they are not its aliases.
            aliases |= set(record.get("upstream", [])) | {record["id"].removeprefix("DEBIAN-")}
        fixed = {
            event["fixed"]
            for each in affected.get("ranges", [])
            for event in each.get("events", [])
            if "fixed" in event
        }
        summary = record.get("summary") or record.get("details", "").strip().partition("\n")[0]
        id, *others = _by_fame(aliases | {record["id"]})
        self.found.append(
            Finding(pin, id, tuple(others), severity(record, affected), tuple(sorted(fixed)), summary, note)
        )

    def _add_tracker(self, content: dict[str, Any]) -> None:
        self.records += sum(map(len, content.values()))
        for source, entries in content.items():
            for id, entry in entries.items():
                for suite, state in entry["releases"].items():
                    if suite not in RELEASES:
                        continue
                    ecosystem = f"{DEBIAN}:{RELEASES[suite]}"
                    self._covers(ecosystem, TRACKER)
                    for pin in self._by_name.get((ecosystem, source), []):
                        if finding := _tracked(pin, id, entry, state):
                            self.found.append(finding)

    def findings(self) -> list[Finding]:
        """The findings, most severe first; a pin's vulnerability with several names is listed once."""
        merged: list[Finding] = []
        for finding in sorted(self.found, key=lambda each: each.id):
            same = [each for each in merged if each.pin == finding.pin and each.names & finding.names]
            for each in same:
                merged.remove(each)
                finding = _merge(each, finding)
            merged.append(finding)
        return sorted(merged, key=lambda each: (-rank(each.severity), each.pin.ecosystem, each.pin.name, each.id))


def rank(severity: str) -> int:
    """Its position in SEVERITIES; UNKNOWN ranks as "high", since nobody has called it harmless."""
    return SEVERITIES.index("high" if severity == UNKNOWN else severity)


def _by_fame(names: Iterable[str]) -> list[str]:
    """Names of a vulnerability, the CVE first, because it is the best known."""
    return sorted(names, key=lambda name: (not name.startswith("CVE-"), name))


def _merge(one: Finding, other: Finding) -> Finding:
    stated = [each for each in (one.severity, other.severity) if each != UNKNOWN]
    id, *aliases = _by_fame(one.names | other.names)
    return dataclasses.replace(
        one,
        id=id,
        aliases=tuple(aliases),
        severity=max(stated, key=rank) if stated else UNKNOWN,
        fixed=tuple(sorted({*one.fixed, *other.fixed})),
        summary=one.summary or other.summary,
        note=one.note and other.note,
    )


def _affects(pin: Pin, affected: dict[str, Any]) -> tuple[bool, str]:
    """Whether a record's entry for a package covers a version, and a note if that had to be assumed."""
    if _enumerated(pin, affected.get("versions", [])):
        return True, ""
    ranges = [each for each in affected.get("ranges", []) if each.get("type") in ("SEMVER", "ECOSYSTEM")]
    if not ranges and not affected.get("versions"):
        return True, "the record names no versions: all count as affected"
    for each in ranges:
        try:
            if _in_range(pin.version, each.get("events", []), version_order(pin.ecosystem)):
                return True, ""
        except ValueError as error:
            return True, f"versions cannot be compared ({error}): judge it by hand"
    return False, ""


def _is_tracker_entry(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and bool(entry)
        and all(isinstance(each, dict) and isinstance(each.get("releases"), dict) for each in entry.values())
    )


def _tracked(pin: Pin, id: str, entry: dict[str, Any], state: dict[str, Any]) -> Finding | None:
    fixed = state.get("fixed_version", "")
    if state.get("status") == "resolved" and (
        not fixed or fixed == "0" or DebianVersion(fixed) <= DebianVersion(pin.version)
    ):
        return None
    # The stars in "low**" and the like say who judged.
    word = state.get("urgency", "").rstrip("*")
    note = state.get("nodsa", "") or ("Debian has not judged it yet" if state.get("status") == "undetermined" else "")
    return Finding(
        pin,
        id,
        (),
        _WORDS.get(word, UNKNOWN),
        (fixed,) if fixed and fixed != "0" else (),
        entry.get("description", ""),
        note,
    )


# Files -----------------------------------------------------------------------------------------------------------


def documents(place: Path) -> Iterator[tuple[str, bytes]]:
    """The JSON documents of a file, of an archive, or of a folder of both: name and content.

    Raises:
        DataError: there is none.
    """
    if place.is_dir():
        files = sorted(each for each in place.rglob("*") if each.suffix in (".json", ".zip") and each.is_file())
        if not files:
            raise DataError(f"{place}: expected files *.json or *.zip in it, found none")
        for each in files:
            yield from documents(each)
    elif not place.is_file():
        raise DataError(f"{place}: expected a file, a folder or an address with vulnerability data, found none")
    elif zipfile.is_zipfile(place):
        with zipfile.ZipFile(place) as archive:
            for name in archive.namelist():
                if name.endswith(".json"):
                    yield f"{place}:{name}", archive.read(name)
    else:
        yield str(place), place.read_bytes()


def read(database: Database, place: Path) -> int:
    """Adds all documents of a file, archive or folder to a database; returns their number.

    Raises:
        DataError: something in it is not vulnerability data.
    """
    count = 0
    for name, content in documents(place):
        try:
            database.add(json.loads(content), name)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{name}: expected vulnerability data as JSON, found {type(error).__name__}: {error}"
            ) from error
        count += 1
    return count
