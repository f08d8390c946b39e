"""locks/vulnerabilities.lock.json: what an audit found, for builds without a network; and what may stay unfixed.

The build counts known vulnerabilities of what it publishes from this record, so that a release says the same wherever
and whenever it is built. fetch/audit/audit.py writes it.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Iterable, Mapping
from typing import Any

from fetch.audit import osv
from fetch.audit.osv import Finding, Pin

FILE = "vulnerabilities.lock.json"
ALLOWED = "audit.json"


class AuditError(Exception):
    """A file of the audit in locks/ is malformed; the message is one line that names the entry."""


@dataclasses.dataclass(frozen=True)
class Allowed:
    """One entry of locks/audit.json: a vulnerability that is accepted until a date.

    Args:
        id: its name, or one of its aliases.
        reason: why it does no harm here, or why the fix has to wait.
        until: the last day on which it is accepted.
        package: the pin that it is about; "" for all.
    """

    id: str
    reason: str
    until: datetime.date
    package: str = ""

    def covers(self, finding: Finding) -> bool:
        return self.id in finding.names and self.package in ("", finding.pin.name)


def read_allowed(content: Any) -> list[Allowed]:
    """The entries of locks/audit.json.

    Raises:
        AuditError: an entry lacks id, reason or date.
    """
    found = []
    for entry in content["allowed"]:
        if not (
            entry.get("id") and entry.get("reason", "").strip() and set(entry) <= {"id", "reason", "until", "package"}
        ):
            raise AuditError(
                f"locks/{ALLOWED}: expected id, reason and until, and perhaps package, found {json.dumps(entry)}"
            )
        try:
            until = datetime.date.fromisoformat(entry.get("until", ""))
        except ValueError as error:
            raise AuditError(
                f"locks/{ALLOWED}: {entry['id']}: expected until as YYYY-MM-DD, found {entry.get('until')!r}"
            ) from error
        found.append(Allowed(entry["id"], entry["reason"], until, entry.get("package", "")))
    return found


def exception(finding: Finding, allowed: Iterable[Allowed], day: datetime.date) -> Allowed | None:
    """The entry that allows a finding on a day."""
    return next((each for each in allowed if each.covers(finding) and each.until >= day), None)


@dataclasses.dataclass(frozen=True)
class Record:
    """What was known of the pins on a day.

    Args:
        date: the day of the audit.
        sources: ecosystem → where the data about it came from.
        checked: the pins that were compared with data, without their uses.
        found: their vulnerabilities.
    """

    date: datetime.date
    sources: Mapping[str, tuple[str, ...]]
    checked: frozenset[Pin]
    found: tuple[Finding, ...]

    @classmethod
    def of(cls, database: osv.Database, date: datetime.date) -> Record:
        """What a database knows of its pins."""
        unknown = {each.without_uses for each in database.not_covered}
        return cls(
            date,
            {name: tuple(sorted(places)) for name, places in sorted(database.sources.items())},
            frozenset(each.without_uses for each in database.pins) - unknown,
            tuple(database.findings()),
        )

    def about(self, pins: Iterable[Pin]) -> tuple[list[Finding], list[Pin]]:
        """The findings about some pins, and the pins that the record does not know."""
        asked = {each.without_uses for each in pins}
        unknown = sorted(asked - self.checked, key=lambda each: (each.ecosystem, each.name))
        return [each for each in self.found if each.pin.without_uses in asked], unknown

    def as_json(self) -> dict[str, Any]:
        """The content of the file, sorted."""
        checked: dict[str, list[str]] = {}
        for each in sorted(self.checked, key=lambda each: (each.ecosystem, each.name, each.version)):
            checked.setdefault(each.ecosystem, []).append(f"{each.name} {each.version}")
        return {
            "date": self.date.isoformat(),
            "sources": {name: list(places) for name, places in self.sources.items()},
            "checked": checked,
            "vulnerabilities": [
                {
                    "id": each.id,
                    "aliases": list(each.aliases),
                    "severity": each.severity,
                    "ecosystem": each.pin.ecosystem,
                    "name": each.pin.name,
                    "version": each.pin.version,
                    "fixed": list(each.fixed),
                    "summary": each.summary,
                    "note": each.note,
                }
                for each in self.found
            ],
        }

    @classmethod
    def from_json(cls, content: Any) -> Record:
        """Reads what `as_json` returns.

        Raises:
            AuditError: it is something else.
        """
        try:
            checked = {
                _pin(ecosystem, *each.split(" ")) for ecosystem, listed in content["checked"].items() for each in listed
            }
            found = [
                Finding(
                    _pin(each["ecosystem"], each["name"], each["version"]),
                    each["id"],
                    tuple(each["aliases"]),
                    each["severity"],
                    tuple(each["fixed"]),
                    each["summary"],
                    each["note"],
                )
                for each in content["vulnerabilities"]
            ]
            strange = {each.severity for each in found} - {*osv.SEVERITIES, osv.UNKNOWN}
            if strange:
                raise ValueError(f"severity {min(strange)!r}")
            sources = {name: tuple(places) for name, places in content["sources"].items()}
            return cls(datetime.date.fromisoformat(content["date"]), sources, frozenset(checked), tuple(found))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise AuditError(
                f"locks/{FILE}: expected what the audit records, found {error!r}: run tools/bazel run //locks:audit --"
                " --record"
            ) from error


def _pin(ecosystem: str, name: str, version: str) -> Pin:
    release = ecosystem.removeprefix(f"{osv.DEBIAN}:")
    suite = next((suite for suite, number in osv.RELEASES.items() if number == release), "")
    return Pin(ecosystem, name, version, suite=suite)
