"""The application of `mlc_llm serve`, without a process, a port or a model."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from mlc_llm._mlc_bazel import access, lifecycle
from mlc_llm.cli import serve
from mlc_llm.interface import serve as interface
from mlc_llm.serve.server import ServerContext

JSON = {"content-type": "application/json"}


class Engine:
    """Takes the place of upstream's engine, so that the application exists without a model."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def terminate(self) -> None:
        pass


class Service:
    """Starts applications as `mlc_llm serve` does, one at a time."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.patch = patch
        self.served: list[tuple[access.Guard, ServerContext]] = []
        patch.setattr(interface.engine, "AsyncMLCEngine", Engine)
        patch.setattr(lifecycle.Server, "run", lambda server: server.load())
        patch.setattr(lifecycle, "serve_application", lambda app: self.served.append((app, ServerContext.current())))
        patch.delenv(access.KEY_VARIABLE, raising=False)

    def __call__(self, *options: str) -> access.Guard:
        """Returns the application that `mlc_llm serve` starts with these options."""
        self.patch.setattr(ServerContext, "server_context", None)
        serve.main(["model", "--model-lib", "model.so", *options])
        app, context = self.served.pop()
        # It ended with the server. Routes look it up.
        self.patch.setattr(ServerContext, "server_context", context)
        return app


async def talk(
    app: access.Guard,
    path: str,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    parts: Sequence[bytes] = (b"",),
) -> tuple[int, dict[str, str], str]:
    """Asks the application (ASGI 3); returns status, headers and body."""
    body, sent = list(parts), []

    async def receive() -> dict[str, Any]:
        if parts and not body:
            await asyncio.Event().wait()  # The client stays connected.
        return {"type": "http.request", "body": body.pop(0), "more_body": bool(body)}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "scheme": "http",
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }
    await app(scope, receive, send)
    start, *rest = sent
    answered = {name.decode().lower(): value.decode() for name, value in start["headers"]}
    return start["status"], answered, b"".join(each.get("body", b"") for each in rest).decode()


def ask(app: access.Guard, path: str, *arguments: Any, **options: Any) -> tuple[int, dict[str, str], str]:
    """Does the same outside of an event loop."""
    return asyncio.run(talk(app, path, *arguments, **options))
