"""A wheel's build id depends on exactly what pip installs, and finishing changes only the version."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.metadata import parse_email
from packaging.version import Version
from wheels_under_test import record_digest as digest

from wheels.finished import FinishedWheel, Identity, WheelError, identify
from wheels.private import finish_wheel

NAME = "a_thing-1.0+mlc2-py3-none-any.whl"
DIST_INFO = "a_thing-1.0+mlc2.dist-info"
METADATA = "Metadata-Version: 2.1\nName: a-thing\n{}Version: 1.0+mlc2\n\nA thing.\nVersion: not this line\n"
PIN = "other==3+mlc2.b00000000"

FILES = {
    "thing/library.so": bytes(range(256)) * 40,
    "thing/__init__.py": b"x = 1\n",
    "a_thing-1.0+mlc2.data/headers/thing.h": b"#pragma once\n",
    f"{DIST_INFO}/WHEEL": b"Wheel-Version: 1.0\nTag: py3-none-any\n",
    f"{DIST_INFO}/METADATA": METADATA.format("Requires-Dist: numpy\nProvides-Extra: more\n").encode(),
    f"{DIST_INFO}/entry_points.txt": b"[console_scripts]\nthing = thing:main",
}


@dataclasses.dataclass
class Archive:
    """How a wheel is packed; what pip installs of it does not depend on it."""

    compression: int = zipfile.ZIP_STORED
    time: tuple[int, int, int, int, int, int] = (1980, 1, 1, 0, 0, 0)
    mode: int = 0o100777
    reverse: bool = False
    record: Callable[[list[list[str]]], list[list[str]]] = list

    def write(self, folder: Path, files: dict[str, bytes], name: str = NAME) -> Path:
        folder.mkdir(exist_ok=True, parents=True)
        rows = [[path, digest(content), str(len(content))] for path, content in files.items()]
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(self.record([*rows, [f"{DIST_INFO}/RECORD", "", ""]]))
        entries = [*files.items(), (f"{DIST_INFO}/RECORD", text.getvalue().encode())]
        with zipfile.ZipFile(folder / name, "w") as archive:
            for path, content in reversed(entries) if self.reverse else entries:
                info = zipfile.ZipInfo(path, self.time)
                info.compress_type, info.external_attr, info.create_system = self.compression, self.mode << 16, 3
                with archive.open(info, "w", force_zip64=path.startswith("thing/")) as file:
                    file.write(content)
        return folder / name


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    return Archive().write(tmp_path / "first", FILES)


def finished(unversioned: Path, *requires: str) -> FinishedWheel:
    return FinishedWheel(unversioned, identify(unversioned, requires))


# The id's coverage


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("where", [0, -1])
def test_a_flipped_bit_of_any_file_changes_the_id(wheel: Path, tmp_path: Path, name: str, where: int) -> None:
    content = bytearray(FILES[name])
    content[where] ^= 1
    assert identify(Archive().write(tmp_path / "second", {**FILES, name: bytes(content)}), []) != identify(wheel, [])


@pytest.mark.parametrize(
    "files",
    [
        pytest.param(
            {"thing/renamed.so" if name == "thing/library.so" else name: data for name, data in FILES.items()},
            id="a name",
        ),
        pytest.param({**FILES, "thing/empty.py": b""}, id="a file more"),
        pytest.param(
            {name: data for name, data in FILES.items() if name != f"{DIST_INFO}/entry_points.txt"},
            id="no entry points",
        ),
        pytest.param(
            {**FILES, f"{DIST_INFO}/METADATA": METADATA.format("Requires-Dist: numpy>=99\n").encode()},
            id="a requirement",
        ),
        pytest.param(
            {**FILES, f"{DIST_INFO}/entry_points.txt": b"[console_scripts]\nthing = thing:other"}, id="an entry point"
        ),
        pytest.param({**FILES, f"{DIST_INFO}/WHEEL": b"Wheel-Version: 1.0\nTag: py2-none-any\n"}, id="a tag"),
        pytest.param(
            {**FILES, "thing/library.so": FILES["thing/__init__.py"], "thing/__init__.py": FILES["thing/library.so"]},
            id="two files swapped",
        ),
    ],
)
def test_another_wheel_has_another_id(wheel: Path, tmp_path: Path, files: dict[str, bytes]) -> None:
    assert identify(Archive().write(tmp_path / "second", files), []) != identify(wheel, [])


def test_the_executable_bit_of_a_file_changes_the_id(wheel: Path, tmp_path: Path) -> None:
    assert identify(Archive(mode=0o100644).write(tmp_path / "second", FILES), []) != identify(wheel, [])


def test_the_version_of_a_pinned_wheel_changes_the_id(wheel: Path) -> None:
    ids = {
        identify(wheel, requires).version
        for requires in ([], [PIN], [PIN.replace("b0", "b1")], [PIN.replace("other", "another")])
    }
    assert len(ids) == 4


@pytest.fixture
def others(tmp_path: Path) -> list[Path]:
    """The same wheel for other Pythons."""
    return [
        Archive().write(tmp_path / python, {**FILES, "thing/library.so": python.encode()})
        for python in ("cp312", "cp313")
    ]


def test_wheels_for_several_pythons_share_one_id(wheel: Path, others: list[Path]) -> None:
    """One pin is for all of them."""
    wheels = [wheel, *others]
    ids = {identify(each, [PIN], [other for other in wheels if other is not each]) for each in wheels}
    assert len(ids) == 1
    assert not ids & {identify(wheel, [PIN]), identify(wheel, [PIN], others[:1]), identify(wheel, [], others)}


@pytest.mark.parametrize("name", FILES)
def test_another_file_for_another_python_changes_the_shared_id(
    wheel: Path, others: list[Path], tmp_path: Path, name: str
) -> None:
    changed = [
        Archive().write(tmp_path / folder, {**FILES, name: FILES[name] + added})
        for folder, added in (("one", b"\n"), ("two", b"\n\n"))
    ]
    assert len({identify(wheel, [], [others[0], each]) for each in changed}) == 2


@pytest.mark.parametrize(
    "archive",
    [
        Archive(compression=zipfile.ZIP_DEFLATED),
        Archive(time=(2020, 2, 2, 2, 2, 2)),
        Archive(mode=0o100755),
        Archive(reverse=True),
        Archive(record=lambda rows: rows[::-1]),
    ],
    ids=["compression", "times", "modes", "order", "order of RECORD"],
)
def test_packing_does_not_change_the_id(wheel: Path, tmp_path: Path, archive: Archive) -> None:
    second = archive.write(tmp_path / "second", FILES)
    assert second.read_bytes() != wheel.read_bytes()
    assert identify(second, [PIN]) == identify(wheel, [PIN])


def test_the_version_is_the_wheels_version_and_eight_digits(wheel: Path) -> None:
    identity = identify(wheel, [PIN])
    assert re.fullmatch(r"1\.0\+mlc2\.b[0-9a-f]{8}", identity.version)
    assert str(Version(identity.version)) == identity.version
    assert identity.requires == (PIN,)


# The finished wheel


def test_it_is_the_assembled_wheel_with_the_new_version(wheel: Path, tmp_path: Path) -> None:
    version = identify(wheel, [PIN]).version
    with finished(wheel, PIN) as source:
        written = source.write_to(tmp_path)
    assert written.name == f"a_thing-{version}-py3-none-any.whl"
    with zipfile.ZipFile(written) as archive:
        assert archive.namelist() == [name.replace("1.0+mlc2", version) for name in [*FILES, f"{DIST_INFO}/RECORD"]]
        assert archive.testzip() is None
        content = {name.replace(version, "1.0+mlc2"): archive.read(name) for name in archive.namelist()}
        record = list(csv.reader(archive.read(f"a_thing-{version}.dist-info/RECORD").decode().splitlines()))
        assert record == [
            [name, digest(archive.read(name)), str(archive.getinfo(name).file_size)] for name in archive.namelist()[:-1]
        ] + [[f"a_thing-{version}.dist-info/RECORD", "", ""]]
    changed = {f"{DIST_INFO}/METADATA", f"{DIST_INFO}/RECORD"}
    assert {name: data for name, data in content.items() if name not in changed} == {
        name: data for name, data in FILES.items() if name not in changed
    }


@pytest.mark.parametrize(
    ("requirements", "expected"),
    [("Requires-Dist: numpy\nProvides-Extra: more\n", [PIN, "numpy"]), ("Provides-Extra: more\n", [PIN]), ("", [PIN])],
)
def test_its_metadata_have_version_and_pins(tmp_path: Path, requirements: str, expected: list[str]) -> None:
    unversioned = Archive().write(tmp_path, {**FILES, f"{DIST_INFO}/METADATA": METADATA.format(requirements).encode()})
    identity = identify(unversioned, [PIN])
    with FinishedWheel(unversioned, identity) as source:
        metadata, unparsed = parse_email(source.read(f"a_thing-{identity.version}.dist-info/METADATA"))
    assert (metadata["version"], metadata["requires_dist"], unparsed) == (identity.version, expected, {})
    assert metadata["description"] == "A thing.\nVersion: not this line\n"


def test_its_bytes_do_not_depend_on_the_assembled_wheels_compression(wheel: Path, tmp_path: Path) -> None:
    second = Archive(compression=zipfile.ZIP_DEFLATED).write(tmp_path / "second", FILES)
    written = []
    for number, unversioned in enumerate((wheel, second)):
        folder = tmp_path / str(number)
        folder.mkdir()
        with finished(unversioned) as source:
            written.append(source.write_to(folder))
    assert written[0].name == written[1].name and written[0].read_bytes() == written[1].read_bytes()
    with zipfile.ZipFile(written[0]) as archive:
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_DEFLATED}


def test_times_modes_and_headers_stay(wheel: Path, tmp_path: Path) -> None:
    with finished(wheel) as source:
        written = source.write_to(tmp_path)
        expected = [
            (info.date_time, info.external_attr, info.create_system, source.has_zip64_header(info))
            for info in source.infolist()
        ]
    with FinishedWheel(written, Identity(f"{written.name.split('-')[1]}.b0")) as again:
        assert [
            (info.date_time, info.external_attr, info.create_system, again.has_zip64_header(info))
            for info in again.infolist()
        ] == expected
    assert {zip64 for *_, zip64 in expected} == {True, False}


# Refusals


def refused(act: Callable[[], object], *expected: str) -> None:
    with pytest.raises(WheelError) as caught:
        act()
    message = str(caught.value)
    assert "\n" not in message and all(part in message for part in expected), message


def without(name: str) -> Callable[[list[list[str]]], list[list[str]]]:
    return lambda rows: [row for row in rows if row[0] != name]


@pytest.mark.parametrize(
    ("archive", "files", "name", "expected"),
    [
        pytest.param(
            Archive(),
            FILES,
            "a_thing.whl",
            "expected a file name like name-version-python-abi-platform.whl",
            id="no wheel's name",
        ),
        pytest.param(
            Archive(),
            FILES,
            NAME.replace("1.0", "1.1"),
            f"a_thing-1.1+mlc2.dist-info, found {DIST_INFO}",
            id="name of another version",
        ),
        pytest.param(
            Archive(),
            {**FILES, "b-1.dist-info/METADATA": b""},
            NAME,
            f"expected the folder {DIST_INFO}, found {DIST_INFO}, b-1",
            id="two",
        ),
        pytest.param(
            Archive(record=without("thing/__init__.py")),
            FILES,
            NAME,
            "found thing/__init__.py only in the archive",
            id="not in RECORD",
        ),
        pytest.param(
            Archive(record=lambda rows: [*rows, ["thing/gone.py", digest(b""), "0"]]),
            FILES,
            NAME,
            "found thing/gone.py only in RECORD",
            id="gone",
        ),
        pytest.param(
            Archive(record=lambda rows: [*rows, rows[0]]),
            FILES,
            NAME,
            "thing/library.so twice in RECORD",
            id="twice in RECORD",
        ),
        pytest.param(
            Archive(record=lambda rows: [[rows[0][0], "", ""], *rows[1:]]),
            FILES,
            NAME,
            "sha256 of thing/library.so in RECORD, found",
            id="no hash",
        ),
        pytest.param(
            Archive(record=lambda rows: [[rows[0][0], "md5=0", "1"], *rows[1:]]),
            FILES,
            NAME,
            "found md5=0",
            id="another hash",
        ),
        pytest.param(
            Archive(record=lambda rows: [["one field"]]),
            FILES,
            NAME,
            "RECORD with lines path,hash,size",
            id="no RECORD",
        ),
        pytest.param(
            Archive(),
            {name: data for name, data in FILES.items() if "METADATA" not in name},
            NAME,
            f"expected {DIST_INFO}/METADATA",
            id="no METADATA",
        ),
    ],
)
def test_a_malformed_wheel_gives_one_clear_error(
    tmp_path: Path,
    archive: Archive,
    files: dict[str, bytes],
    name: str,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = archive.write(tmp_path, files, name)
    refused(lambda: identify(path, []), str(path), expected)
    arguments = [
        "identify",
        "--unversioned",
        str(path),
        "--identity",
        str(tmp_path / "x"),
        "--version",
        str(tmp_path / "y"),
    ]
    monkeypatch.setattr(sys, "argv", ["finish_wheel", *arguments])
    assert finish_wheel.main() == 1
    said = capsys.readouterr().err
    assert said.startswith("finish_wheel: ") and said.count("\n") == 1
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more"])
def test_a_file_that_is_not_an_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / NAME).write_bytes(content)
    refused(lambda: identify(tmp_path / NAME, []), NAME, "expected a wheel, found ")
    refused(lambda: FinishedWheel(tmp_path / NAME, Identity("1.0+mlc2.b0")), NAME, "expected a wheel, found ")


def test_a_file_twice_in_the_archive_is_refused(wheel: Path) -> None:
    with zipfile.ZipFile(wheel, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("thing/__init__.py", b"x = 2\n")
    refused(lambda: identify(wheel, []), "thing/__init__.py twice in the archive")


def test_a_wheel_of_another_version_does_not_share_the_id(wheel: Path, tmp_path: Path) -> None:
    with finished(wheel) as source:
        other = source.write_to(tmp_path)
    found = other.name.split("-")[1]
    refused(lambda: identify(wheel, [], [other]), f"{other}: expected version 1.0+mlc2 as {NAME} has it, found {found}")


def test_content_that_does_not_match_record_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    """With a wrong RECORD, a wheel could keep its id and change its content."""
    lying = Archive(record=lambda rows: [[rows[0][0], digest(b"other"), rows[0][2]], *rows[1:]]).write(
        tmp_path / "first", FILES
    )
    output = tmp_path / "dist"
    output.mkdir()
    with finished(lying) as source:
        refused(
            lambda: source.write_to(output),
            "thing/library.so: expected",
            digest(b"other"),
            digest(FILES["thing/library.so"]),
        )
    assert list(output.iterdir()) == []


@pytest.mark.parametrize(
    "metadata",
    [b"Name: a-thing\n\n", METADATA.format("Version: 2\n").encode(), METADATA.replace("1.0", "1.1").encode()],
)
def test_metadata_of_another_version_are_refused(tmp_path: Path, metadata: bytes) -> None:
    path = Archive().write(tmp_path, {**FILES, f"{DIST_INFO}/METADATA": metadata})
    refused(lambda: finished(path), "expected one line 'Version: 1.0+mlc2' in METADATA")


def test_the_identity_of_another_wheel_is_refused(wheel: Path) -> None:
    refused(
        lambda: FinishedWheel(wheel, Identity("1.1+mlc2.b00000000")),
        "expected the identity of a_thing 1.0+mlc2, found that of 1.1+mlc2",
    )


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"version": "1"}', '{"version": "1", "requires": null}'])
def test_a_malformed_identity_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.json").write_text(content)
    refused(lambda: Identity.read(tmp_path / "x.json"), "x.json: expected a JSON object with version and requires")


def test_the_program_identifies_and_writes(
    wheel: Path, others: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*arguments: str) -> None:
        monkeypatch.setattr(
            sys,
            "argv",
            ["finish_wheel", *arguments, "--unversioned", str(wheel), "--identity", str(tmp_path / "x.json")],
        )
        assert finish_wheel.main() == 0

    (tmp_path / "other.version").write_text("3+mlc2.b00000000\n")
    (tmp_path / "dist").mkdir()
    with_others = [f"--with={other}" for other in others]
    run("identify", f"--pin=other={tmp_path}/other.version", *with_others, "--version", str(tmp_path / "x.version"))
    run("write", "--folder", str(tmp_path / "dist"))
    version = (tmp_path / "x.version").read_text().strip()
    assert version == identify(wheel, [PIN], others).version
    assert [path.name for path in (tmp_path / "dist").iterdir()] == [f"a_thing-{version}-py3-none-any.whl"]


@pytest.mark.parametrize("pin", ["other", "=file", "other="])
def test_a_malformed_pin_is_a_usage_error(
    pin: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["finish_wheel", "identify", "--pin", pin])
    with pytest.raises(SystemExit):
        finish_wheel.main()
    assert f"expected DISTRIBUTION=FILE, found '{pin}'" in capsys.readouterr().err
