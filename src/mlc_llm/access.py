"""Who may ask the server for what: its key, the size of requests, routes that are off, other origins.

At the pinned commit upstream's server asks for the key (`--api-key`) only on /v1: /microserving, /docs and
/openapi.json answer anyone. It reads a request of any size into memory before it refuses it, and lets the pages of
every site call it (CORS `*`). `install` puts one guard in front of all routes and adds options to `mlc_llm serve`.
"""

from __future__ import annotations

import argparse
import dataclasses
import hmac
import ipaddress
import os
import sys
import types
from pathlib import Path
from typing import Any

import fastapi
from starlette.types import ASGIApp, Receive, Scope, Send

from mlc_llm.cli import serve as command
from mlc_llm.interface import serve as interface
from mlc_llm.serve.entrypoints import microserving_entrypoints
from mlc_llm.serve.server import ServerContext

from . import health, lifecycle, openai_api, openai_errors

KEY_VARIABLE = "MLC_LLM_API_KEY"

MAX_REQUEST_BYTES = 32 << 20
"""Default limit of a request's body. A prompt of 128k tokens is about 0.5 MB; the rest is for images."""


@dataclasses.dataclass
class Access:
    """The options that `install` adds to `mlc_llm serve`.

    Args:
        api_key_file: a file whose content, without the final newline, is the key.
        max_request_bytes: limit of a request's body.
        enable_microserving: serve upstream's /microserving routes.
        protect_metrics: ask for the key on /metrics too.
    """

    api_key_file: Path | None = None
    max_request_bytes: int = MAX_REQUEST_BYTES
    enable_microserving: bool = False
    protect_metrics: bool = False


class Guard:
    """Refuses requests without the key before the application sees or reads them (ASGI 3).

    Args:
        app: the application.
        key: clients send it as `Authorization: Bearer KEY`; None lets everyone in.
        protect_metrics: ask for it on /metrics too.
    """

    def __init__(self, app: ASGIApp, key: str | None, protect_metrics: bool) -> None:
        self.app = app
        self._expected = key.encode() if key is not None else None
        # What monitoring reads without a key: no content of any request.
        self._open = set(health.PATHS) | (set() if protect_metrics else {"/metrics"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._may(scope):
            answer = openai_errors.response(
                401, "Invalid API Key", code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"}
            )
            await answer(scope, receive, send)
        elif scope["type"] == "websocket":
            # The server has none, so nothing checks a key there.
            await send({"type": "websocket.close", "code": 1008})
        else:
            await self.app(scope, receive, send)

    def _may(self, scope: Scope) -> bool:
        headers = dict(scope["headers"])
        # A browser asks without a key whether it may send one. The CORS middleware answers (Fetch, "CORS-preflight").
        preflight = scope["method"] == "OPTIONS" and b"access-control-request-method" in headers
        return (
            self._expected is None
            or scope["path"] in self._open
            or preflight
            or hmac.compare_digest(_token(headers.get(b"authorization", b"")), self._expected)
        )


def _token(authorization: bytes) -> bytes:
    """Returns the token of a header, or nothing. The scheme may have any case (RFC 9110, 11.1)."""
    scheme, _, token = authorization.partition(b" ")
    return token.strip(b" ") if scheme.lower() == b"bearer" else b""


def find_key(option: str | None, access: Access) -> str | None:
    """Returns the server's key: the option --api-key, else the file --api-key-file, else $MLC_LLM_API_KEY.

    Raises:
        ValueError: the file is unreadable, or the key is empty or not printable ASCII.
    """
    key, source = option, "--api-key"
    if key is None and access.api_key_file is not None:
        source = f"--api-key-file {access.api_key_file}"
        try:
            key = access.api_key_file.read_text(encoding="utf-8").removesuffix("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{source}: expected a readable text file, found {error}") from None
    if key is None:
        key, source = os.environ.get(KEY_VARIABLE), f"${KEY_VARIABLE}"
    if key is not None and not (key and key.isascii() and key.isprintable() and key == key.strip()):
        # An empty key would let everyone in who sends none, and headers carry no other characters.
        raise ValueError(f"{source}: expected a key of printable ASCII characters without spaces around it")
    return key


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens on `host`."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def install() -> None:
    """Guards the server that `mlc_llm serve` and `mlc_llm.interface.serve.serve` start, and adds the options."""
    chosen = Access()

    class Parser(command.ArgumentParser):  # type: ignore[misc]  # upstream has no types
        """Upstream's parser with the additional options."""

        def parse_args(self, *arguments: Any, **options: Any) -> argparse.Namespace:
            self.add_argument("--api-key-file", type=Path, help="file with the API key, for mounted secrets")
            self.add_argument(
                "--max-request-bytes",
                type=int,
                default=MAX_REQUEST_BYTES,
                help='limit of a request\'s body (default: "%(default)s")',
            )
            self.add_argument(
                "--enable-microserving",
                action="store_true",
                # mlc_llm router sets it for the servers that it starts and then calls.
                default="MLC_NVSHMEM_INIT_CONFIG_JSON_STR" in os.environ,
                help="serve /microserving/*, for servers in one group",
            )
            self.add_argument(
                "--protect-metrics", action="store_true", help="ask for the API key on /metrics too, not on /health"
            )
            # Upstream's "*" lets the pages of every site that a user visits call the server.
            self.set_defaults(allow_origins=[])
            parsed = super().parse_args(*arguments, **options)
            for field in dataclasses.fields(Access):
                setattr(chosen, field.name, getattr(parsed, field.name))
            try:
                parsed.api_key = find_key(parsed.api_key, chosen)
            except ValueError as error:
                self.error(str(error))
            if parsed.api_key is None and not is_loopback(parsed.host):
                print(
                    f"mlc_llm serve: warning: anyone who reaches {parsed.host}:{parsed.port} can use this server; to"
                    f" require a key, set ${KEY_VARIABLE} or --api-key-file",
                    file=sys.stderr,
                    flush=True,
                )
            return parsed

    class Microserving:
        """Upstream's module of the routes, which has none unless they are asked for."""

        @property
        def app(self) -> fastapi.APIRouter:
            return microserving_entrypoints.app if chosen.enable_microserving else fastapi.APIRouter()

    def run(app: fastapi.FastAPI, **_: Any) -> None:
        openai_api.put_in_front(app, chosen.max_request_bytes)
        lifecycle.serve_application(Guard(app, ServerContext.current().api_key, chosen.protect_metrics))

    command.ArgumentParser = Parser
    interface.microserving_entrypoints = Microserving()
    interface.uvicorn = types.SimpleNamespace(run=run)
