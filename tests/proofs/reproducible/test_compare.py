"""Differences between two builds are found, named by file and member, and shown. Archives with the same members in
another container are recognized.
"""

from __future__ import annotations

import gzip
import io
import os
import pathlib
import shutil
import tarfile
import zipfile
from collections.abc import Callable

import pytest

from release.private.reproduce import compare
from tests.oci.layouts import Content, write_layout

DIFFOSCOPE = pathlib.Path(os.environ["DIFFOSCOPE"]).absolute()

# The folders of the two builds.
Both = tuple[pathlib.Path, pathlib.Path]


def wheel(
    path: pathlib.Path, members: dict[str, str], compression: int = zipfile.ZIP_STORED, mode: int = 0o644
) -> pathlib.Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, text in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, text, compression)
    return path


def layer(path: pathlib.Path, members: dict[str, str], level: int = 9) -> pathlib.Path:
    with gzip.GzipFile(path, "wb", level, mtime=0) as file, tarfile.open(fileobj=file, mode="w") as archive:
        for name, text in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    return path


@pytest.fixture
def both(tmp_path: pathlib.Path) -> Both:
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    return tmp_path / "first", tmp_path / "second"


def test_the_same_bytes(both: Both) -> None:
    for folder in both:
        wheel(folder / "a.whl", {"m.py": "1"})
        write_layout(folder / "image", [{"etc/x": b"1"}])
    first, second = ({"a.whl": folder / "a.whl", "image": folder / "image"} for folder in both)
    count, different = compare.differences(first, second)
    # The wheel; index.json, oci-layout, manifest, configuration and one layer.
    assert (count, different) == (6, [])


def test_comparing_nothing_is_an_error(both: Both) -> None:
    with pytest.raises(compare.CompareError, match="expected files to compare, found none"):
        compare.differences({}, {})


def test_a_file_that_one_build_lacks(both: Both) -> None:
    for folder in both:
        (folder / "a").mkdir()
        (folder / "a/x").write_text("1")
    (both[1] / "a/y").write_text("1")
    _, [difference] = compare.differences({"a": both[0] / "a"}, {"a": both[1] / "a"})
    assert str(difference) == "a/y: only in the second build"
    _, [difference] = compare.differences({"a": both[1] / "a"}, {"a": both[0] / "a"})
    assert str(difference) == "a/y: only in the first build"


def test_an_artifact_that_the_second_build_lacks(both: Both) -> None:
    wheel(both[0] / "a.whl", {"m.py": "1"})
    _, [difference] = compare.differences({"a.whl": both[0] / "a.whl"}, {"a.whl": both[1] / "a.whl"})
    assert str(difference) == "a.whl: only in the first build"


def test_the_differing_member_of_a_wheel_is_named(both: Both, capfd: pytest.CaptureFixture[str]) -> None:
    for folder, text in zip(both, ("made on Monday\n", "made on Tuesday\n")):
        wheel(folder / "a.whl", {"same.py": "1", "pkg/about.txt": text})
    _, different = compare.differences({"a.whl": both[0] / "a.whl"}, {"a.whl": both[1] / "a.whl"})
    compare.tell(different, DIFFOSCOPE, both[0] / "page.html")
    told = capfd.readouterr().out
    assert "a.whl: " in told and "different content" in told
    assert "      pkg/about.txt\n" in told and "same.py\n" not in told
    assert "-made on Monday" in told and "+made on Tuesday" in told
    assert f"as a page: {both[0] / 'page.html'}" in told
    page = (both[0] / "page.html").read_text()
    assert "a.whl" in page and "pkg/about.txt" in page


def test_the_differing_layer_of_an_image_is_named_by_its_place(both: Both, capfd: pytest.CaptureFixture[str]) -> None:
    for folder, text in zip(both, (b"1\n", b"2\n")):
        write_layout(folder / "image", [{"etc/same": b"x"}, {"etc/other": text}])
    _, different = compare.differences({"images/i": both[0] / "image"}, {"images/i": both[1] / "image"})
    # The configuration names what the layer unpacks to.
    names = ["images/i/config.json", "images/i/layer-01.tar.gz", "images/i/manifest.json"]
    assert [difference.name for difference in different] == names
    compare.tell(different, DIFFOSCOPE, both[0] / "page.html")
    told = capfd.readouterr().out
    assert "images/i/layer-01.tar.gz" in told and "      etc/other\n" in told and "etc/same" not in told
    assert "-1" in told and "+2" in told


