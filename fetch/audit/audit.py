"""Reports vulnerable and outdated pins of all locks, from vulnerability data that you supply.

    tools/bazel run //locks:audit -- --data FOLDER_OR_FILE_OR_URL …               # prints tables
    tools/bazel run //locks:audit -- --data FOLDER --offline --json audit.json    # asks no registry; also writes JSON
    tools/bazel run //locks:audit -- --data FOLDER_OR_FILE_OR_URL … --record      # for the next release

Data: what OSV publishes for PyPI, Rust's crates, Maven and Debian's releases (all.zip, or unpacked), and the JSON of
Debian's security tracker, as files or addresses; and, unless --offline, the security archives of the locked Debian
releases: a newer version there fixes something. A pin is outdated if this machine's registries have a newer version
that the update commands would choose.

--record writes what was found to locks/vulnerabilities.lock.json, from which the gate and the release page count.

Exit status 1: a vulnerability of severity --fail-on or above that locks/audit.json does not accept; an expired entry
there; pins of an ecosystem that the data does not cover (unless --partial). Unrated vulnerabilities count as "high".
Exit status 2: the data cannot be read.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # the workspace root, so that this also runs without Bazel

from fetch import download, errors, lock_file
from fetch import locks as inputs
from fetch.audit import osv, pins
from fetch.audit import record as audit_record
from fetch.audit.osv import Finding
from fetch.audit.record import ALLOWED, Allowed, AuditError, Record, read_allowed
from fetch.crates import registry, update_crates
from fetch.debian import archive as debian
from fetch.debian import update_debian
from fetch.git import checkout
from fetch.locks import Input
from fetch.pypi import update_requirements


@dataclasses.dataclass(frozen=True)
class Outdated:
    """A pin for which a registry has a newer version that the build would accept."""

    ecosystem: str
    name: str
    version: str
    newest: str


def ancestry(checkouts: str, names: dict[str, str]) -> osv.Ancestry:
    """Asks checkouts whether a commit is part of another's history.

    Args:
        checkouts: the folder of checkouts (MLC_SOURCES), or "".
        names: repository → its checkout's name there.
    """

    def in_history(repository: str, older: str, newer: str) -> bool | None:
        folder = Path(checkouts, names.get(repository, ""))
        if not checkouts or repository not in names or not folder.exists():
            return None
        try:
            with checkout.in_repository(folder) as git:
                done = git("merge-base", "--is-ancestor", older, newer)
        except (checkout.NotARepository, checkout.SourceError):
            return None
        return {0: True, 1: False}.get(done.returncode)

    return in_history


# Debian's archives -----------------------------------------------------------------------------------------------


def read_security_archives(database: osv.Database, locked: Iterable[Input]) -> list[str]:
    """Adds newer versions in the security archives of the locked stable suites; returns a line for each silent one."""
    packages: dict[tuple[str, str], list[Input]] = {}
    for each in locked:
        if each.ecosystem == inputs.DEBIAN and each.suite not in osv.WITHOUT_ARCHIVE:
            packages.setdefault((each.suite, each.architecture), []).append(each)
    order = osv.version_order(osv.DEBIAN)
    silent = []
    for (suite, architecture), listed in sorted(packages.items()):
        print(f"reading the security archive of {suite} for {architecture} …", file=sys.stderr)
        try:
            index = debian.fetch_index(f"{suite}-security", "debian-security", architecture=architecture)
        except (errors.UserError, OSError) as error:
            silent.append(f"{suite}'s security archive for {architecture} was not read: {error}")
            continue
        newer = {
            pins.pin(each).name: index[each.package].version
            for each in listed
            if each.package in index and order(each.version) < order(index[each.package].version)
        }
        database.add_archive(pins.debian_release(suite), newer)
    return silent


# Outdated --------------------------------------------------------------------------------------------------------


def outdated_debian(locked: list[Input]) -> list[Outdated]:
    """Debian packages with a newer version in their suite, its updates or its security archive."""
    packages = [each for each in locked if each.ecosystem == inputs.DEBIAN]
    wanted = sorted({(each.suite, each.architecture) for each in packages})
    indexes = {(suite, architecture): update_debian.suite_index(suite, architecture) for suite, architecture in wanted}
    order = osv.version_order(osv.DEBIAN)
    found = []
    for each in packages:
        index = indexes[each.suite, each.architecture]
        if each.package in index and order(each.version) < order(newest := index[each.package].version):
            found.append(Outdated(f"{osv.DEBIAN}:{osv.RELEASES[each.suite]}", each.name, each.version, newest))
    return found


def outdated_pypi(locked: list[Input]) -> list[Outdated]:
    """Distributions for which locks/requirements.in allows a newer version than the locked one."""
    resolved = update_requirements.resolve(lock_file.folder() / "requirements.in", pins=[])
    newest = update_requirements.reported(resolved)
    order = osv.version_order(osv.PYPI)
    return [
        Outdated(osv.PYPI, each.name, each.version, newest[each.name][0])
        for each in locked
        if each.ecosystem == inputs.PYPI and each.name in newest and order(each.version) < order(newest[each.name][0])
    ]


def outdated_crates(locked: list[Input], cargo: str) -> list[Outdated]:
    """Crates with a newer version that Cargo considers compatible: cargo itself resolves each series again."""
    crates = [each for each in locked if each.ecosystem == inputs.CRATE]
    lines = ["[package]", 'name = "asks"', 'version = "0.0.0"', "[lib]", 'path = "lib.rs"', "[dependencies]"]
    lines += [
        f'c{number} = {{ package = "{each.name}", version = "{each.suite}", default-features = false }}'
        for number, each in enumerate(crates)
    ]
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch, "Cargo.toml").write_text("\n".join([*lines, "[workspace]", ""]), encoding="utf-8")
        Path(scratch, "lib.rs").touch()
        done = registry.generate_lockfile(cargo, Path(scratch))
        if done.returncode:
            raise errors.UserError("cargo does not answer: " + " ".join(done.stdout.split())[:300])
        newest = update_crates.crates(Path(scratch, "Cargo.lock").read_text(encoding="utf-8"), "Cargo.lock")
    order = osv.version_order(osv.CRATES)
    return [
        Outdated(osv.CRATES, each.name, each.version, newest[each.key]["version"])
        for each in crates
        if each.key in newest and order(each.version) < order(newest[each.key]["version"])
    ]


def outdated(locked: list[Input], cargo: str) -> tuple[list[Outdated], list[str]]:
    """Outdated pins, and one line for each registry that does not answer."""
    found: list[Outdated] = []
    silent = []
    asked: dict[str, Callable[[], list[Outdated]]] = {
        "Debian packages": lambda: outdated_debian(locked),
        "PyPI distributions": lambda: outdated_pypi(locked),
        "crates": lambda: outdated_crates(locked, cargo),
    }
    for what, ask in asked.items():
        print(f"asking for newer {what} …", file=sys.stderr)
        try:
            found += ask()
        except (errors.UserError, OSError, SystemExit) as error:
            silent.append(f"{what} were not compared: {error}")
    return found, silent


# The report ------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Report:
    """The findings of an audit, and which of them make it fail.

    Args:
        found: all vulnerabilities.
        allowed: entries of locks/audit.json.
        fail_on: the lowest severity that fails the audit.
        today: the date that decides which entries have expired.
        partial: whether to accept pins that the data does not cover.
    """

    database: osv.Database
    found: list[Finding]
    allowed: list[Allowed]
    fail_on: str
    today: datetime.date
    partial: bool = False
    outdated: list[Outdated] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    fail_on_outdated: bool = False

    def exception(self, finding: Finding) -> Allowed | None:
        """The entry that allows a finding today."""
        return audit_record.exception(finding, self.allowed, self.today)

    @property
    def problems(self) -> list[str]:
        """One line for each reason why the audit fails."""
        lines = [
            f"{each.id}: {each.pin.name} {each.pin.version} ({each.pin.ecosystem}), {each.severity}"
            for each in self.found
            if osv.rank(each.severity) >= osv.rank(self.fail_on) and not self.exception(each)
        ]
        for each in self.allowed:
            if each.until < self.today:
                lines.append(
                    f"locks/{ALLOWED}: {each.id} was allowed until {each.until} ({each.reason}): fix it, or judge it"
                    " again and change the date"
                )
        if not self.partial:
            # There is no separate data about git repositories; it comes with the other ecosystems.
            for ecosystem in sorted({pin.ecosystem for pin in self.database.not_covered} - {osv.GIT}):
                count = sum(pin.ecosystem == ecosystem for pin in self.database.not_covered)
                lines.append(
                    f"the data has no record of {ecosystem}, {count} pins were not checked: supply it with --data, or"
                    " accept that with --partial"
                )
        if self.fail_on_outdated and self.outdated:
            lines.append(f"{len(self.outdated)} pins are outdated")
        return lines

    def as_json(self) -> dict[str, Any]:
        return {
            "date": self.today.isoformat(),
            "data": {
                "records": self.database.records,
                "newest": self.database.newest,
                "ecosystems": sorted(self.database.sources),
            },
            "pins": len(self.database.pins),
            "not_covered": [dataclasses.asdict(pin) for pin in self.database.not_covered],
            "vulnerabilities": [
                dataclasses.asdict(each)
                | {"allowed": exception.reason if (exception := self.exception(each)) else None}
                for each in self.found
            ],
            "unused_exceptions": [each.id for each in self._unused()],
            "outdated": [dataclasses.asdict(each) for each in self.outdated],
            "notes": self.notes,
            "problems": self.problems,
        }

    def _unused(self) -> list[Allowed]:
        return [each for each in self.allowed if not any(each.covers(finding) for finding in self.found)]

    def as_text(self) -> str:
        """The report as text tables."""
        parts = []
        rows = [("severity", "vulnerability", "package", "version", "fixed in", "ecosystem", "used by", "what")]
        for each in self.found:
            exception = self.exception(each)
            what = (
                f"allowed until {exception.until}: {exception.reason}"
                if exception
                else "; ".join(filter(None, [each.note, each.summary]))
            )
            rows.append(
                (
                    each.severity,
                    each.id,
                    each.pin.name,
                    each.pin.version,
                    ", ".join(each.fixed) or "-",
                    each.pin.ecosystem,
                    ", ".join(each.pin.uses) or "-",
                    what[:80],
                )
            )
        parts.append(table(rows) if self.found else "no known vulnerability")
        if self.outdated:
            parts.append(
                table(
                    [
                        ("outdated", "locked", "newest", "ecosystem"),
                        *((each.name, each.version, each.newest, each.ecosystem) for each in self.outdated),
                    ]
                )
            )
        covered = len(self.database.pins) - len(self.database.not_covered)
        parts.append(
            f"{covered} of {len(self.database.pins)} pins checked against {self.database.records} records, the newest"
            f" of {self.database.newest or 'no known day'}"
        )
        notes = [
            *self.notes,
            *(f"locks/{ALLOWED}: {each.id} allows nothing that was found: remove it" for each in self._unused()),
        ]
        if notes:
            parts.append("\n".join(f"note: {note}" for note in notes))
        if self.problems:
            parts.append("\n".join(f"audit: {problem}" for problem in self.problems))
        return "\n\n".join(parts) + "\n"


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """Aligned columns; the last one is not padded."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[-1]]).rstrip() for row in rows
    )


