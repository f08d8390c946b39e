"""Checks the body of every request before FastAPI parses it and pydantic validates it.

Both work in the thread that answers all clients, and neither stops at the first error: for 2 MiB of `"stop":[1,1,…]`
they made a million errors, each with the whole input, in 40 s and 1.6 GB. `CheckBodies` therefore counts what a body
contains before anything parses it, parses it in another thread, and validates the items of lists one at a time. What
passes costs FastAPI little, and a request with a wrong type has few errors left.

The limits are in `request_check`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import fastapi
import pydantic
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from mlc_llm.protocol import openai_api_protocol as protocol

from . import request_check

SHORT_BODY = 8 << 10
"""Bodies up to this size are checked at once, in a few ms. Longer ones wait for the thread that checks them."""

MAX_ERRORS = 4
MAX_ERROR_LENGTH = 200
"""Of the errors in an answer, and of the characters of one. A client chooses the names in it."""

LONG_FIELDS = ("input", "messages", "prompt", "response_format", "suffix", "tools")
"""All other fields of a request are short."""

ITEMS = {
    "logit_bias": pydantic.TypeAdapter(dict[int, float]),
    "messages": pydantic.TypeAdapter(protocol.ChatCompletionMessage),
    "stop": pydantic.TypeAdapter(str),
    "tools": pydantic.TypeAdapter(protocol.ChatTool),
}
"""Types of the items of lists and objects. `logit_bias` is checked as one object per item."""


class BodyError(ValueError):
    """A body is refused. The message is one line for the client who sent it.

    Args:
        message: what was expected and what was found.
        status: 400 over a limit, 422 for wrong types, like FastAPI.
        field: the field of the request, if it is known.
    """

    def __init__(self, message: str, status: int = 400, field: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.field = field


class CheckBodies:
    """Reads bodies, refuses those over a limit, and passes on the others (ASGI 3).

    Args:
        app: the application that parses them.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        # One thread: memory for one body at a time, however many clients send one.
        self._pool = concurrent.futures.ThreadPoolExecutor(1, "check_body")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            body = await _read(receive)
            if body is None:
                return
            if len(body) <= SHORT_BODY:
                check_body(body)
            else:
                await asyncio.get_running_loop().run_in_executor(self._pool, check_body, body)
        except BodyError as error:
            await _refusal(error.status, str(error), error.field)(scope, receive, send)
            return
        except HTTPException as error:  # The body is larger than --max-request-bytes.
            await _refusal(error.status_code, error.detail)(scope, receive, send)
            return
        pending = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Any:
            return pending.pop() if pending else await receive()

        await self.app(scope, replay, send)


