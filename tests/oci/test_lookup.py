"""A tag is free only if its registry says so, and credentials go where the registry's challenge says, nowhere else."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import io
import json
import pathlib
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from email.message import Message

import pytest

from oci import lookup
from oci.credentials import CredentialsError, Login, api_host, docker_config, login

MANIFEST = b'{"schemaVersion": 2}'
DIGEST = "sha256:" + hashlib.sha256(MANIFEST).hexdigest()
Answer = tuple[int, dict[str, str], bytes]
# Writes Docker's config.json and returns the environment that names it.
Config = Callable[[dict], dict[str, str]]


class Server:
    """Answers as `answer` says, and keeps what was asked: path and headers."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.answer: Callable[[str, dict[str, str], bytes], Answer] = lambda path, headers, body: (200, {}, MANIFEST)
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                server.asked.append((self.path, headers))
                body = self.rfile.read(int(headers.get("content-length", 0)))
                status, sent, content = server.answer(self.path, headers, body)
                self.send_response(status)
                for name, value in sent.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def config(tmp_path: pathlib.Path) -> Config:
    def write(content: dict) -> dict[str, str]:
        (tmp_path / "config.json").write_text(json.dumps(content))
        return {"DOCKER_CONFIG": str(tmp_path), "PATH": f"{tmp_path}:/usr/bin:/bin"}

    return write


def auth(user: str = "me", password: str = "pass:word") -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def errors(*codes: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": "not found"} for code in codes]}).encode()


def test_a_tag_names_the_digest_of_its_manifest(server: Server, config: Config) -> None:
    assert lookup.tagged_digest(f"{server.host}/team/x", "1.2.3", True, config({})) == DIGEST
    assert server.asked[0][0] == "/v2/team/x/manifests/1.2.3"


@pytest.mark.parametrize("code", ["MANIFEST_UNKNOWN", "NAME_UNKNOWN", "NOT_FOUND"])
def test_a_tag_is_free_if_the_registry_says_so(server: Server, config: Config, code: str) -> None:
    server.answer = lambda path, headers, body: (404, {}, errors(code))
    assert lookup.tagged_digest(f"{server.host}/team/x", "1.2.3", True, config({})) is None


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (404, b"<h1>manifest unknown: not found</h1>", "found 404 with no error code"),
        (404, errors("UNSUPPORTED"), "found 404 with UNSUPPORTED"),
        (404, b'{"errors": []}', "found 404 with no error code"),
        (404, b'["MANIFEST_UNKNOWN"]', "found 404 with no error code"),
        (403, errors("MANIFEST_UNKNOWN"), "response status code 403: MANIFEST_UNKNOWN"),
        (500, errors("NAME_UNKNOWN"), "response status code 500: NAME_UNKNOWN"),
        (401, errors("UNAUTHORIZED"), "response status code 401: credential not found"),
    ],
)
def test_any_other_answer_is_an_error(server: Server, config: Config, status: int, body: bytes, said: str) -> None:
    server.answer = lambda path, headers, sent: (status, {}, body)
    with pytest.raises((lookup.LookupFailed, lookup.NoRegistry), match=said):
        lookup.tagged_digest(f"{server.host}/team/x", "1.2.3", True, config({}))


@pytest.mark.parametrize("field", ["token", "access_token"])
def test_a_token_is_fetched_with_the_password_and_used(server: Server, config: Config, field: str) -> None:
    def answer(path: str, headers: dict[str, str], body: bytes) -> Answer:
        if path.startswith("/token?"):
            assert headers["authorization"] == f"Basic {auth()['auth']}"
            assert path == "/token?account=a&service=the+registry&scope=repository%3Ateam%2Fx%3Apull"
            return 200, {}, json.dumps({field: "of one hour"}).encode()
        if headers.get("authorization") == "Bearer of one hour":
            return 404, {}, errors("MANIFEST_UNKNOWN")
        challenge = f'Bearer realm="http://{server.host}/token?account=a",service="the registry"'
        return 401, {"WWW-Authenticate": f'{challenge},scope="repository:team/x:pull"'}, errors("UNAUTHORIZED")

    server.answer = answer
    environment = config({"auths": {server.host: auth()}})
    assert lookup.tagged_digest(f"{server.host}/team/x", "1.2.3", True, environment) is None
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    "body", [b"[]", b"{}", b"7", b"", b'{"token": 7}', b'{"token": ["x"]}', b'{"token": "a\\r\\nX: b"}', b"[" * 100_000]
)
def test_an_answer_that_is_no_token_is_an_error(server: Server, config: Config, body: bytes) -> None:
    def answer(path: str, headers: dict[str, str], sent: bytes) -> Answer:
        if path.startswith("/token?"):
            return 200, {}, body
        return 401, {"WWW-Authenticate": f'Bearer realm="http://{server.host}/token"'}, errors("UNAUTHORIZED")

    server.answer = answer
    with pytest.raises(lookup.LookupFailed, match="expected (a token|JSON), found"):
        lookup.tagged_digest(f"{server.host}/team/x", "1.2.3", True, config({}))


