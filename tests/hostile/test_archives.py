"""Nothing of an archive gets out of the folder that it is unpacked into, and what is refused is refused in one line."""

from __future__ import annotations

import hashlib
import io
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fetch import archives as reader
from fetch import errors
from fetch.debian import archive as debian
from fetch.debian import unpack
from fetch.pypi import extract
from tests.hostile import archives
from tools.launcher import install

Unpacker = Callable[[Path, Path], object]


@pytest.fixture(autouse=True)
def alarm() -> Iterator[None]:
    """Ends a reader that runs round in circles."""

    def stop(*_: object) -> None:
        pytest.fail("the reader does not end")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def by_the_build(archive: Path, root: Path) -> None:
    unpack.unpack(archive, root)


def by_the_launcher(archive: Path, root: Path) -> None:
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    archive.rename(archive.with_name(f"{sha256}.deb"))
    size = archive.with_name(f"{sha256}.deb").stat().st_size
    package = debian.Package("x", "1", "all", sha256, size, "", "forky", "debian", {})
    install._package(package, archive.parent, root, lambda received: None)


def of_a_wheel(archive: Path, root: Path) -> None:
    extract.extract(archive, root, "", [])


class Place:
    """A folder to unpack into, with a file and a link of an earlier archive, and a file of the machine next to it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root = folder, folder / "root"
        self.root.mkdir()
        (self.root / "before").write_text("before")
        (self.root / "before_link").symlink_to(".")
        (folder / archives.OUTSIDE).mkdir()
        (folder / archives.OUTSIDE / "victim").write_text("victim")
        (folder / "downloads").mkdir()

    def write(self, name: str, data: bytes) -> Path:
        path = self.folder / "downloads" / name
        path.write_bytes(data)
        return path

    def assert_untouched(self) -> None:
        outside = self.folder / archives.OUTSIDE
        assert [path.name for path in outside.iterdir()] == ["victim"]
        assert (outside / "victim").read_text() == "victim"
        assert (outside / "victim").stat().st_nlink == 1
        assert (self.root / "before").read_text() == "before"
        assert (self.root / "before").stat().st_nlink == 1
        assert sorted(path.name for path in self.folder.iterdir()) == ["downloads", archives.OUTSIDE, "root"]
        for path in self.root.rglob("*"):
            assert path.is_symlink() or path.is_file() or path.is_dir(), f"{path} is a device"
            assert self.root in (path.resolve(), *path.resolve().parents), f"{path} leads out"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "place").mkdir()
    return Place(tmp_path / "place")


def refused(place: Place, unpacker: Unpacker, name: str, data: bytes) -> None:
    try:
        with pytest.raises(errors.UserError) as error:
            unpacker(place.write(name, data), place.root)
        assert len(str(error.value).splitlines()) == 1
        assert str(error.value).isprintable()
    finally:
        place.assert_untouched()


@pytest.mark.parametrize("unpacker", [by_the_build, by_the_launcher])
@pytest.mark.parametrize("name", archives.TARS)
def test_a_hostile_package_is_refused(place: Place, name: str, unpacker: Unpacker) -> None:
    refused(place, unpacker, "x.deb", archives.package(archives.TARS[name]))


@pytest.mark.parametrize("unpacker", [by_the_build, by_the_launcher])
@pytest.mark.parametrize("name", archives.PACKAGES)
def test_a_damaged_package_is_refused(place: Place, name: str, unpacker: Unpacker) -> None:
    refused(place, unpacker, "x.deb", archives.PACKAGES[name])


@pytest.mark.parametrize("unpacker", [by_the_build, by_the_launcher])
def test_hard_links_count_as_the_copies_that_they_become(
    place: Place, unpacker: Unpacker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes 512 bytes of the archive, and much less when compressed."""
    monkeypatch.setattr(reader, "MOST_BYTES", 1 << 20)
    links = [archives.member(f"h{number}", archives.HARD, "f") for number in range(64)]
    refused(place, unpacker, "x.deb", archives.package(archives.tar(archives.member("f", data=bytes(1 << 17)), *links)))
    written = sum(path.stat().st_size for path in place.root.rglob("*") if path.is_file())
    assert written <= reader.MOST_BYTES + len("before")


def test_all_that_is_written_counts_whatever_the_archive_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MOST_BYTES", 1 << 20)
    with pytest.raises(reader.ArchiveError, match="x: expected at most"), reader.Extractor(tmp_path, "x") as extractor:
        extractor.file("f", io.BytesIO(bytes(2 << 20)), executable=False)
    assert (tmp_path / "f").stat().st_size <= reader.MOST_BYTES


@pytest.mark.parametrize("name", archives.WHEELS)
def test_a_hostile_wheel_is_refused(place: Place, name: str) -> None:
    refused(place, of_a_wheel, "x-1-py3-none-any.whl", archives.WHEELS[name])


@pytest.mark.parametrize("unpacker", [by_the_build, by_the_launcher])
@pytest.mark.parametrize("name", archives.HARMLESS)
def test_a_harmless_package_is_unpacked(tmp_path: Path, name: str, unpacker: Unpacker) -> None:
    data, wanted = archives.HARMLESS[name]
    (tmp_path / "x.deb").write_bytes(archives.package(data))
    unpacker(tmp_path / "x.deb", tmp_path / "root")
    found = {
        str(path.relative_to(tmp_path / "root")): f"-> {os.readlink(path)}" if path.is_symlink() else path.read_text()
        for path in (tmp_path / "root").rglob("*")
        if path.is_symlink() or path.is_file()
    }
    assert found == wanted
    assert all(path.stat().st_nlink == 1 for path in (tmp_path / "root").rglob("*") if path.is_file())


def test_a_package_may_not_write_below_what_another_has_made_a_link(tmp_path: Path) -> None:
    """The order of two packages does not matter, nor which of them is hostile."""
    link = archives.tar(archives.member("usr/lib", archives.LINK, "../opt"))
    file = archives.tar(archives.member("usr/lib/x", data=b"x"))
    for number, (first, second) in enumerate([(link, file), (file, link)]):
        root = tmp_path / str(number)
        (tmp_path / "a.deb").write_bytes(archives.package(first))
        (tmp_path / "b.deb").write_bytes(archives.package(second))
        unpack.unpack(tmp_path / "a.deb", root)
        with pytest.raises(errors.UserError, match=r"b\.deb: refused 'usr/lib"):
            unpack.unpack(tmp_path / "b.deb", root)


def test_the_refusal_of_a_layer_names_the_package(tmp_path: Path) -> None:
    from oci.layer import Layer
    from oci.private.debian_packages import add_package

    (tmp_path / "x.deb").write_bytes(archives.package(archives.TARS["name with .."]))
    with pytest.raises(errors.UserError, match=r"x\.deb: refused"):
        add_package(Layer(), tmp_path / "x.deb")
