"""No image is published with a severe known vulnerability that a newer version fixes, and the numbers are those of the
audit's record.
"""

from __future__ import annotations

import datetime
import json
import os
import pathlib
from typing import Any

import pytest

from fetch import locks as inputs
from fetch.audit import osv, pins, record
from release.private import vulnerabilities

REPORT = json.loads(pathlib.Path(os.environ["REPORT"]).read_text())
IMAGES = {path.name.removesuffix(".cdx.json"): path for path in map(pathlib.Path, os.environ["BILLS"].split())}
LOCKED = inputs.load(inputs.by_name([pathlib.Path(path) for path in os.environ["LOCKS"].split()]))
DAY = datetime.date(2026, 11, 24)
PIN = osv.Pin("PyPI", "requests", "2.0")


# What is published.


def test_no_image_has_a_severe_vulnerability_that_a_newer_version_fixes() -> None:
    assert vulnerabilities.problems(REPORT) == []


@pytest.mark.parametrize("name", sorted(IMAGES))
def test_every_component_of_an_image_is_counted(name: str) -> None:
    bill = json.loads(IMAGES[name].read_text())
    listed = {each["purl"] for each in bill.get("components", []) if "+mlc" not in each["version"]}
    known = {each.purl: each for each in LOCKED}
    expected = {pins.pin(known[purl]).without_uses for purl in listed}
    # A model's image has no package.
    assert len(expected) > 50 or ("_oci" in name and not listed)
    assert REPORT["images"][name]["components"] == len(expected)
    # Debian's release of the images is never unchecked: its security archive is on every mirror.
    assert "Debian:12" not in REPORT["images"][name]["unchecked"]


# What would not be.


def finding(severity: str = "high", fixed: tuple[str, ...] = ("2.1",), pin: osv.Pin = PIN) -> osv.Finding:
    return osv.Finding(pin, "CVE-2026-1", ("GHSA-1",), severity, fixed, "")


def judged(*findings: osv.Finding, allowed: tuple[record.Allowed, ...] = ()) -> tuple[dict[str, Any], list[str]]:
    known = record.Record(DAY, {"PyPI": ("OSV",)}, frozenset([PIN]), findings)
    other = osv.Pin(osv.CRATES, "crate", "1")
    content = vulnerabilities.report({"image": [PIN, other], "small": [other]}, known, allowed)
    return content, vulnerabilities.problems(content)


@pytest.mark.parametrize(
    ("severity", "fixed", "refused"),
    [
        ("critical", ("2.1",), True),
        ("high", ("2.1",), True),
        (osv.UNKNOWN, ("2.1",), True),
        ("high", (), False),
        ("medium", ("2.1",), False),
    ],
)
def test_what_is_severe_and_fixed_elsewhere_is_refused(severity: str, fixed: tuple[str, ...], refused: bool) -> None:
    content, lines = judged(finding(severity, fixed))
    assert [line.partition(":")[0] for line in lines] == ["image"] * refused
    assert all("requests 2.0, fixed in 2.1: update its lock" in line for line in lines)
    assert content["images"]["image"]["severities"][severity] == 1
    assert content["images"]["image"]["unchecked"] == {osv.CRATES: 1}


def test_a_vulnerability_of_what_is_not_in_an_image_is_not_counted() -> None:
    content, lines = judged(finding(pin=osv.Pin("PyPI", "other", "1")))
    assert lines == []
    assert content["images"]["image"]["vulnerabilities"] == content["images"]["small"]["vulnerabilities"] == []


@pytest.mark.parametrize(("until", "refused"), [(DAY, False), (DAY - datetime.timedelta(1), True)])
def test_what_is_accepted_counts_until_its_day(until: datetime.date, refused: bool) -> None:
    content, lines = judged(finding(), allowed=(record.Allowed("GHSA-1", "not reachable", until),))
    assert bool(lines) == refused
    (entry,) = content["images"]["image"]["vulnerabilities"]
    assert entry["allowed"] == (None if refused else "not reachable")


def test_a_component_that_no_lock_has_is_an_error() -> None:
    bill = {"components": [{"name": "strange", "version": "1", "purl": "pkg:pypi/strange@1"}]}
    with pytest.raises(vulnerabilities.BillError, match="strange 1: expected it in the locks"):
        vulnerabilities.components(bill, {})


def test_an_image_with_only_a_model_has_no_components() -> None:
    assert vulnerabilities.components({}, {}) == []
