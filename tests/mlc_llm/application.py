"""The application of `mlc_llm serve`, without a process, a port or a model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from mlc_llm._mlc_bazel import access, engine_watch, lifecycle
from mlc_llm.cli import serve
from mlc_llm.interface import serve as interface
from mlc_llm.protocol import conversation_protocol
from mlc_llm.serve import engine, engine_base
from mlc_llm.serve.server import ServerContext

JSON = {"content-type": "application/json"}


class Engine:
    """Takes the place of upstream's engine, so that the application exists without a model."""

    conv_template = conversation_protocol.Conversation(
        system_template="{system_message}",
        roles={"user": "u", "assistant": "a"},
        seps=["\n"],
        stop_str=[],
        stop_token_ids=[2],
        role_content_sep=":",
        role_empty_sep=":",
    )

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def terminate(self) -> None:
        pass


class Model(Engine):
    """An engine for requests that are refused before it sees them."""


class Output:
    """What the native engine reports of a request: one text for each choice, or its end."""

    def __init__(self, name: str, texts: list[str], finish_reason: str | None = None) -> None:
        usage = None if texts else '{"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}'
        parts = [
            SimpleNamespace(
                request_final_usage_json_str=usage,
                extra_prefix_string=text,
                delta_token_ids=[],
                delta_logprob_json_strs=engine_watch.Generated(1),
                finish_reason=finish_reason,
            )
            for text in texts or [""]
        ]
        self.unpacked = (name, parts)

    def unpack(self) -> Any:
        return self.unpacked


class AnsweringEngine(engine.AsyncMLCEngine):  # type: ignore[misc]  # upstream has no types
    """Upstream's engine around a native one that answers each request once it has `together` of them.

    The answer is `texts`, piece by piece, or the name of the request.
    """

    texts: tuple[str, ...] = ()
    finish_reason = "stop"

    together = 1
    model_type = "llama"

    def __init__(self, *_: Any, **__: Any) -> None:
        self._terminated = True
        self.state = engine_base.EngineState(False)
        self.model_config_dicts = [{"vocab_size": 320, "model_type": self.model_type}]
        self.max_input_sequence_length = 4000
        self.engine_config = SimpleNamespace(
            max_single_sequence_length=4096, max_total_sequence_length=4096, max_num_sequence=4
        )
        self.tokenizer = SimpleNamespace(encode=lambda text: [1] * max(1, len(text) // 4), decode=str)
        self.conv_template = Engine.conv_template.model_copy(deep=True)
        self.waiting: list[tuple[str, dict[str, Any]]] = []
        self.seen: list[dict[str, Any]] = []
        self._ffi = {
            "create_request": lambda name, _, config: (name, json.loads(config)),
            "add_request": self.add,
            "abort_request": lambda _: None,
        }
        self._terminated = False

    def add(self, request: tuple[str, dict[str, Any]]) -> None:
        if request[0] == engine_watch.QUESTION:
            return
        self.seen.append({"name": request[0], **request[1]})
        self.waiting.append(request)
        if len(self.waiting) == self.together:
            waiting, self.waiting = self.waiting, []
            answers = []
            for name, config in waiting:
                *pieces, last = self.texts or (name,)
                answers += [Output(name, [piece] * config["n"]) for piece in pieces]
                answers += [Output(name, [last] * config["n"], self.finish_reason), Output(name, [])]
            self.state.get_request_stream_callback("async")(answers)

    def terminate(self) -> None:
        pass


class Service:
    """Starts applications as `mlc_llm serve` does, one at a time."""

    def __init__(self, patch: pytest.MonkeyPatch, engine_type: type = Engine) -> None:
        self.patch = patch
        self.engine = engine_type
        self.served: list[tuple[access.Guard, ServerContext]] = []
        patch.setattr(interface.engine, "AsyncMLCEngine", engine_type)
        patch.setattr(lifecycle.Server, "run", lambda server: server.load())
        patch.setattr(lifecycle, "serve_application", lambda app: self.served.append((app, ServerContext.current())))
        patch.delenv(access.KEY_VARIABLE, raising=False)

    def __call__(self, *options: str) -> access.Guard:
        """Returns the application that `mlc_llm serve` starts with these options."""
        self.patch.setattr(ServerContext, "server_context", None)
        serve.main(["model", "--model-lib", "model.so", *options])
        app, context = self.served.pop()
        # It ended with the server, and its models with it. Routes look it up.
        if self.engine is not Engine:
            context.add_model("model", self.engine())
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
