"""Layers are compressed in several ways; every reader here reads all, and the bytes depend on the content alone."""

from __future__ import annotations

import hashlib
import io
import os
import pathlib

import pytest
from backports import zstd
from layouts import write_layout

from fetch import archives
from oci.layer import Layer
from oci.layout import Image, LayoutError
from oci.layout_writer import write_plain

CONTENT = bytes(range(256)) * 8192
ENDINGS = (".tar", ".tar.gz", ".tar.zst")


def layer() -> Layer:
    made = Layer()
    made.add_file("folder/file", CONTENT, "a test")
    return made


@pytest.fixture(params=ENDINGS)
def image(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Image:
    return Image(write_layout(tmp_path / "image", [layer()], ending=request.param))


def spoil(image: Image, change: bytes, position: int) -> None:
    path = image.blob(image.layer_digests[0])
    content = bytearray(path.read_bytes())
    content[position : position + len(change)] = change
    path.write_bytes(content)


def test_a_layer_is_read_whatever_compresses_it(image: Image) -> None:
    assert image.files["folder/file"].data == CONTENT
    assert [path for path, _, _ in image.walk(0)] == ["folder", "folder/file"]


def test_the_media_type_says_what_compresses_it(tmp_path: pathlib.Path) -> None:
    written = [layer().write(tmp_path / f"layer{ending}") for ending in ENDINGS]
    kinds = [each.descriptor["mediaType"].rpartition(".")[2] for each in written]
    assert kinds == ["tar", "tar+gzip", "tar+zstd"]
    assert len({each.diff_id for each in written}) == 1
    assert len({each.descriptor["digest"] for each in written}) == 3


def test_bytes_do_not_depend_on_the_number_of_cores(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    for cores in (1, 2, 5):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: range(cores))
        large = layer()
        # More than a worker of zstd takes at once.
        large.add_file("noise", b"".join(n.to_bytes(4, "little") for n in range(6_000_000)), "a test")
        written.append(large.write(tmp_path / f"{cores}.tar.zst"))
    assert written[0] == written[1] == written[2]


@pytest.mark.parametrize("before", [bytes([0x50, 0x2A, 0x4D, 0x18, 4, 0, 0, 0]) + b"skip", b""])
@pytest.mark.parametrize("frames", [1, 3])
def test_zstd_may_have_frames_to_skip_and_several(tmp_path: pathlib.Path, before: bytes, frames: int) -> None:
    plain = tmp_path / "layer.tar"
    layer().write(plain)
    content, part = plain.read_bytes(), plain.stat().st_size // frames + 1
    packed = b"".join(zstd.compress(content[begin : begin + part]) for begin in range(0, len(content), part))
    with archives.open_tar(io.BytesIO(before + packed), "a layer") as tar:
        (file,) = (member for member in tar if member.isreg())
        assert archives.content(tar, file).read() == CONTENT


@pytest.mark.parametrize("ending", ENDINGS)
def test_however_a_truncated_file_is_read_it_is_a_line(tmp_path: pathlib.Path, ending: str) -> None:
    path = tmp_path / f"layer{ending}"
    layer().write(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for read in (
        lambda file: file.read(),
        lambda file: hashlib.file_digest(file, "sha256"),
        lambda file: list(iter(file.readline, b"")),
    ):
        with pytest.raises(archives.ArchiveError), archives.open_tar_file(path) as tar:
            for member in tar:
                if member.isreg():
                    read(archives.content(tar, member))


def test_any_image_is_written_again_without_compression(image: Image, tmp_path: pathlib.Path) -> None:
    size = write_plain(image, tmp_path / "plain")
    plain = Image(tmp_path / "plain")
    assert (plain.config, plain.layer_digests) == (image.config, image.config["rootfs"]["diff_ids"])
    assert plain.files["folder/file"].data == CONTENT and size == plain.manifest["layers"][0]["size"]
    assert not plain.has_zstd


def test_only_zstd_is_zstd(image: Image) -> None:
    assert image.has_zstd == (image.manifest["layers"][0]["mediaType"] == "application/vnd.oci.image.layer.v1.tar+zstd")


@pytest.mark.parametrize("ending", ENDINGS[1:])
@pytest.mark.parametrize("damage", ["noise", "truncation"])
def test_a_damaged_layer_is_a_line(tmp_path: pathlib.Path, ending: str, damage: str) -> None:
    image = Image(write_layout(tmp_path / "image", [layer()], ending=ending))
    if damage == "noise":
        spoil(image, b"\xff" * 64, 200)
    else:
        path = image.blob(image.layer_digests[0])
        path.write_bytes(path.read_bytes()[:-40])
    damaged = (LayoutError, archives.ArchiveError)
    with pytest.raises(damaged, match="expected an intact archive, found a damaged one") as caught:
        assert image.files
    assert "\n" not in str(caught.value)
    with pytest.raises(archives.ArchiveError, match="expected an intact archive, found a damaged one"):
        write_plain(image, tmp_path / "plain")


def test_a_layer_that_unpacks_to_too_much_is_refused(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image(write_layout(tmp_path / "image", [layer()], ending=".tar.zst"))
    monkeypatch.setattr(archives, "MOST_BYTES", len(CONTENT) // 2)
    with pytest.raises(archives.ArchiveError, match="found more"):
        write_plain(image, tmp_path / "plain")
    assert sum(path.stat().st_size for path in tmp_path.glob("plain/blobs/**/*") if path.is_file()) < len(CONTENT)


def test_a_layer_that_the_configuration_does_not_name_is_refused(tmp_path: pathlib.Path) -> None:
    image = Image(write_layout(tmp_path / "image", [layer()], ending=".tar"))
    spoil(image, b"other", 2000)
    with pytest.raises(archives.ArchiveError, match="expected the layers that its configuration names"):
        write_plain(image, tmp_path / "plain")
