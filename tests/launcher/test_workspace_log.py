"""Packs learn from Bazel's log what a build downloads."""

from __future__ import annotations

import pytest

from tools import workspace_log

DIGEST = "0f" * 32
OTHER = "1e" * 32


def varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def field(number: int, value: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(value)) + value


def event(number: int, message: bytes) -> bytes:
    """One entry of the log: its length, location and context, as Bazel writes them, then the event itself."""
    body = field(1, b"rules.bzl:1:2") + field(2, b"repository @@r") + field(number, message)
    return varint(len(body)) + body


def download(output: str, digest: str, url: str = "https://example.org/a/b.tar") -> bytes:
    # Field 4 says whether the file is executable.
    return field(1, url.encode()) + field(2, output.encode()) + field(3, digest.encode()) + varint(4 << 3) + varint(1)


def test_a_download_that_bazel_logged_is_found() -> None:
    """The log of Bazel 7.7.1 for one Debian package; only the folder and the mirror are renamed."""
    logged = (
        b"\xb1\x02\n5/home/me/tree/fetch/debian/private/download.bzl:42:37"
        b"\x12&repository @@_main~debian~debian_shell"
        b'"\xcf\x01\n]http://mirror.example/debian'
        b"/pool/main/b/busybox/busybox-static_1.35.0-4+deb12u1+b1_amd64.deb"
        b"\x12,busybox-static_1.35.0-4+deb12u1+b1_amd64.deb"
        b"\x1a@3d3fdbe91d4660c873e14b092c213fe81c1da6362daa236eb25d0171eb108744"
    )
    digest = "3d3fdbe91d4660c873e14b092c213fe81c1da6362daa236eb25d0171eb108744"
    assert workspace_log.downloads(logged) == {digest: "busybox-static_1.35.0-4+deb12u1+b1_amd64.deb"}


def test_each_download_has_the_name_of_its_output() -> None:
    log = event(4, download("folder/x_1.deb", DIGEST)) + event(4, download("y.whl", OTHER))
    assert workspace_log.downloads(log) == {DIGEST: "x_1.deb", OTHER: "y.whl"}


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://files.example.org/ab/one-1.0-py3-none-any.whl#sha256=00", "one-1.0-py3-none-any.whl"),
        ("https://files.example.org/ab/one-1.0%2Bcpu-py3-none-any.whl?x=/y", "one-1.0+cpu-py3-none-any.whl"),
        ("file:///view/simple/one/one-1.0.tar.gz", "one-1.0.tar.gz"),
        ("https://crates.example.org/itoa/1.0.15/download", "wheel.zip"),
    ],
)
def test_a_file_of_pypi_has_the_name_in_its_url(url: str, name: str) -> None:
    """Its output is called what no index chose."""
    assert workspace_log.downloads(event(4, download("wheel.zip", DIGEST, url))) == {DIGEST: name}


def test_names_longer_than_127_bytes_are_read() -> None:
    name = "x" * 300 + ".deb"
    assert workspace_log.downloads(event(4, download(name, DIGEST))) == {DIGEST: name}


def test_an_archive_that_bazel_unpacks_has_the_name_in_its_url() -> None:
    assert workspace_log.downloads(event(5, download(".", DIGEST))) == {DIGEST: "b.tar"}


def test_other_events_are_no_downloads_whatever_their_bytes() -> None:
    disguised = field(2, b"x.deb") + field(3, DIGEST.encode())
    assert workspace_log.downloads(event(3, disguised) + event(7, field(1, disguised))) == {}
    assert workspace_log.downloads(event(3, download("x.deb", DIGEST)) + event(4, download("y", OTHER))) == {OTHER: "y"}


def test_downloads_without_a_hash_are_left_out() -> None:
    assert workspace_log.downloads(event(4, field(2, b"x.deb"))) == {}


def test_fixed_size_fields_are_skipped() -> None:
    fixed = varint(9 << 3 | 1) + b"8 bytes." + varint(9 << 3 | 5) + b"four"
    assert workspace_log.downloads(event(4, fixed + download("x", DIGEST))) == {DIGEST: "x"}


@pytest.mark.parametrize("cut", [1, 40, 100])
def test_a_truncated_log_is_an_error(cut: int) -> None:
    with pytest.raises(ValueError, match="truncated"):
        workspace_log.downloads(event(4, download("x.deb", DIGEST))[:-cut])


def test_another_file_is_an_error() -> None:
    with pytest.raises(ValueError, match="wire type"):
        workspace_log.downloads(b"\x02\x0f\x0f")
    with pytest.raises(ValueError, match="varint"):
        workspace_log.downloads(b"\xff" * 20)
