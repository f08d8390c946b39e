"""The package index keeps old wheels, refuses what would change one, and is whole whatever happens on the way."""

from __future__ import annotations

import hashlib
import html.parser
import json
import os
import pathlib
import shutil
import subprocess
import sys
import urllib.parse
import zipfile

import pytest

from fetch import errors
from wheels.private import index

COMMAND = [sys.executable, os.path.abspath(index.__file__)]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}

METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Python: >=3.10,<3.15\n\nText\n"


def wheel(folder: pathlib.Path, name: str = "thing", version: str = "1.0+mlc1", **files: str) -> pathlib.Path:
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}-{version}.dist-info/METADATA", METADATA.format(name=name, version=version))
        for each, content in files.items():
            archive.writestr(each, content)
    return path


class Links(html.parser.HTMLParser):
    """The links of a page: text → attributes."""

    def __init__(self, page: pathlib.Path) -> None:
        super().__init__()
        self.found: dict[str, dict[str, str | None]] = {}
        self.attributes: dict[str, str | None] = {}
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes = dict(attrs) if tag == "a" else {}

    def handle_data(self, data: str) -> None:
        if self.attributes:
            self.found[data] = self.attributes
            self.attributes = {}


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_each_link_leads_to_its_wheel_with_hash_and_pythons(tmp_path: pathlib.Path) -> None:
    path = wheel(tmp_path)
    index.add(tmp_path / "index", [path])
    page = tmp_path / "index/simple/thing/index.html"
    ((text, link),) = Links(page).found.items()
    href, _, fragment = (link["href"] or "").partition("#")
    assert text == path.name and fragment == f"sha256={digest(path.read_bytes())}"
    target = (page.parent / urllib.parse.unquote(href)).resolve()
    assert target.read_bytes() == path.read_bytes()
    metadata = METADATA.format(name="thing", version="1.0+mlc1").encode()
    assert target.with_name(target.name + ".metadata").read_bytes() == metadata
    assert link["data-core-metadata"] == link["data-dist-info-metadata"] == f"sha256={digest(metadata)}"
    assert link["data-requires-python"] == ">=3.10,<3.15"


def test_the_json_form_says_the_same(tmp_path: pathlib.Path) -> None:
    path = wheel(tmp_path)
    index.add(tmp_path / "index", [path])
    content = json.loads((tmp_path / "index/simple/thing/index.v1.json").read_text())
    assert content["meta"] == {"api-version": "1.1"} and content["versions"] == ["1.0+mlc1"]
    (file,) = content["files"]
    assert (file["filename"], file["size"]) == (path.name, path.stat().st_size)
    assert file["hashes"] == {"sha256": digest(path.read_bytes())} and file["requires-python"] == ">=3.10,<3.15"
    assert json.loads((tmp_path / "index/simple/index.v1.json").read_text())["projects"] == [{"name": "thing"}]


def test_old_versions_stay(tmp_path: pathlib.Path) -> None:
    for version in ("1.0", "2.0"):
        index.add(tmp_path / "index", [wheel(tmp_path, version=version)])
    index.add(tmp_path / "index", [wheel(tmp_path, "other_thing")])
    assert [each.split("-")[1] for each in Links(tmp_path / "index/simple/thing/index.html").found] == ["1.0", "2.0"]
    assert list(Links(tmp_path / "index/simple/index.html").found) == ["other-thing", "thing"]


def test_the_same_wheels_again_change_nothing(tmp_path: pathlib.Path) -> None:
    path = wheel(tmp_path)

    def content() -> dict[pathlib.Path, bytes]:
        index.add(tmp_path / "index", [path])
        return {file: file.read_bytes() for file in (tmp_path / "index").rglob("*") if file.is_file()}

    assert content() == content()


def test_another_file_of_the_same_name_is_refused(tmp_path: pathlib.Path) -> None:
    index.add(tmp_path / "index", [wheel(tmp_path)])
    before = (tmp_path / "index/simple/thing/index.html").read_bytes()
    with pytest.raises(
        index.WheelIndexError, match="expected the same file as in .*: an index must not change a version"
    ):
        index.add(tmp_path / "index", [wheel(tmp_path, more="x")])
    assert (tmp_path / "index/simple/thing/index.html").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("thing.whl", b"x", "thing.whl: expected a wheel, found"),
        ("thing-1.0-py3-none-any.whl", b"x", "expected an intact archive"),
        ("thing-1.0-py3-none-any.whl", None, "expected one thing-1.0.dist-info/METADATA .* found none"),
    ],
    ids=["name", "no archive", "no metadata"],
)
def test_what_is_no_wheel_is_refused(tmp_path: pathlib.Path, name: str, content: bytes | None, said: str) -> None:
    path = tmp_path / "in" / name
    path.parent.mkdir(parents=True)
    if content is None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("thing/__init__.py", "")
    else:
        path.write_bytes(content)
    with pytest.raises(errors.UserError, match=said):
        index.add(tmp_path / "index", [wheel(tmp_path, "good"), path])
    assert not list((tmp_path / "index").rglob("*.whl"))


