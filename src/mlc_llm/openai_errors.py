"""Answers errors as OpenAI's clients read them: `{"error": {"message", "type", "param", "code"}}`.

Upstream answers with JSON inside a JSON string, FastAPI with `{"detail": …}` and, for an unexpected exception, with
plain text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import fastapi
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from mlc_llm.protocol import error_protocol

CODES = {401: "invalid_api_key", 404: "unknown_url", 405: "method_not_supported"}
"""OpenAI's codes for errors that the server answers before it reads a request."""

MAX_ERRORS = 4
MAX_ERROR_LENGTH = 200
"""Of the errors in an answer, and of the characters of one. A client chooses the names in it."""


class RequestError(ValueError):
    """A request is refused. The message is one line for the client who sent it.

    Args:
        message: what was expected and what was found.
        field: the field of the request, if it is known.
        status: the status of the answer.
        code: OpenAI's code of the error, if there is one.
        headers: of the answer.
    """

    def __init__(
        self,
        message: str,
        field: str | None = None,
        status: int = 400,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field
        self.status = status
        self.code = code
        self.headers = headers

    def response(self) -> JSONResponse:
        return response(self.status, str(self), self.field, self.code, self.headers)


def content(status: int, message: str, field: str | None = None, code: str | None = None) -> dict[str, Any]:
    """Returns the body of an answer with this status."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    # Fields are names without dots: what is inside of one is in the message.
    name = found[0] if (found := re.match(r"[a-z_]+", field or "")) else None
    # A client chooses some of the words: line feeds, or halves of surrogate pairs, which UTF-8 cannot encode.
    line = "".join(each if each.isprintable() else " " for each in message)
    return {"error": {"message": line, "type": kind, "param": name, "code": code}}


def response(
    status: int,
    message: str,
    field: str | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """Returns an answer with this status."""
    return JSONResponse(content(status, message, field, code), status, dict(headers or {}))


def describe(places: list[tuple[Any, ...]], messages: list[str]) -> str:
    """Returns the first errors of pydantic in one line."""
    lines = [
        ": ".join(part for part in (".".join(clip(each) for each in place), message) if part)[:MAX_ERROR_LENGTH]
        for place, message in zip(places[:MAX_ERRORS], messages[:MAX_ERRORS])
    ]
    more = len(places) - len(lines)
    return "; ".join(lines) + (f"; and {more} more" if more else "")


def clip(name: Any) -> str:
    """Returns a name for a message, cut if it is long."""
    text = str(name)
    return text if len(text) <= 40 else text[:37] + "..."


def _refused(status_code: int, message: str) -> JSONResponse:
    """Takes the place of upstream's function. Messages of `request_check` begin with the field."""
    found = re.match(r"([a-z_]+): ", message)
    code = None
    if "input length limit" in message:
        # Clients that shorten a conversation look for this code, or for these words.
        code, message = "context_length_exceeded", f"this model's maximum context length is exceeded: {message}"
    return response(int(status_code), message, found[1] if found else None, code)


async def _answer_http(request: fastapi.Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    message = str(error.detail)
    if error.status_code == 404 and message == "Not Found":
        message = f"expected a URL of this server, found {clip(request.url.path)}"
    elif error.status_code == 405:
        message = f"expected another method for {clip(request.url.path)}, found {request.method}"
    code = CODES.get(error.status_code)
    return response(error.status_code, message, None, code, error.headers)


async def _answer_invalid(_request: fastapi.Request, error: Exception) -> JSONResponse:
    """Answers a request that does not fit upstream's types. FastAPI would repeat the input in every error."""
    assert isinstance(error, RequestValidationError)
    errors: list[Any] = list(error.errors())
    places = [tuple(each["loc"])[1:] for each in errors]  # Without "body".
    first = places[0][0] if places and places[0] else None
    field = clip(first) if isinstance(first, str) else None
    return response(400, describe(places, [each["msg"] for each in errors]), field)


async def _answer_unexpected(_request: fastapi.Request, _error: Exception) -> JSONResponse:
    """Answers an exception. uvicorn then writes it to the log."""
    return response(500, "the server failed, its log says why")


def handle(app: fastapi.FastAPI) -> None:
    """Makes an application answer its errors in this form."""
    app.exception_handler(HTTPException)(_answer_http)
    app.exception_handler(RequestValidationError)(_answer_invalid)
    app.exception_handler(Exception)(_answer_unexpected)
    # A redirect would lead to the address that the client's Host names, and clients repeat a POST there as GET.
    app.router.redirect_slashes = False


def install() -> None:
    """Makes upstream's routes do the same."""
    error_protocol.create_error_response = _refused