def test_an_additional_layer_is_named(both: Both) -> None:
    one: Content = {"a": b"1"}
    write_layout(both[0] / "image", [one])
    write_layout(both[1] / "image", [one, {"b": b"1"}])
    _, different = compare.differences({"i": both[0] / "image"}, {"i": both[1] / "image"})
    assert "i/layer-01.tar.gz: only in the second build" in map(str, different)


def test_a_difference_in_the_index_of_an_image_alone_is_found(both: Both) -> None:
    for folder in both:
        write_layout(folder / "image", [{"a": b"1"}])
    (both[1] / "image/index.json").write_text((both[1] / "image/index.json").read_text() + "\n")
    _, [difference] = compare.differences({"i": both[0] / "image"}, {"i": both[1] / "image"})
    assert difference.name == "i/index.json"


def test_programs_are_compared_as_programs(both: Both, capfd: pytest.CaptureFixture[str]) -> None:
    """The symbols and sections of ELF files are shown, not their bytes."""
    for folder, program in zip(both, ("cmp.unwrapped", "diff.unwrapped")):
        shutil.copyfile(DIFFOSCOPE.with_name(program), folder / "lib.so")
    _, different = compare.differences({"lib.so": both[0] / "lib.so"}, {"lib.so": both[1] / "lib.so"})
    compare.tell(different, DIFFOSCOPE, both[0] / "page.html")
    assert "readelf" in capfd.readouterr().out


@pytest.mark.parametrize("name", ["a.whl", "a.tar.gz"])
def test_the_same_members_in_another_container(both: Both, name: str) -> None:
    members = {"b.py": "1" * 1000, "a.py": "2", "x-1.dist-info/RECORD": "a.py,,\nb.py,,\n"}
    other = {
        "a.py": "2",
        "b.py": "1" * 1000,
        "x-1.dist-info/RECORD": "b.py,,\na.py,,\n" if name.endswith("whl") else "a.py,,\nb.py,,\n",
    }
    if name.endswith("whl"):
        paths = wheel(both[0] / name, members), wheel(both[1] / name, other, zipfile.ZIP_DEFLATED, 0o777)
    else:
        paths = layer(both[0] / name, members), layer(both[1] / name, other, 1)
    assert compare.same_members(*paths) and compare.changed_members(*paths) == []
    [difference] = compare.differences({name: paths[0]}, {name: paths[1]})[1]
    assert "the same members with the same content, packed differently" in str(difference)


@pytest.mark.parametrize("make, name", [(wheel, "a.whl"), (layer, "a.tar.gz")])
def test_other_members(both: Both, make: Callable[..., pathlib.Path], name: str) -> None:
    first = make(both[0] / name, {"a": "1", "b": "2"})
    assert not compare.same_members(first, make(both[1] / name, {"a": "1", "b": "3"}))
    assert compare.changed_members(first, both[1] / name) == ["b"]
    assert not compare.same_members(first, make(both[1] / name, {"a": "1"}))
    assert not compare.same_members(first, make(both[1] / name, {"a": "1", "c": "2"}))


def test_files_that_are_no_archives_have_no_members(both: Both) -> None:
    for folder in both:
        (folder / "x").write_text(str(folder))
    assert (
        not compare.same_members(both[0] / "x", both[1] / "x")
        and compare.changed_members(both[0] / "x", both[1] / "x") == []
    )


def test_a_missing_diffoscope_is_an_error(both: Both) -> None:
    for folder in both:
        (folder / "x").write_text(str(folder))
    different = compare.differences({"x": both[0] / "x"}, {"x": both[1] / "x"})[1]
    with pytest.raises(compare.CompareError, match="diffoscope: .*No such file"):
        compare.show(different, both[0] / "a/b/c/diffoscope", both[0] / "page.html")
