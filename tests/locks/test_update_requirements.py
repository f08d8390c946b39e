"""Adding a distribution moves no other pin; --upgrade moves them all.

Against an index in a folder, with wheels that hold metadata only."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pip
import pytest

from fetch import errors, lock_file
from fetch.pypi import update_requirements

LOCK = f"""\
# a comment
new-style==1.0 \\
    --hash=sha256:{"0" * 64}
old==1.0 \\
    --hash=sha256:{"0" * 64}
"""


@pytest.fixture(autouse=True)
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index (PEP 503) with two versions of "old", and "added", which requires "old" of any version."""
    folder = tmp_path / "simple"
    for name, version, requires in (("old", "1.0", ""), ("old", "2.0", ""), ("added", "3.0", "Requires-Dist: old\n")):
        project = folder / name
        project.mkdir(parents=True, exist_ok=True)
        about = f"{name}-{version}.dist-info"
        with zipfile.ZipFile(project / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}")
            wheel.writestr(
                f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            )
            wheel.writestr(f"{about}/RECORD", "")
        links = "".join(f'<a href="{path.name}">{path.name}</a>\n' for path in sorted(project.glob("*.whl")))
        (project / "index.html").write_text(f"<!DOCTYPE html><html><body>{links}</body></html>")
    monkeypatch.setenv("PIP_INDEX_URL", folder.as_uri())
    # pytest's runner keeps its path to itself; pip runs as a process.
    monkeypatch.setenv("PYTHONPATH", str(Path(pip.__file__).parent.parent))
    return folder


def resolved(tmp_path: Path, asked: str, pins: list[str]) -> dict[str, str]:
    requirements = tmp_path / "requirements.in"
    requirements.write_text(asked)
    report = update_requirements.resolve(requirements, pins)
    return {entry["metadata"]["name"]: entry["metadata"]["version"] for entry in report}


def packages(version: str) -> list[dict]:
    """What uv answers for "old", which has a wheel for each processor."""
    urls = [
        f"https://example.org/old-{version}-cp311-cp311-manylinux_2_17_{each}.whl" for each in ("x86_64", "aarch64")
    ]
    hashes = {url: {"sha256": str(number) * 64} for number, url in enumerate(urls)}
    return [{"name": "Old", "version": version, "wheels": [{"url": url, "hashes": hashes[url]} for url in urls]}]


def test_arm64_gets_the_same_version_and_its_own_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple] = []

    def answer(*arguments: object) -> list[dict]:
        asked.append(arguments)
        return packages("1.0")

    monkeypatch.setattr(update_requirements, "resolve_for", answer)
    lock = update_requirements.arm64_lock("old # why\nadded\n", {"old": "1.0"})
    assert lock.endswith(f"old==1.0 \\\n    --hash=sha256:{'1' * 64}\n") and "on Linux arm64" in lock
    assert asked == [("3.11", ["old ", "added"], ["old==1.0"], "aarch64")]


def test_another_version_for_arm64_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(update_requirements, "resolve_for", lambda *_: packages("2.0"))
    with pytest.raises(
        errors.UserError, match="old: expected the version 1.0 of requirements.lock.txt .* found 2.0: dem"
    ):
        update_requirements.arm64_lock("old\n", {"old": "1.0"})


@pytest.mark.parametrize(
    ("machine", "files", "best"),
    [
        ("x86_64", ["a-1-py3-none-any.whl", "a-1-cp311-cp311-manylinux_2_17_x86_64.whl"], 1),
        ("aarch64", ["a-1-py3-none-any.whl", "a-1-cp311-cp311-manylinux_2_17_x86_64.whl"], 0),
        ("aarch64", ["a-1-cp39-abi3-manylinux2014_aarch64.whl", "a-1-cp311-cp311-manylinux_2_28_aarch64.whl"], 1),
        ("aarch64", ["a-1-cp311-cp311-manylinux_2_31_aarch64.whl", "a-1-cp311-cp311-manylinux_2_28_aarch64.whl"], 1),
    ],
)
def test_the_best_wheel_is_the_one_that_pip_takes(machine: str, files: list[str], best: int) -> None:
    wheels = [{"url": f"https://example.org/{file}", "hashes": {"sha256": file}} for file in files]
    package = {"name": "a", "version": "1", "wheels": wheels}
    assert update_requirements.best_wheel(package, "3.11", machine)["file"] == files[best]


def test_a_new_distribution_leaves_locked_versions_where_they_are(tmp_path: Path) -> None:
    assert resolved(tmp_path, "old\nadded\n", update_requirements.kept(LOCK, "old\nadded\n")) == {
        "added": "3.0",
        "old": "1.0",
    }


def test_upgrade_moves_them(tmp_path: Path) -> None:
    assert resolved(tmp_path, "old\nadded\n", []) == {"added": "3.0", "old": "2.0"}


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ("old\nnew.Style\n", ["new-style==1.0", "old==1.0"]),
        ("old>=1.5  # a newer one\n", ["new-style==1.0"]),
        ("# old>=1.5\nNew_Style!=1.0\n", ["old==1.0"]),
    ],
)
def test_what_requirements_in_rules_out_is_not_kept(asked: str, kept: list[str]) -> None:
    assert update_requirements.kept(LOCK, asked) == kept


def test_pins_in_the_way_are_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(errors.UserError, match="--upgrade lets them move"):
        resolved(tmp_path, "old\nadded\n", ["old==7"])
    assert "old==7" in capfd.readouterr().err


def test_a_command_that_cannot_do_its_work_says_why_in_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> int:
        raise errors.UserError("no mirror answers")

    with pytest.raises(SystemExit, match="2"):
        lock_file.run(main)
    assert capsys.readouterr().err == "no mirror answers\n"
