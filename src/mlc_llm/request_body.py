"""Checks the body of every request before FastAPI parses it and pydantic validates it.

Both work in the thread that answers all clients, and neither stops at the first error: for 2 MiB of `"stop":[1,1,…]`
they made a million errors, each with the whole input, in 40 s and 1.6 GB. `openai_api` therefore lets these functions
count what a body contains before anything parses it, parse it in another thread, and validate the items of lists one at
a time. What passes costs FastAPI little, and a request with a wrong type has few errors left.

The limits are in `request_check`.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable
from typing import Any

import pydantic
from starlette.types import Receive, Scope

from mlc_llm.protocol import openai_api_protocol as protocol

from . import request_check
from .openai_errors import RequestError, clip, describe

LAST = {"Connection": "close"}
"""Headers of an answer to a request that is not read to its end."""

NO_JSON = object()
"""Stands for the content of a body that is not JSON."""

SHORT_BODY = 8 << 10
"""Bodies up to this size are checked at once, in a few ms. Longer ones wait for the thread that checks them."""

LONG_FIELDS = ("input", "messages", "prompt", "response_format", "suffix", "tools")
"""All other fields of a request are short."""

ITEMS = {
    "logit_bias": pydantic.TypeAdapter(dict[int, float]),
    "messages": pydantic.TypeAdapter(protocol.ChatCompletionMessage),
    "stop": pydantic.TypeAdapter(str),
    "tools": pydantic.TypeAdapter(protocol.ChatTool),
}
"""Types of the items of lists and objects. `logit_bias` is checked as one object per item."""


class Reader:
    """Reads the bodies of all requests, in a limited time and memory: a client may send the end of one late or never.

    Args:
        max_bytes: limit of a body.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held = 0
        """Bytes of long bodies that are being read."""

    async def read(self, scope: Scope, receive: Receive) -> bytes | None:
        """Returns the whole body, or None if the client disconnects before its end.

        Raises:
            RequestError: it is too long (413), its end is late (408), or there is no room for it now (503).
        """
        length = dict(scope["headers"]).get(b"content-length", b"")
        if length.isdigit():
            self._check(int(length))
        try:
            return await asyncio.wait_for(self._read(receive), request_check.BODY_SECONDS)
        except asyncio.TimeoutError:  # noqa: UP041  # Another class than TimeoutError before Python 3.11.
            message = f"expected the whole body within {request_check.BODY_SECONDS:g} s"
            raise RequestError(message, status=408, headers=LAST) from None

    def _check(self, length: int) -> None:
        if length > self._max_bytes:
            message = f"expected a body of at most {self._max_bytes} bytes, the server's --max-request-bytes"
            raise RequestError(message, status=413, headers=LAST)

    async def _read(self, receive: Receive) -> bytes | None:
        body = bytearray()
        held = 0
        try:
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    return None
                body += message.get("body", b"")
                self._check(len(body))
                if not message.get("more_body", False):
                    return bytes(body)
                if len(body) > SHORT_BODY:
                    self._held += len(body) - held
                    held = len(body)
                    if self._held > request_check.MAX_BODIES_BYTES:
                        headers = {**LAST, "Retry-After": "1"}
                        raise RequestError("too many long bodies are being sent", status=503, headers=headers)
        finally:
            self._held -= held


def parse(body: bytes) -> Any:
    """Returns the content of a body, or NO_JSON.

    Raises:
        RequestError: it is costly to parse or to validate.
    """
    # Python's parser also reads other encodings, in which the bytes below stand for something else.
    if body and json.detect_encoding(body) not in ("utf-8", "utf-8-sig"):
        raise RequestError("expected JSON in UTF-8, found another encoding")
    check_structure(body)
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        return NO_JSON
    if isinstance(request, dict):
        check_size(request)
    return request


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
            raise RequestError(f"expected lists and objects at most {request_check.MAX_BODY_DEPTH} deep, found more")


def check_size(request: dict[str, Any]) -> None:
    """Refuses fields with too many values."""
    values = characters = 0
    for name, value in request.items():
        if name in ("input", "prompt") and isinstance(value, list):
            continue  # `check_structure` has counted it.
        more_values, more_characters = _measure(name, value)
        values += more_values
        characters += len(name) + (0 if name in LONG_FIELDS else more_characters)
    _at_most("values outside of prompt and input", values, request_check.MAX_BODY_VALUES)
    _at_most(
        f"characters in all fields but {', '.join(LONG_FIELDS)}", characters, request_check.MAX_BODY_OTHER_CHARACTERS
    )


def check_types(request: dict[str, Any]) -> None:
    """Refuses the first item of a list that has a wrong type, in a request as upstream reads it."""
    for name in ("input", "prompt"):
        if isinstance(request.get(name), list):
            _check_list(name, request[name])
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
        raise RequestError(f"expected {what}", name)
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
            message = describe([(*place[1:], *each["loc"]) for each in errors], [each["msg"] for each in errors])
            raise RequestError(message, name) from None


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


def _at_most(unit: str, found: int, limit: int, field: str | None = None) -> None:
    if found > limit:
        raise RequestError(f"expected at most {limit} {unit}, found {found}", clip(field) if field else None)
