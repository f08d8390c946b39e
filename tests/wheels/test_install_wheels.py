"""install_wheels installs this build's wheels under their full version, and only the chosen files."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import pathlib
import sys
import zipfile

import pytest
from wheels_under_test import record_digest

from wheels.finished import FinishedWheel, identify
from wheels.private import install_wheels


def _files(folder: pathlib.Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _unversioned(folder: pathlib.Path, content: bytes = b"x = 1\n", recorded: bytes | None = None) -> pathlib.Path:
    """A wheel without build id; RECORD has the hash of `recorded` instead of the content's, if given."""
    path = folder / "thing-1.0+mlc2-py3-none-any.whl"
    files = {
        "thing.py": content,
        "thing-1.0+mlc2.dist-info/METADATA": b"Metadata-Version: 2.1\nName: thing\nVersion: 1.0+mlc2\n\n",
        "thing-1.0+mlc2.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "thing-1.0+mlc2.dist-info/entry_points.txt": b"[console_scripts]\nthing = thing:main\n",
    }
    record = ""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
            known = recorded if recorded is not None and name == "thing.py" else data
            record += f"{name},{record_digest(known)},{len(known)}\n"
        archive.writestr("thing-1.0+mlc2.dist-info/RECORD", record + "thing-1.0+mlc2.dist-info/RECORD,,\n")
    return path


def _install(monkeypatch: pytest.MonkeyPatch, to: pathlib.Path, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["install_wheels", f"--to={to}", *arguments])
    return install_wheels.main()


def test_a_wheel_of_this_build_is_installed_as_the_finished_one(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Installs the same files without compressing the wheel first."""
    wheel = _unversioned(tmp_path)
    identity = identify(wheel, ["other==3"])
    identity.write(tmp_path / "thing.json")
    with FinishedWheel(wheel, identity) as source:
        finished = source.write_to(tmp_path)
    assert _install(monkeypatch, tmp_path / "one", "--unversioned", str(wheel), str(tmp_path / "thing.json")) == 0
    assert _install(monkeypatch, tmp_path / "two", str(finished)) == 0
    contents = [
        {path: (tmp_path / each / path).read_bytes() for path in _files(tmp_path / each)} for each in ("one", "two")
    ]
    assert contents[0] == contents[1] and f"thing-{identity.version}.dist-info/RECORD" in contents[0]
    (installed,) = importlib.metadata.distributions(name="thing", path=[str(tmp_path / "one")])
    assert (installed.version, installed.requires) == (identity.version, ["other==3"])


def test_content_that_does_not_match_record_is_refused(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wheel = _unversioned(tmp_path, recorded=b"x = 2\n")
    identify(wheel, []).write(tmp_path / "thing.json")
    assert _install(monkeypatch, tmp_path / "one", "--unversioned", str(wheel), str(tmp_path / "thing.json")) == 1
    assert "thing.py didn't match RECORD" in capsys.readouterr().err


SCRIPT = b"#!python\nprint(1)\n"


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("path", ["thing.py", "thing-1.0.data/scripts/thing"])
@pytest.mark.parametrize("recorded", [SCRIPT, SCRIPT + b"more"])
def test_every_kind_of_file_is_compared_with_record(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    algorithm: str,
    path: str,
    recorded: bytes,
) -> None:
    def entry(name: str, data: bytes) -> str:
        digest = base64.urlsafe_b64encode(hashlib.new(algorithm, data).digest()).decode().rstrip("=")
        return f"{name},{algorithm}={digest},{len(data)}\n"

    wheel = tmp_path / "thing-1.0-py3-none-any.whl"
    information = b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(path, SCRIPT)
        archive.writestr("thing-1.0.dist-info/WHEEL", information)
        record = entry(path, recorded) + entry("thing-1.0.dist-info/WHEEL", information)
        archive.writestr("thing-1.0.dist-info/RECORD", record + "thing-1.0.dist-info/RECORD,,\n")
    assert _install(monkeypatch, tmp_path / "to", str(wheel)) == (recorded != SCRIPT)
    assert capsys.readouterr().err == (
        f"install_wheels: {wheel.name}: {path} didn't match RECORD\n" if recorded != SCRIPT else ""
    )


def test_metadata_is_compared_though_it_is_not_chosen(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Commands are made of entry_points.txt."""
    wheel = _unversioned(tmp_path)
    changed = tmp_path / "changed" / wheel.name
    changed.parent.mkdir()
    with zipfile.ZipFile(wheel) as before, zipfile.ZipFile(changed, "w") as after:
        for name in before.namelist():
            after.writestr(name, before.read(name).replace(b"thing = thing:main", b"thing = other:main"))
    assert _install(monkeypatch, tmp_path / "to", "--include=bin/*", str(changed)) == 1
    assert "entry_points.txt didn't match RECORD" in capsys.readouterr().err


def test_what_is_not_chosen_is_not_read(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would take longer than the rest of an image's layer, which takes a small part of a large wheel."""
    wheel = _unversioned(tmp_path, recorded=b"x = 2\n")
    assert _install(monkeypatch, tmp_path / "one", "--include=*.dist-info/*", str(wheel)) == 0
    assert "thing.py" not in _files(tmp_path / "one")


def test_the_identity_of_another_wheel_is_refused_in_one_line(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wheel = _unversioned(tmp_path)
    (tmp_path / "thing.json").write_text('{"version": "2.0+mlc2.b0", "requires": []}')
    assert _install(monkeypatch, tmp_path / "one", "--unversioned", str(wheel), str(tmp_path / "thing.json")) == 1
    said = capsys.readouterr().err
    assert "expected the identity of thing 1.0+mlc2, found that of 2.0+mlc2.b0" in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("globs", "expected"),
    [
        ([], {"thing.py", "bin/thing", "METADATA", "WHEEL", "entry_points.txt", "INSTALLER", "RECORD"}),
        (["--exclude=bin/*", "--exclude=*.dist-info/*"], {"thing.py"}),
        (["--include=*.dist-info/*"], {"METADATA", "WHEEL", "entry_points.txt", "INSTALLER", "RECORD"}),
        (["--include=thing.py", "--include=bin/*", "--exclude=*.py"], {"bin/thing"}),
    ],
)
def test_only_chosen_files_are_written_and_record_lists_all(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, globs: list[str], expected: set[str]
) -> None:
    wheel = _unversioned(tmp_path)
    identify(wheel, []).write(tmp_path / "thing.json")
    source = ("--unversioned", str(wheel), str(tmp_path / "thing.json"))
    assert _install(monkeypatch, tmp_path / "all", *source) == 0
    assert _install(monkeypatch, tmp_path / "chosen", *source, *globs) == 0
    folder = f"{next((tmp_path / 'all').glob('*.dist-info')).name}/"
    assert {path.removeprefix(folder) for path in _files(tmp_path / "chosen")} == expected
    assert all(any(folder.iterdir()) for folder in (tmp_path / "chosen").rglob("*") if folder.is_dir())
    for path in _files(tmp_path / "chosen"):
        assert (tmp_path / "chosen" / path).read_bytes() == (tmp_path / "all" / path).read_bytes()


@pytest.mark.parametrize("option", ["--include", "--exclude"])
def test_a_glob_without_matches_is_an_error(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    wheel = _unversioned(tmp_path)
    identify(wheel, []).write(tmp_path / "thing.json")
    source = ("--unversioned", str(wheel), str(tmp_path / "thing.json"))
    assert _install(monkeypatch, tmp_path / "one", *source, f"{option}=a/*.dll") == 1
    assert capsys.readouterr().err == "install_wheels: expected files that match 'a/*.dll', found none\n"
