"""The key covers every route but /health* and /metrics; large requests, other origins and micro-serving are refused."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from application import JSON, Service, ask
from mlc_llm._mlc_bazel import access, health

OPEN = {*health.PATHS, "/metrics"}


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    return Service(monkeypatch)


def routes(app: access.Guard) -> set[tuple[str, str]]:
    """Every path and method of the application."""
    inner: Any = app.app
    return {(route.path, method) for route in flat(inner.routes) for method in route.methods}


def flat(routes: Iterable[Any]) -> Iterator[Any]:
    """The routes with those of included routers, which FastAPI keeps as they are."""
    for route in routes:
        router = getattr(route, "original_router", None)
        yield from flat(router.routes) if router else [route]


def test_every_route_asks_for_the_key(service: Service) -> None:
    app = service("--api-key=secret", "--enable-debug", "--enable-microserving")
    known = {path for path, _ in routes(app)}
    assert known >= OPEN | {"/v1/chat/completions", "/v1/models", "/docs", "/openapi.json", "/microserving/prep_recv"}
    assert any(path.startswith("/debug/") for path in known)
    wrong = [
        {},
        *({"Authorization": value} for value in ("secret", "Bearer", "Bearer ", "Bearer Secret", "Basic secret")),
    ]
    for path, method in sorted(routes(app)):
        for headers in wrong:
            status, answered, _ = ask(app, path, method, headers)
            assert (status == 401) == (path not in OPEN), (path, method, headers, status)
            assert status != 401 or answered["www-authenticate"] == "Bearer"


def test_with_the_key_every_route_answers(service: Service) -> None:
    app = service("--api-key=secret")
    status, _, body = ask(app, "/openapi.json", headers={"Authorization": "Bearer secret"})
    assert status == 200 and "/v1/chat/completions" in json.loads(body)["paths"]


def test_the_scheme_of_the_key_may_have_any_case(service: Service) -> None:
    app = service("--api-key=secret")
    assert ask(app, "/openapi.json", headers={"Authorization": "bearer secret"})[0] == 200
    assert ask(app, "/openapi.json", headers={"Authorization": "bearer SECRET"})[0] == 401


def test_paths_that_look_like_an_open_one_ask_for_the_key(service: Service) -> None:
    app = service("--api-key=secret")
    for path in ("/health/", "//health", "/health/../v1/models", "/metrics/", "/HEALTH", "/healthz", "/none"):
        assert ask(app, path)[0] == 401, path


def test_a_request_without_the_key_is_not_read(service: Service) -> None:
    app = service("--api-key=secret")
    status, _, _ = ask(app, "/v1/chat/completions", "POST", parts=())  # To read would raise IndexError.
    assert status == 401


def test_metrics_can_be_protected(service: Service) -> None:
    app = service("--api-key=secret", "--protect-metrics")
    assert ask(app, "/metrics")[0] == 401
    assert ask(app, "/health")[0] == 503  # Without a model.


def test_microserving_is_off_unless_asked_for(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not [path for path, _ in routes(service()) if "microserving" in path]
    assert ask(service(), "/microserving/prep_recv", "POST")[0] == 404
    assert ask(service("--enable-microserving"), "/microserving/prep_recv", "POST")[0] == 400
    monkeypatch.setenv("MLC_NVSHMEM_INIT_CONFIG_JSON_STR", "{}")
    assert ask(service(), "/microserving/prep_recv", "POST")[0] == 400


@pytest.mark.parametrize(
    ("headers", "parts"),
    [
        ({"content-length": "1001"}, [b""]),
        ({}, [b" " * 600, b" " * 401, b" "]),
        ({"content-length": "3"}, [b" " * 1001]),
    ],
)
def test_a_large_request_is_refused_before_it_is_in_memory(
    service: Service, headers: dict[str, str], parts: list[bytes]
) -> None:
    app = service("--max-request-bytes=1000")
    status, _, body = ask(app, "/v1/completions", "POST", {**JSON, **headers}, parts)
    error = json.loads(body)["error"]
    assert (
        status == 413 and error["message"] == "expected a body of at most 1000 bytes, the server's --max-request-bytes"
    )


def test_a_request_of_the_limit_is_read(service: Service) -> None:
    app = service("--max-request-bytes=1000")
    assert ask(app, "/v1/completions", "POST", JSON, [b" " * 600, b" " * 400])[0] == 400


def test_pages_of_other_sites_may_not_call_it_unless_asked_for(service: Service) -> None:
    origin = {"Origin": "https://example.org"}
    preflight = {**origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    for options, allowed in (((), False), (('--allow-origins=["https://example.org"]',), True)):
        app = service("--api-key=secret", *options)
        for method, path, headers in (("GET", "/metrics", origin), ("OPTIONS", "/v1/chat/completions", preflight)):
            status, answered, _ = ask(app, path, method, headers)
            assert ("access-control-allow-origin" in answered) == allowed, (options, method)
            assert status == (200 if allowed or method == "GET" else 400)


@pytest.mark.parametrize("source", ["option", "file", "variable"])
def test_the_key_comes_from_an_option_a_file_or_a_variable(
    service: Service, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key").write_text("secret\n")
    # What comes first in this order decides.
    if source != "variable":
        monkeypatch.setenv(access.KEY_VARIABLE, "other")
    else:
        monkeypatch.setenv(access.KEY_VARIABLE, "secret")
    options = {
        "option": ["--api-key=secret", f"--api-key-file={tmp_path / 'none'}"],
        "file": [f"--api-key-file={tmp_path / 'key'}"],
        "variable": [],
    }[source]
    app = service(*options)
    assert ask(app, "/v1/models", headers={"Authorization": "Bearer secret"})[0] == 200
    assert ask(app, "/v1/models", headers={"Authorization": "Bearer other"})[0] == 401


@pytest.mark.parametrize("key", ["", " ", "a\nb", "ü", "key "])
def test_a_key_that_no_client_can_send_is_refused(
    service: Service, key: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(access.KEY_VARIABLE, key)
    with pytest.raises(SystemExit):
        service()
    assert f"${access.KEY_VARIABLE}: expected a key of printable ASCII characters" in capsys.readouterr().err


def test_a_missing_key_file_is_one_line(service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        service(f"--api-key-file={tmp_path / 'none'}")
    assert (
        capsys.readouterr().err.splitlines()[-1].endswith("No such file or directory: '" + str(tmp_path / "none") + "'")
    )


@pytest.mark.parametrize(
    ("options", "warned"),
    [
        (["--host=0.0.0.0"], True),
        (["--host=::"], True),
        (["--host=example.org"], True),
        (["--host=127.0.0.1"], False),
        (["--host=::1"], False),
        (["--host=localhost"], False),
        (["--host=0.0.0.0", "--api-key=secret"], False),
    ],
)
def test_a_server_without_a_key_that_others_reach_warns(
    service: Service, options: list[str], warned: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    service(*options)
    assert (f"set ${access.KEY_VARIABLE} or --api-key-file" in capsys.readouterr().err) == warned
