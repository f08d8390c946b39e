"""Jars come from where this machine's Maven downloads from, with this user's login, and are pinned by hash."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import pathlib
import threading
import urllib.parse
import zipfile
from collections.abc import Callable

import pytest

from fetch import credentials, errors
from fetch.git import update_sources
from fetch.maven import repository

MAVEN = pathlib.Path(os.environ["MAVEN"])
JAR = {"group": "org.example", "artifact": "a", "version": "1.0", "classifier": "linux"}
MIRROR = "<mirror><id>m</id><mirrorOf>{of}</mirrorOf><url>{url}</url></mirror>"
SERVER = "<server><id>{id}</id><username>{user}</username><password>{password}</password></server>"


@pytest.fixture
def settings(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., pathlib.Path]:
    """Writes the user's settings.xml; the machine has none."""
    monkeypatch.setattr(repository.folders, "home", lambda: str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setattr(repository, "settings_files", lambda: [tmp_path / ".m2/settings.xml"])
    for variable in ("MLC_MAVEN_URL", "MAVEN_HOME"):
        monkeypatch.delenv(variable, raising=False)
    credentials._learned.clear()
    credentials._entries.cache_clear()
    (tmp_path / ".m2").mkdir()

    def write(mirrors: str = "", servers: str = "", namespace: str = "") -> pathlib.Path:
        path = tmp_path / ".m2/settings.xml"
        content = f"<mirrors>{mirrors}</mirrors><servers>{servers}</servers>"
        path.write_text(f"<settings{namespace}>{content}</settings>")
        return path

    return write


def asked(capsys: pytest.CaptureFixture[str]) -> dict:
    assert repository.main([f"--maven={MAVEN}", "org/example/a.jar"]) == 0
    return json.loads(capsys.readouterr().out)


def test_without_settings_it_is_the_repository_that_maven_itself_asks(settings: Callable[..., pathlib.Path]) -> None:
    url = urllib.parse.urlsplit(repository.base_url(MAVEN))
    assert (url.scheme, url.path) == ("https", "/maven2") and "maven" in (url.hostname or "")
    settings()
    assert urllib.parse.urlsplit(repository.base_url(MAVEN)) == url


@pytest.mark.parametrize("of", ["*", "central", "external:*", "other, central", "*,!other"])
@pytest.mark.parametrize("namespace", ["", ' xmlns="http://maven.apache.org/SETTINGS/1.2.0"'])
def test_a_mirror_of_the_central_repository_takes_its_place(
    settings: Callable[..., pathlib.Path], of: str, namespace: str
) -> None:
    other = MIRROR.format(of="other", url="https://other.example.org")
    settings(other + MIRROR.format(of=of, url="https://mirror.example.org/maven/"), namespace=namespace)
    assert repository.base_url(MAVEN) == "https://mirror.example.org/maven"


@pytest.mark.parametrize("of", ["other", "*,!central", "external:http:*", ""])
def test_a_mirror_of_others_does_not(settings: Callable[..., pathlib.Path], of: str) -> None:
    settings(MIRROR.format(of=of, url="https://mirror.example.org"))
    assert "mirror" not in repository.base_url(MAVEN)


def test_the_variable_goes_before_the_settings(
    settings: Callable[..., pathlib.Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings(MIRROR.format(of="*", url="https://mirror.example.org"))
    monkeypatch.setenv("MLC_MAVEN_URL", "https://bob:s%2Fcret@variable.example.org/m")
    assert repository.base_url(MAVEN) == "https://variable.example.org/m"
    assert credentials.find("https://variable.example.org/m/a.jar") == credentials.Login("bob", "s/cret")


def test_the_mirrors_server_has_the_login_and_the_address_does_not(
    settings: Callable[..., pathlib.Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "s@cr/t")
    servers = SERVER.format(id="other", user="eve", password="no") + SERVER.format(
        id="m", user="bob", password="${env.TOKEN}"
    )
    settings(MIRROR.format(of="*", url="https://mirror.example.org/m"), servers)
    found = asked(capsys)
    assert found["url"] == "https://mirror.example.org/m/org/example/a.jar"
    assert found["auth"] == {"type": "basic", "login": "bob", "password": "s@cr/t"}


def test_an_encrypted_password_is_one_line_that_says_what_to_do(
    settings: Callable[..., pathlib.Path], capsys: pytest.CaptureFixture[str]
) -> None:
    settings(
        MIRROR.format(of="*", url="https://mirror.example.org"),
        SERVER.format(id="m", user="bob", password="{COQLCE6DU6GtcS5P=}"),
    )
    assert repository.main([f"--maven={MAVEN}", "a.jar"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "the password of server 'm' is encrypted" in line and "MLC_MAVEN_URL" in line and "COQL" not in line


@pytest.mark.parametrize("password", ["expires 2030 {COQLCE6DU6GtcS5P=}", "${env.NOT_SET_ANYWHERE}"])
def test_no_password_goes_out_that_is_none(settings: Callable[..., pathlib.Path], password: str) -> None:
    mirror = MIRROR.format(of="*", url="https://mirror.example.org")
    settings(mirror, SERVER.format(id="m", user="bob", password=password))
    with pytest.raises(repository.MavenError, match="the password of server 'm'"):
        repository.base_url(MAVEN)


def test_a_mirror_that_names_the_repository_goes_before_one_for_all_and_a_blocked_one_is_none(
    settings: Callable[..., pathlib.Path],
) -> None:
    blocked = "<mirror><mirrorOf>central</mirrorOf><url>https://no.example.org</url><blocked>true</blocked></mirror>"
    every = MIRROR.format(of="*", url="https://all.example.org")
    settings(blocked + every + MIRROR.format(of="central", url="https://central.example.org"))
    assert repository.base_url(MAVEN) == "https://central.example.org"
    settings(blocked + every)
    assert repository.base_url(MAVEN) == "https://all.example.org"


def test_the_users_server_is_for_the_machines_mirror(
    settings: Callable[..., pathlib.Path], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = settings(MIRROR.format(of="*", url="https://mirror.example.org")).rename(tmp_path / "machine.xml")
    user = settings("", SERVER.format(id="m", user="bob", password="secret"))
    monkeypatch.setattr(repository, "settings_files", lambda: [user, machine])
    assert repository.base_url(MAVEN) == "https://mirror.example.org"
    assert credentials.find("https://mirror.example.org/a.jar") == credentials.Login("bob", "secret")


def test_mirrors_with_variables_that_are_not_set_are_one_line(settings: Callable[..., pathlib.Path]) -> None:
    settings(MIRROR.format(of="*", url="${repo.url}/m"))
    with pytest.raises(repository.MavenError, match="has variables that are not set"):
        repository.base_url(MAVEN)


@pytest.mark.parametrize("content", ["", "<settings>", "\0", "<a/><b/>", '<?xml version="1.0" encoding="foo"?><a/>'])
def test_settings_that_cannot_be_read_are_one_line(
    settings: Callable[..., pathlib.Path], capsys: pytest.CaptureFixture[str], content: str
) -> None:
    settings().write_text(content)
    assert repository.main([f"--maven={MAVEN}", "a.jar"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "settings.xml: expected Maven's settings, found" in line and "MLC_MAVEN_URL" in line


@pytest.mark.parametrize("content", [None, b"", b"x"], ids=["none", "empty", "no archive"])
def test_an_archive_that_is_not_mavens_is_one_line(
    settings: Callable[..., pathlib.Path], tmp_path: pathlib.Path, content: bytes | None
) -> None:
    path = tmp_path / "x.jar"
    if content is None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("other", "")
    else:
        path.write_bytes(content)
    with pytest.raises(repository.MavenError, match="MLC_MAVEN_URL"):
        repository.base_url(path)


def test_the_lock_has_path_size_and_hash(
    settings: Callable[..., pathlib.Path], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = repository.path_of(JAR)
    assert path == "org/example/a/1.0/a-1.0-linux.jar"
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_bytes(b"jar")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(tmp_path))  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("MLC_MAVEN_URL", f"http://127.0.0.1:{server.server_port}")
        try:
            found = update_sources.jar({"registry": "maven", "about": "a", **JAR})
            with pytest.raises(errors.UserError):
                update_sources.jar({"registry": "maven", "about": "a", **JAR, "version": "2.0"})
        finally:
            server.shutdown()
            thread.join()
    assert found == {
        "registry": "maven",
        **JAR,
        "path": path,
        "file": "a-1.0-linux.jar",
        "size": 3,
        "sha256": hashlib.sha256(b"jar").hexdigest(),
    }