async def _read(receive: Receive) -> bytes | None:
    """Returns the whole body, or None if the client disconnects before its end."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)


def check_body(body: bytes) -> None:
    """Refuses a body that is costly to parse or to validate. Bodies that are not JSON pass: routes refuse them.

    Raises:
        BodyError: it is refused.
    """
    # Python's parser also reads other encodings, in which the bytes below stand for something else.
    if body and json.detect_encoding(body) not in ("utf-8", "utf-8-sig"):
        raise BodyError("expected JSON in UTF-8, found another encoding")
    check_structure(body)
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        return
    if isinstance(request, dict):
        check_fields(request)


def check_structure(body: bytes) -> None:
    """Counts what parsing a body would make, without parsing it.

    Each step is one call of a fast function, and none takes more memory than the body: a Python loop over 32 MiB, or
    a list with an entry for each quotation mark, would be what this prevents.
    """
    unescaped = body.replace(rb"\\", b"").replace(rb"\"", b"")
    texts = unescaped.count(b'"') // 2
    _at_most("texts and names", texts, request_check.MAX_BODY_VALUES)
    # Every second piece is outside of texts.
    outside = b'"'.join(unescaped.split(b'"')[::2]).translate(None, b" \t\r\n")
    _at_most("bytes outside of texts", len(outside), request_check.MAX_BODY_OUTSIDE)
    lists = outside.count(b"[") + outside.count(b"{")
    _at_most("texts, names, lists and objects", texts + lists, request_check.MAX_BODY_VALUES)
    _at_most("items of lists and objects", outside.count(b","), request_check.MAX_BODY_TOKENS)
    depth = 0
    for bracket in re.finditer(rb"[][{}]", outside):
        depth += 1 if bracket[0] in b"[{" else -1
        if depth > request_check.MAX_BODY_DEPTH:
            raise BodyError(f"expected lists and objects at most {request_check.MAX_BODY_DEPTH} deep, found more")


def check_fields(request: dict[str, Any]) -> None:
    """Refuses fields with too many values, and the first item of a list that has a wrong type."""
    values = characters = 0
    for name, value in request.items():
        if name in ("input", "prompt") and isinstance(value, list):
            _check_list(name, value)
            continue
        more_values, more_characters = _measure(name, value)
        values += more_values
        characters += len(name) + (0 if name in LONG_FIELDS else more_characters)
    _at_most("values outside of prompt and input", values, request_check.MAX_BODY_VALUES)
    _at_most(
        f"characters in all fields but {', '.join(LONG_FIELDS)}", characters, request_check.MAX_BODY_OTHER_CHARACTERS
    )
    for name, kind in ITEMS.items():
        items = request.get(name)
        if isinstance(items, list) and name != "logit_bias":
            _check_items(name, kind, enumerate(items))
        elif isinstance(items, dict) and name == "logit_bias":
            _check_items(name, kind, ((None, {token: bias}) for token, bias in items.items()))


def _check_list(name: str, items: list[Any]) -> None:
    """Refuses a list of mixed types. pydantic tries each type that the field may have on all items of the list."""
    kinds = {type(each) for each in items}
    tokens = len(items) if kinds == {int} else 0
    if name == "input" and kinds == {list}:
        kinds = {type(each) for inner in items for each in inner}
        tokens = sum(len(inner) for inner in items)
        expected: tuple[set[type], ...] = ({int},)
    else:
        expected = ({int}, {str}) if name == "input" else ({int},)
    if kinds and kinds not in expected:
        what = (
            "a text, or a list of texts, of tokens or of lists of tokens"
            if name == "input"
            else ("a text or a list of tokens")
        )
        raise BodyError(f"{name}: expected {what}", 422, name)
    if name == "input":
        _at_most("tokens", tokens, request_check.MAX_INPUT_TOKENS, name)


def _check_items(name: str, kind: pydantic.TypeAdapter[Any], items: Iterable[tuple[int | None, Any]]) -> None:
    """Validates items as pydantic later validates the whole list, which makes errors for all of them."""
    for position, item in items:
        try:
            kind.validate_python(item)
        except pydantic.ValidationError as error:
            place = (name,) if position is None else (name, position)
            errors = error.errors(include_url=False, include_context=False, include_input=False)
            message = _describe([(*place, *each["loc"]) for each in errors], [each["msg"] for each in errors])
            raise BodyError(message, 422, name) from None


def _measure(name: str, value: Any) -> tuple[int, int]:
    """Returns the number of values in a field, names included, and of characters in its texts."""
    values, characters, left = 0, 0, [value]
    while left:
        each = left.pop()
        values += 1
        if isinstance(each, str):
            characters += len(each)
        elif isinstance(each, (dict, list)):
            _at_most("items in a list or object", len(each), request_check.MAX_BODY_ITEMS, name)
            left.extend(each)
            if isinstance(each, dict):
                left.extend(each.values())
    return values, characters


async def answer_invalid(_request: fastapi.Request, error: Exception) -> JSONResponse:
    """Answers a request that does not fit its model like OpenAI. FastAPI would repeat the input in every error."""
    assert isinstance(error, RequestValidationError)
    errors: Sequence[Any] = error.errors()
    places = [tuple(each["loc"])[1:] for each in errors]  # Without "body".
    first = places[0][0] if places and places[0] else None
    field = _clip(first) if isinstance(first, str) else None
    return _refusal(422, _describe(places, [each["msg"] for each in errors]), field)


def _describe(places: list[tuple[Any, ...]], messages: list[str]) -> str:
    """Returns the first errors of pydantic in one line."""
    lines = [
        ": ".join(part for part in (".".join(_clip(each) for each in place), message) if part)[:MAX_ERROR_LENGTH]
        for place, message in zip(places[:MAX_ERRORS], messages[:MAX_ERRORS])
    ]
    more = len(places) - len(lines)
    return "; ".join(lines) + (f"; and {more} more" if more else "")


def _clip(name: Any) -> str:
    text = str(name)
    return text if len(text) <= 40 else text[:37] + "..."


def _refusal(status: int, message: str, field: str | None = None) -> JSONResponse:
    """Returns an error as OpenAI's clients read it."""
    error = {"message": message, "type": "invalid_request_error", "param": field, "code": None}
    return JSONResponse({"error": error}, status)


def _at_most(unit: str, found: int, limit: int, field: str | None = None) -> None:
    if found > limit:
        message = f"expected at most {limit} {unit}, found {found}"
        name = _clip(field) if field is not None else None
        raise BodyError(f"{name}: {message}" if name else message, 400, name)
