"""Counts the known vulnerabilities of each image, as of the last audit, for the gate and the release page.

    python3 -m release.private.vulnerabilities --locks FILE... --record vulnerabilities.lock.json \\
        --allowed audit.json --bill NAME=CDX... --output vulnerabilities.json

An image's components are those of its bill of materials: what its layers contain, and the sources of its wheels. What
is known of them is what fetch/audit/audit.py recorded; a component that the record does not know counts as unchecked.
"""

from __future__ import annotations

import argparse
import collections
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fetch import locks as inputs
from fetch.arguments import named_path
from fetch.audit import osv, pins, record
from fetch.audit.osv import Pin
from fetch.audit.record import Allowed, AuditError, Record
from fetch.locks import Input

# A published image has no vulnerability from here on that a newer version fixes.
FAIL_ON = "high"


class BillError(Exception):
    """A bill of materials names something that no lock has; the message is one line that names it."""


def components(bill: Mapping[str, Any], known: Mapping[str, Input]) -> list[Pin]:
    """The pins of a CycloneDX bill's components, except products of this build, whose sources the bill lists too.

    Args:
        bill: the document (sbom.py).
        known: package URL → locked input.

    Raises:
        BillError: a component is in no lock.
    """
    found = []
    for each in bill.get("components", []):
        if {"name": "mlc_bazel:role", "value": "product"} in each.get("properties", []):
            continue
        if each.get("purl") not in known:
            raise BillError(f"{each['name']} {each.get('version')}: expected it in the locks, found it in none of them")
        found.append(known[each["purl"]])
    return pins.pins(found)


def report(bills: Mapping[str, list[Pin]], known: Record, allowed: Iterable[Allowed]) -> dict[str, Any]:
    """What the page shows, the gate judges and `publish` asks for.

    Args:
        bills: image → the pins of its components.
        known: the last audit.
        allowed: vulnerabilities that may stay, on the day of that audit.
    """
    allowed = list(allowed)
    images = {}
    for name, listed in sorted(bills.items()):
        found, unchecked = known.about(listed)
        entries = []
        for each in found:
            exception = record.exception(each, allowed, known.date)
            entries.append(
                {
                    "id": each.id,
                    "severity": each.severity,
                    "name": each.pin.name,
                    "version": each.pin.version,
                    "fixed": list(each.fixed),
                    "allowed": exception.reason if exception else None,
                }
            )
        images[name] = {
            "components": len({each.without_uses for each in listed}),
            "unchecked": dict(sorted(collections.Counter(each.ecosystem for each in unchecked).items())),
            "severities": {
                severity: sum(entry["severity"] == severity for entry in entries)
                for severity in (*reversed(osv.SEVERITIES), osv.UNKNOWN)
            },
            "vulnerabilities": entries,
        }
    return {
        "date": known.date.isoformat(),
        "sources": {name: list(places) for name, places in known.sources.items()},
        "images": images,
    }


def problems(content: Mapping[str, Any]) -> list[str]:
    """A line for each vulnerability for which an image must not be published: severe, fixed elsewhere, not accepted."""
    return [
        f"{image}: {each['id']} ({each['severity']}): {each['name']} {each['version']}, fixed in"
        f" {', '.join(each['fixed'])}: update its lock, or accept it in locks/{record.ALLOWED} (locks/README.md)"
        for image, facts in content["images"].items()
        for each in facts["vulnerabilities"]
        if osv.rank(each["severity"]) >= osv.rank(FAIL_ON) and each["fixed"] and each["allowed"] is None
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    inputs.add_locks_argument(parser)
    parser.add_argument("--record", type=Path, required=True, help=f"locks/{record.FILE}")
    parser.add_argument("--allowed", type=Path, required=True, help=f"locks/{record.ALLOWED}")
    parser.add_argument(
        "--bill", type=named_path, action="append", default=[], metavar="NAME=FILE", help="an image's CycloneDX bill"
    )
    parser.add_argument("--output", type=Path, required=True, help="the report to write, JSON")
    arguments = parser.parse_args()
    try:
        known = {each.purl: each for each in inputs.load(inputs.by_name(arguments.locks))}
        bills = {name: components(json.loads(path.read_text(encoding="utf-8")), known) for name, path in arguments.bill}
        content = report(
            bills,
            Record.from_json(json.loads(arguments.record.read_text(encoding="utf-8"))),
            record.read_allowed(json.loads(arguments.allowed.read_text(encoding="utf-8"))),
        )
    except (AuditError, BillError, inputs.InputsError, OSError, ValueError, KeyError) as error:
        print(f"vulnerabilities: {error}", file=sys.stderr)
        return 1
    arguments.output.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