@contextlib.contextmanager
def raw(*pieces: bytes, pause: float = 0) -> Iterator[str]:
    """A host that sends these bytes, whatever it is asked."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with contextlib.suppress(OSError):
                connection, _ = listening.accept()
                with connection:
                    connection.recv(65536)
                    for piece in pieces:
                        connection.sendall(piece)
                        time.sleep(pause)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize(
    "answer",
    [
        b"not http\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
        b"HTTP/1.1 404 No\r\nContent-Length: 100\r\n\r\n{",
    ],
    ids=["status", "short", "chunk", "headers", "error"],
)
def test_an_answer_that_is_no_http_is_an_error(config: Config, answer: bytes) -> None:
    with raw(answer) as host, pytest.raises((lookup.LookupFailed, lookup.NoRegistry)):
        lookup.tagged_digest(f"{host}/team/x", "1.2.3", True, config({}))


def test_a_host_that_sends_a_byte_from_time_to_time_is_given_up(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "_SECONDS", 0.5)
    started = time.monotonic()
    head = b"HTTP/1.1 200 OK\r\n"
    with raw(head, *([b"X"] * 100), pause=0.2) as host, pytest.raises(lookup.LookupFailed, match="within|timed out"):
        lookup.tagged_digest(f"{host}/team/x", "1.2.3", True, config({}))
    assert time.monotonic() - started < 10


def test_an_identity_token_is_exchanged(server: Server, config: Config) -> None:
    def answer(path: str, headers: dict[str, str], body: bytes) -> Answer:
        if path == "/token":
            assert b"grant_type=refresh_token" in body and b"refresh_token=lasting" in body
            return 200, {}, b'{"access_token": "short"}'
        if headers.get("authorization") == "Bearer short":
            return 200, {}, MANIFEST
        return 401, {"WWW-Authenticate": f'Bearer realm="http://{server.host}/token",service="s"'}, b""

    server.answer = answer
    environment = config({"auths": {server.host: {"identitytoken": "lasting"}}})
    assert lookup.tagged_digest(f"{server.host}/team/x", "1.2.3", True, environment) == DIGEST


def test_a_password_does_not_follow_a_redirect(server: Server, config: Config) -> None:
    other = Server()

    def answer(path: str, headers: dict[str, str], body: bytes) -> Answer:
        if "authorization" in headers:
            return 307, {"Location": f"http://{other.host}/manifest"}, b""
        return 401, {"WWW-Authenticate": 'Basic realm="x"'}, b""

    server.answer = answer
    environment = config({"auths": {server.host: auth()}})
    assert lookup.tagged_digest(f"{server.host}/team/x", "1.2.3", True, environment) == DIGEST
    assert [path for path, _ in other.asked] == ["/manifest"]
    assert "authorization" not in other.asked[0][1]
    other.http.shutdown()
    other.http.server_close()


@pytest.fixture
def other() -> Iterator[Server]:
    other = Server()
    yield other
    other.http.shutdown()
    other.http.server_close()


def test_a_password_goes_nowhere_that_a_redirect_names(server: Server, other: Server, config: Config) -> None:
    """The host of a redirect asks for a login, and names itself as the place to send it to."""
    server.answer = lambda path, headers, body: (307, {"Location": f"http://{other.host}/blob"}, b"")
    challenge = f'Bearer realm="http://{other.host}/token",service="x"'
    other.answer = lambda path, headers, body: (401, {"WWW-Authenticate": challenge}, b"")
    environment = config({"auths": {server.host: auth()}})
    with pytest.raises(lookup.LookupFailed, match=f"{server.host} redirects to 127.0.0.1, which wants a login: none"):
        lookup.tagged_digest(f"{server.host}/team/x", "1.2.3", True, environment)
    assert [path for path, _ in other.asked] == ["/blob"]


def test_beginning_an_upload_sends_no_password_where_a_redirect_leads(
    server: Server, other: Server, config: Config
) -> None:
    server.answer = lambda path, headers, body: (302, {"Location": f"http://{other.host}/upload"}, b"")
    challenge = f'Bearer realm="http://{other.host}/token",service="x"'
    other.answer = lambda path, headers, body: (401, {"WWW-Authenticate": challenge}, b"")
    environment = config({"auths": {server.host: auth()}})
    with pytest.raises(lookup.LookupFailed, match=f"{server.host} redirects to 127.0.0.1, which wants a login: none"):
        lookup.check_push(f"{server.host}/team/x", True, environment)
    assert [path for path, _ in other.asked] == ["/upload"]


def test_nothing_encrypted_is_redirected_into_the_open(server: Server) -> None:
    request = urllib.request.Request("https://registry.example/v2/x/manifests/1")
    redirect = lookup._Redirects().redirect_request
    assert redirect(request, io.BytesIO(), 307, "", Message(), f"http://{server.host}/x") is None  # type: ignore[arg-type]
    followed = redirect(request, io.BytesIO(), 307, "", Message(), "https://cdn.example/x")  # type: ignore[arg-type]
    assert followed and followed.full_url == "https://cdn.example/x"


@pytest.mark.parametrize("status", [403, 404])
def test_of_a_registrys_words_only_codes_are_repeated(server: Server, config: Config, status: int) -> None:
    hostile = "X\n::error title=push::the release was revoked\x1b[2J"
    server.answer = lambda path, headers, body: (status, {}, errors(hostile, "DENIED", hostile.lower()))
    with pytest.raises((lookup.LookupFailed, lookup.NoRegistry)) as raised:
        lookup.tagged_digest(f"{server.host}/team/x", "1.2.3", True, config({}))
    assert "DENIED" in str(raised.value) and "revoked" not in str(raised.value)
    assert str(raised.value).isprintable()


def test_a_token_is_not_fetched_over_plain_http(config: Config) -> None:
    headers = Message()
    headers["WWW-Authenticate"] = 'Bearer realm="http://a.example/t"'
    answer = urllib.error.HTTPError("", 401, "", headers, None)
    with pytest.raises(lookup.LookupFailed, match="credential not found"):
        lookup._authorization(answer, "", "b.example", "x", False, config({"auths": {"b.example": auth()}}))


def found(repository: str, environment: dict[str, str]) -> Login | None:
    """The login that a client gets for a repository."""
    with docker_config(repository, environment) as client:
        return login(repository.partition("/")[0], pathlib.Path(client["DOCKER_CONFIG"], "config.json"), client)


def write_helper(folder: pathlib.Path, script: str) -> None:
    """Puts a credential helper named "test" on the PATH of a `config`."""
    (folder / "docker-credential-test").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "docker-credential-test").chmod(0o755)


@pytest.mark.parametrize("kind", ["credHelpers", "credsStore"])
@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ('{"Username": "me", "Secret": "hidden"}', Login("me", "hidden")),
        ('{"Username": "<token>", "Secret": "lasting"}', Login(identity_token="lasting")),
        ("credentials not found in native keychain", None),
    ],
)
def test_a_credential_helper_is_asked(
    config: Config, tmp_path: pathlib.Path, kind: str, printed: str, expected: Login | None
) -> None:
    environment = config({kind: {"r.example": "test"} if kind == "credHelpers" else "test"})
    write_helper(
        tmp_path,
        f"[ \"$(cat)\" = r.example ] && echo '{printed}'\nexit {int(expected is None)}",
    )
    assert found("r.example/x", environment) == expected


def test_a_helper_for_the_host_comes_before_an_older_login(config: Config, tmp_path: pathlib.Path) -> None:
    """As for Docker and podman. `gcloud auth configure-docker` leaves the token of an earlier login in the file."""
    environment = config({"auths": {"r.example": auth("old")}, "credHelpers": {"r.example": "test"}})
    write_helper(tmp_path, """echo '{"Username": "me", "Secret": "fresh"}'""")
    assert found("r.example/x", environment) == Login("me", "fresh")


@pytest.mark.parametrize("spoilt", [{"auth": 5}, {"auth": "%"}, {"auth": "/w=="}])
def test_a_login_that_is_none_is_an_error(config: Config, spoilt: dict[str, object]) -> None:
    with pytest.raises(CredentialsError, match="expected base64 of user:password"):
        found("r.example/x", config({"auths": {"r.example": spoilt}}))


def test_a_file_of_brackets_is_an_error(config: Config, tmp_path: pathlib.Path) -> None:
    environment = config({}) | {"REGISTRY_AUTH_FILE": str(tmp_path / "auth.json")}
    (tmp_path / "auth.json").write_text("[" * 100_000)
    with pytest.raises(CredentialsError, match="auth.json: expected credentials as `podman login` writes them"):
        found("r.example/x", environment)


def test_a_folder_of_another_user_has_no_logins(
    config: Config, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`sudo -u` keeps XDG_RUNTIME_DIR."""

    def closed(path: pathlib.Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    environment = config({"auths": {"r.example": auth()}})
    monkeypatch.setattr(pathlib.Path, "is_file", closed)
    assert found("r.example/x", environment) is None


def test_a_helper_that_fails_is_an_error_without_the_secret(config: Config, tmp_path: pathlib.Path) -> None:
    environment = config({"credsStore": "test"})
    write_helper(tmp_path, "echo 'the keyring is locked' >&2; exit 1")
    with pytest.raises(CredentialsError, match="docker-credential-test: failed for r.example: the keyring is locked"):
        found("r.example/x", environment)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("installed", [False, True])
def test_a_store_left_over_in_dockers_file_does_not_hide_a_login(
    config: Config, tmp_path: pathlib.Path, installed: bool, first: bool
) -> None:
    """Docker Desktop leaves it, with or without the helper."""
    left_over = {"auths": {"r.example": {}}, "credsStore": "test"}
    podmans = {"auths": {"r.example": auth("podman")}}
    environment = config(podmans if first else left_over) | {"REGISTRY_AUTH_FILE": str(tmp_path / "auth.json")}
    if installed:
        write_helper(tmp_path, "echo 'the keyring is locked' >&2; exit 1")
    (tmp_path / "auth.json").write_text(json.dumps(left_over if first else podmans))
    assert found("r.example/x", environment) == Login("podman", "pass:word")
    with docker_config("r.example/x", environment) as client:
        written = json.loads(pathlib.Path(client["DOCKER_CONFIG"], "config.json").read_text())
    assert written == podmans


def test_a_store_that_is_not_installed_leaves_a_registry_without_login_alone(config: Config) -> None:
    assert found("r.example/x", config({"credsStore": "desktop"})) is None


@pytest.mark.parametrize(
    ("repository", "key"),
    [
        ("r.example/team/image", "r.example/team/image"),
        ("r.example/team/other", "r.example/team"),
        ("r.example/team2/image", "r.example"),
        ("r.example:5000/team/image", "r.example:5000"),
        ("s.example/team/image", "https://s.example/v1/"),
        ("docker.io/team/image", "docker.io/team"),
        ("docker.io/library/image", "docker.io"),
        ("t.example/team/image", None),
    ],
)
def test_a_client_gets_the_one_login_for_the_longest_part_of_the_name(
    config: Config, repository: str, key: str | None
) -> None:
    keys = ["r.example", "r.example/team", "r.example/team/image", "r.example:5000", "https://s.example/v1/"]
    keys += ["docker.io", "docker.io/team"]
    environment = config({"auths": {each: auth("me", each) for each in keys}})
    assert found(repository, environment) == (Login("me", key) if key else None)
    with docker_config(repository, environment) as client:
        written = json.loads(pathlib.Path(client["DOCKER_CONFIG"], "config.json").read_text())
    host = repository.partition("/")[0]
    expected = "https://index.docker.io/v1/" if host == "docker.io" else host
    assert list(written.get("auths", {})) == ([expected] if key else [])


def test_a_helper_for_another_host_is_not_given_to_the_client(config: Config) -> None:
    environment = config({"credHelpers": {"other.example": "test"}})
    with docker_config("r.example/x", environment) as client:
        assert pathlib.Path(client["DOCKER_CONFIG"], "config.json").read_text() == "{}"


def test_a_login_does_not_show_its_secrets() -> None:
    assert "hidden" not in repr(Login("me", "hidden", "hidden"))


@pytest.mark.parametrize(("host", "api"), [("docker.io", "registry-1.docker.io"), ("ghcr.io", "ghcr.io")])
def test_docker_hub_has_another_host_than_its_name(host: str, api: str, config: Config) -> None:
    environment = config({"auths": {"https://index.docker.io/v1/": auth("hub"), "ghcr.io": auth("hub")}})
    assert api_host(host) == api
    assert found(f"{host}/team/image", environment) == Login("hub", "pass:word")
