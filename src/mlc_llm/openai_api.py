"""The layer between OpenAI's clients and upstream's server (ASGI 3).

It reads and checks every body before FastAPI parses it (`request_body`), translates requests (`openai_requests`) and
answers (`openai_answers`), and gives errors the form that clients read (`openai_errors`), also those in the middle of a
stream. Upstream's routes see one choice of an answer to one prompt at a time, in their own dialect.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import logging
from collections.abc import AsyncGenerator
from typing import Any

import fastapi
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlc_llm.protocol.openai_api_protocol import ModelResponse
from mlc_llm.serve.entrypoints import openai_entrypoints
from mlc_llm.serve.server import ServerContext

from . import engine_watch, openai_errors, openai_requests, request_body
from .health import MONITORING
from .openai_answers import Answer
from .openai_errors import RequestError

logger = logging.getLogger(__name__)

PATHS = (openai_requests.CHAT, openai_requests.COMPLETION, openai_requests.EMBEDDING)

WAITING_MESSAGES = 16
"""Parts of an answer that wait for a slow client."""

STREAM_HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]


class OpenAIServer:
    """Translates requests and answers.

    Args:
        app: upstream's application.
        max_request_bytes: limit of a request's body.
    """

    def __init__(self, app: ASGIApp, max_request_bytes: int) -> None:
        self.app = app
        # One thread: memory for one body at a time, however many clients send one.
        self._reader = request_body.Reader(max_request_bytes)
        self._pool = concurrent.futures.ThreadPoolExecutor(1, "check_body")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Only what a key protects may send a body (`access`).
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS") or scope["path"] in MONITORING:
            await self.app(scope, receive, send)
            return
        try:
            body = await self._reader.read(scope, receive)
            if body is None:
                return
            if len(body) <= request_body.SHORT_BODY:
                request = _prepare(scope, body)
            else:
                request = await asyncio.get_running_loop().run_in_executor(self._pool, _prepare, scope, body)
        except RequestError as error:
            await error.response()(scope, receive, send)
            return
        if request is None:
            await self.app(scope, _replay(body, receive), send)
            return
        body = None  # It would stay in memory until the answer ends.
        if request.path == openai_requests.EMBEDDING:
            await self.app(scope, _replay(json.dumps(request.bodies[0]).encode(), receive), send)
        elif request.bodies[0].get("stream"):
            await self._stream(request, scope, receive, send)
        else:
            await self._whole(request, scope, receive, send)

    async def _whole(self, request: openai_requests.Translated, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers when all bodies have been answered, or with the first error."""
        answers = [bytearray() for _ in request.bodies]
        statuses = [0 for _ in request.bodies]
        async with contextlib.aclosing(self._ask(request, scope, receive)) as messages:
            async for position, message in messages:
                if message["type"] == "http.response.start":
                    statuses[position] = message["status"]
                    continue
                answers[position] += message.get("body", b"")
                if statuses[position] != 200 and not message.get("more_body"):
                    content, status = bytes(answers[position]), statuses[position]
                    await fastapi.Response(content, status, media_type="application/json")(scope, receive, send)
                    return
        if all(statuses):  # Else the client has gone.
            answer = Answer(request).whole([json.loads(each) for each in answers])
            await JSONResponse(answer)(scope, receive, send)

    async def _stream(self, request: openai_requests.Translated, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers with a stream of events. An error is the last one; if it is the first, it is the answer instead."""
        answer = Answer(request)
        started = False

        async def deliver(events: list[dict[str, Any]]) -> None:
            nonlocal started
            if not started:
                started = True
                await send({"type": "http.response.start", "status": 200, "headers": STREAM_HEADERS})
            for event in events:
                await send({"type": "http.response.body", "body": _event(event), "more_body": True})

        error: dict[str, Any] | None = None
        failed: dict[int, tuple[int, bytearray]] = {}
        try:
            async with contextlib.aclosing(self._ask(request, scope, receive)) as messages:
                async for position, message in messages:
                    if message["type"] == "http.response.start":
                        if message["status"] != 200:
                            failed[position] = message["status"], bytearray()
                    elif position not in failed:
                        for line in message.get("body", b"").splitlines():
                            if line.startswith(b"data: {"):
                                await deliver(answer.chunks(position, json.loads(line[6:])))
                    else:
                        status, content = failed[position]
                        content += message.get("body", b"")
                        if message.get("more_body"):
                            continue
                        if not started:
                            whole = fastapi.Response(bytes(content), status, media_type="application/json")
                            await whole(scope, receive, send)
                            return
                        error = json.loads(content)
                        break
        except Exception as exception:
            if not started:
                raise
            logger.exception("A stream ends with an error")
            error = _describe(exception)
        if started:
            await deliver([error] if error is not None else answer.last_chunks())
            await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": False})

    async def _ask(
        self, request: openai_requests.Translated, scope: Scope, receive: Receive
    ) -> AsyncGenerator[tuple[int, Message], None]:
        """Asks upstream's application for all bodies, each as soon as the engine has the one before it.

        The application parses and tokenizes in the thread that answers all clients: between two bodies it answers them.

        Yields:
            The position of a body, and a message of the answer to it.
        """
        queue: asyncio.Queue[tuple[int, Message | BaseException | None]] = asyncio.Queue(WAITING_MESSAGES)
        tasks: list[asyncio.Task[None]] = []

        async def ask_one(position: int, admitted: asyncio.Event) -> None:
            async def put(message: Message) -> None:
                await queue.put((position, message))

            engine_watch.ADMITTED.set(admitted)
            try:
                await self.app(dict(scope), _replay(json.dumps(request.bodies[position]).encode(), receive), put)
            except Exception as error:
                await queue.put((position, error))
            else:
                await queue.put((position, None))

        async def ask_all() -> None:
            for position in range(len(request.bodies)):
                admitted = asyncio.Event()
                tasks.append(asyncio.create_task(ask_one(position, admitted)))
                waiting = asyncio.create_task(admitted.wait())
                await asyncio.wait([tasks[-1], waiting], return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()

        starting = asyncio.create_task(ask_all())
        try:
            left = len(request.bodies)
            while left:
                position, message = await queue.get()
                if isinstance(message, BaseException):
                    raise message
                if message is None:
                    left -= 1
                else:
                    yield position, message
        finally:
            for task in (starting, *tasks):
                task.cancel()
            await asyncio.gather(starting, *tasks, return_exceptions=True)


def _prepare(scope: Scope, body: bytes) -> openai_requests.Translated | None:
    """Checks a body and translates it; returns None if it goes on as it is.

    Raises:
        RequestError: it is refused.
    """
    translated = scope["method"] == "POST" and scope["path"] in PATHS
    if translated and not _is_json(scope):
        # FastAPI asks for this too: pages of any site may send other types to a server of their visitors' networks.
        raise RequestError("expected the header content-type: application/json", status=415)
    request = request_body.parse(body)
    if translated and request is request_body.NO_JSON:
        raise RequestError("expected JSON as the request's body")
    if translated:
        return openai_requests.translate(scope["path"], request)
    if isinstance(request, dict):
        request_body.check_types(request)
    return None


def _is_json(scope: Scope) -> bool:
    kind = dict(scope["headers"]).get(b"content-type", b"").split(b";")[0].strip().lower()
    return kind == b"application/json"


def _replay(body: bytes, receive: Receive) -> Receive:
    """Returns a function that receives `body`, then what comes after a body: that the client has gone."""
    pending = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Any:
        return pending.pop() if pending else await receive()

    return replay


def _event(event: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n\n"


def _describe(error: Exception) -> dict[str, Any]:
    """Returns the error of a stream. Starlette wraps those that have an answer of their own."""
    cause = error.__cause__ if isinstance(error.__cause__, HTTPException) else error
    message = cause.detail if isinstance(cause, HTTPException) else "the server failed, its log says why"
    return openai_errors.content(500, str(message))


async def _model(model: str) -> Any:
    """Describes a model that is served."""
    if model not in ServerContext.current().get_model_list():
        found = f"model: expected one that GET /v1/models lists, found {openai_errors.clip(model)}"
        return openai_errors.response(404, found, "model", "model_not_found")
    return ModelResponse(id=model)


def install() -> None:
    """Adds the route that upstream lacks, and makes upstream's routes answer errors as OpenAI does."""
    openai_errors.install()
    openai_entrypoints.app.get("/v1/models/{model:path}")(_model)


def put_in_front(app: fastapi.FastAPI, max_request_bytes: int) -> None:
    """Puts the layer in front of an application's routes, behind what adds the headers of CORS."""
    openai_errors.handle(app)
    app.add_middleware(OpenAIServer, max_request_bytes)
    app.user_middleware.append(app.user_middleware.pop(0))  # The last one is next to the routes.