def _here(path: str) -> Path:
    """A path relative to the user's folder: `bazel run` starts programs elsewhere."""
    return Path(os.environ.get("BUILD_WORKING_DIRECTORY", "."), path)


def read_data(database: osv.Database, places: Iterable[str]) -> None:
    """Adds data from files, folders and addresses (http, https, file)."""
    for place in places:
        print(f"reading {place} …", file=sys.stderr)
        if re.match(r"(https?|file)://", place):
            with tempfile.TemporaryDirectory() as scratch:
                path = Path(scratch, place.rstrip("/").rpartition("/")[2] or "data")
                download.save(place, path, timeout=300)
                count = osv.read(database, path)
        else:
            count = osv.read(database, _here(place))
        print(f"  {count} documents", file=sys.stderr)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data",
        nargs="+",
        default=[],
        metavar="PLACE",
        help="files, folders or addresses of OSV's data or Debian's security tracker",
    )
    parser.add_argument(
        "--fail-on",
        choices=osv.SEVERITIES,
        default="medium",
        help="the lowest severity that fails the audit (default: medium)",
    )
    parser.add_argument("--fail-on-outdated", action="store_true", help="also fail if a pin is outdated")
    parser.add_argument("--partial", action="store_true", help="accept pins of ecosystems that the data does not cover")
    parser.add_argument("--offline", action="store_true", help="do not ask registries for newer versions")
    parser.add_argument("--record", action="store_true", help=f"also write locks/{audit_record.FILE}, for releases")
    parser.add_argument(
        "--json",
        metavar="FILE",
        help="also write the report as JSON; - writes it to standard output instead of the tables",
    )
    parser.add_argument(
        "--today",
        type=datetime.date.fromisoformat,
        default=datetime.date.today(),
        metavar="DATE",
        help="the date that decides which exceptions have expired (default: today)",
    )
    options = parser.parse_args(arguments)
    if options.offline and not options.data:
        parser.error("--offline needs --data: there is nothing else to ask")
    try:
        allowed = read_allowed(lock_file.read_json(ALLOWED))
        locked = inputs.pinned(inputs.in_folder(lock_file.folder()))
        repositories = {each.entry["repository"]: each.name for each in locked if each.from_git}
        in_history = ancestry(checkout.folder_of_checkouts(lock_file.folder().parent), repositories)
        bazel = [each for name in inputs.BAZEL_LOCKS for each in inputs.bazel(lock_file.folder() / name)[1]]
        database = osv.Database(
            pins.pins([*locked, *(dataclasses.replace(each, uses=("bazel",)) for each in bazel)]), in_history
        )
        read_data(database, options.data)
        newer: list[Outdated] = []
        notes = ["outdated pins were not looked up (--offline)"]
        if not options.offline:
            silent = read_security_archives(database, locked)
            newer, notes = outdated(locked, os.environ.get("CARGO", "cargo"))
            notes = silent + notes
    except (AuditError, osv.DataError, errors.UserError, OSError) as error:
        print(f"audit: {error}", file=sys.stderr)
        return 2
    report = Report(
        database,
        database.findings(),
        allowed,
        options.fail_on,
        options.today,
        options.partial,
        newer,
        notes,
        options.fail_on_outdated,
    )
    written = json.dumps(report.as_json(), indent=2, ensure_ascii=False) + "\n"
    if options.json == "-":
        print(written, end="")
    else:
        print(report.as_text(), end="")
        if options.json:
            _here(options.json).write_text(written, encoding="utf-8")
    if options.record:
        content = Record.of(database, options.today).as_json()
        lock_file.write(audit_record.FILE, lock_file.as_json(content), check=False, command="//locks:audit -- --record")
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