@pytest.mark.parametrize(
    ("name", "version", "said"),
    [
        ("other", "1.0+mlc1", "expected METADATA of thing 1.0.mlc1, found that of 'other 1.0"),
        ("thing", "2.0", "expected METADATA of thing 1.0.mlc1, found that of 'thing 2.0'"),
    ],
)
def test_metadata_of_another_wheel_is_refused_and_breaks_nothing(
    tmp_path: pathlib.Path, name: str, version: str, said: str
) -> None:
    path = tmp_path / "thing-1.0+mlc1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("thing-1.0+mlc1.dist-info/METADATA", METADATA.format(name=name, version=version))
    with pytest.raises(index.WheelIndexError, match=said):
        index.add(tmp_path / "index", [path])
    index.add(tmp_path / "index", [wheel(tmp_path, "good")])
    assert list(Links(tmp_path / "index/simple/index.html").found) == ["good"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_metadata_are_refused(tmp_path: pathlib.Path) -> None:
    path = wheel(tmp_path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("thing-1.0+mlc1.dist-info/METADATA", "Name: evil\n")
    with pytest.raises(index.WheelIndexError, match="expected one thing-1.0.mlc1.dist-info/METADATA .* found more"):
        index.add(tmp_path / "index", [path])
    assert not list((tmp_path / "index").rglob("*.whl"))


def test_wheels_that_somebody_puts_there_or_removes_are_followed(tmp_path: pathlib.Path) -> None:
    index.add(tmp_path / "index", [wheel(tmp_path), wheel(tmp_path, "old")])
    for file in (tmp_path / "index/wheels").glob("old-*.whl"):
        file.unlink()
    shutil.copy(wheel(tmp_path, "mine"), tmp_path / "index/wheels")
    index.add(tmp_path / "index", [wheel(tmp_path)])
    assert list(Links(tmp_path / "index/simple/index.html").found) == ["mine", "thing"]
    assert sorted(path.name for path in (tmp_path / "index/simple").iterdir() if path.is_dir()) == ["mine", "thing"]


def test_a_foreign_file_in_the_index_is_named(tmp_path: pathlib.Path) -> None:
    index.add(tmp_path / "index", [wheel(tmp_path)])
    (tmp_path / "index/wheels/notes.whl").write_text("x")
    with pytest.raises(index.WheelIndexError, match="notes.whl: expected a wheel"):
        index.add(tmp_path / "index", [wheel(tmp_path, "other")])


def test_hostile_metadata_stays_text(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "thing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        hostile = '>=3"><script>alert(1)</script>'
        text = f"Metadata-Version: 2.1\nName: thing\nVersion: 1.0\nRequires-Python: {hostile}\n\n"
        archive.writestr("thing-1.0.dist-info/METADATA", text)
    index.add(tmp_path / "index", [path])
    page = tmp_path / "index/simple/thing/index.html"
    assert "<script>" not in page.read_text()
    assert Links(page).found[path.name]["data-requires-python"] == hostile


def test_a_full_disk_leaves_no_half_of_a_file(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index.add(tmp_path / "index", [wheel(tmp_path)])
    before = {file: file.read_bytes() for file in (tmp_path / "index").rglob("*") if file.is_file()}

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(index.shutil, "copyfileobj", full)
    with pytest.raises(OSError, match="No space left"):
        index.add(tmp_path / "index", [wheel(tmp_path, "other")])
    found = {file: file.read_bytes() for file in (tmp_path / "index").rglob("*") if file.is_file()}
    assert {file: content for file, content in found.items() if file.suffix != ".metadata"}.items() <= before.items()
    monkeypatch.undo()
    index.add(tmp_path / "index", [wheel(tmp_path, "third")])
    assert list(Links(tmp_path / "index/simple/index.html").found) == ["thing", "third"]


def test_two_at_once_lose_nothing(tmp_path: pathlib.Path) -> None:
    names = [f"thing{number}" for number in range(8)]
    running = [
        subprocess.Popen([*COMMAND, f"--folder={tmp_path / 'index'}", wheel(tmp_path, name)], env=ENVIRONMENT)
        for name in names
    ]
    assert [each.wait() for each in running] == [0] * len(names)
    assert list(Links(tmp_path / "index/simple/index.html").found) == names


def test_the_command_says_how_to_install(tmp_path: pathlib.Path) -> None:
    done = subprocess.run(
        [*COMMAND, "--folder=index", wheel(tmp_path)], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    url = (tmp_path / "index/simple").as_uri()
    assert f"pip install --extra-index-url {url} thing==1.0+mlc1\n" in done.stdout
