"""No body, however it is made, costs the server much to parse or to validate, and its errors do not repeat it."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import tracemalloc
import typing
from collections.abc import Iterator
from typing import Any

import pytest
from application import JSON, Model, Service, ask, talk
from fastapi.exceptions import RequestValidationError
from mlc_llm._mlc_bazel import access, openai_errors, request_body, request_check
from mlc_llm.protocol import microserving_protocol, openai_api_protocol

CHAT, COMPLETION, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
HELLO = [{"role": "user", "content": "hello"}]

PATIENCE = 60
"""Seconds after which a test fails that would otherwise wait forever."""


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> access.Guard:
    return Service(monkeypatch, Model)("--enable-microserving")


def error(app: access.Guard, path: str, body: bytes, headers: dict[str, str] = JSON) -> tuple[int, dict[str, Any]]:
    """Status and error of a request that is refused. The answer is short."""
    status, _, text = ask(app, path, "POST", headers, [body])
    assert len(text) < 1500, text[:1500]
    answer = json.loads(text)
    assert list(answer) == ["error"] and answer["error"]["type"] == "invalid_request_error"
    return status, answer["error"]


def listed(item: bytes, count: int = 20_000) -> bytes:
    return b"[" + b",".join([item] * count) + b"]"


ATTACKS = {
    "stop": (COMPLETION, b'{"prompt":"x","stop":%s}' % listed(b"1")),
    "stop_texts": (COMPLETION, b'{"prompt":"x","stop":%s}' % listed(b'""', 70_000)),
    "tools": (CHAT, b'{"messages":[],"tools":%s}' % listed(b"{}")),
    "messages": (CHAT, b'{"messages":%s}' % listed(b"1")),
    "contents": (CHAT, b'{"messages":%s}' % listed(b'{"content":%s}' % listed(b"1", 4000), 20)),
    "many_contents": (CHAT, b'{"messages":%s}' % listed(b'{"content":[1],"role":"user"}', 4000)),
    "tool_calls": (CHAT, b'{"messages":[{"role":"user","tool_calls":%s}]}' % listed(b"{}")),
    "prompt": (COMPLETION, b'{"prompt":%s}' % listed(b'"x"')),
    "prompt_lists": (COMPLETION, b'{"prompt":%s}' % listed(b"[]")),
    "prompt_mixed": (COMPLETION, b'{"prompt":[1,%s]}' % listed(b"null")[1:-1]),
    "input": (EMBEDDINGS, b'{"input":%s}' % listed(b"{}")),
    "input_mixed": (EMBEDDINGS, b'{"input":["x",%s]}' % listed(b"1")[1:-1]),
    "input_lists": (EMBEDDINGS, b'{"input":[[1],%s]}' % listed(b'["x"]')[1:-1]),
    "input_tokens": (EMBEDDINGS, b'{"input":%s}' % listed(b"1", 300_001)),
    "logit_bias": (
        COMPLETION,
        b'{"prompt":"x","logit_bias":{%s}}' % b",".join(b'"x%d":1' % number for number in range(20_000)),
    ),
    "logit_bias_values": (
        COMPLETION,
        b'{"prompt":"x","logit_bias":{%s}}' % b",".join(b'"%d":"x"' % number for number in range(1000)),
    ),
    "unknown": (CHAT, b'{"messages":[],"unknown":%s}' % listed(b"1")),
    "fields": (CHAT, b"{%s}" % b",".join(b'"x%d":1' % number for number in range(70_000))),
    "user": (CHAT, b'{"messages":[],"user":"%s"}' % (b"x" * 70_000)),
    "model": (COMPLETION, b'{"prompt":"x","model":"%s"}' % (b"x" * 70_000)),
    "tokens": (COMPLETION, b'{"prompt":%s}' % listed(b"1", (1 << 20) + 2)),
    "digits": (COMPLETION, b'{"prompt":%s}' % listed(b"1" * 4000, 2200)),
    "deep": (CHAT, b'{"messages":[],"tools":' + b"[" * 80 + b"]" * 80 + b"}"),
    "deeper": (CHAT, b"[" * 100_000),
    "microserving": ("/microserving/start_generate", b'{"prompt":"x","begin":0,"stop":%s}' % listed(b"1")),
    "debug": ("/none", listed(b"[]", 70_000)),
    "many_values": (CHAT, b'{"messages":[],"unknown":%s}' % listed(listed(b"1", 4000), 20)),
}


@pytest.mark.parametrize(("path", "body"), ATTACKS.values(), ids=ATTACKS)
def test_a_body_that_is_costly_to_validate_is_refused_before_a_route_gets_it(
    app: access.Guard, path: str, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2 MiB took 40 seconds, in which the server answered nobody, and 1.6 GB. The answer was 120 MB."""
    monkeypatch.setattr(RequestValidationError, "__init__", lambda *_, **__: pytest.fail("FastAPI validated it"))
    status, answer = error(app, path, body)
    assert status == 400
    assert "expected" in answer["message"] or "Input should be" in answer["message"]


def lists_of(model: Any) -> Iterator[str]:
    """The fields of a model that may be lists or objects without a model."""
    for name, field in model.model_fields.items():
        kinds = [field.annotation]
        while kinds:
            kind = kinds.pop()
            if typing.get_origin(kind) in (list, dict) or kind in (list, dict):
                yield name
                break
            kinds.extend(typing.get_args(kind))


@pytest.mark.parametrize(
    ("path", "model"),
    [
        (CHAT, openai_api_protocol.ChatCompletionRequest),
        (COMPLETION, openai_api_protocol.CompletionRequest),
        (EMBEDDINGS, openai_api_protocol.EmbeddingRequest),
        ("/microserving/prep_recv", microserving_protocol.PrepRecvRequest),
        ("/microserving/remote_send", microserving_protocol.RemoteSendRequest),
        ("/microserving/start_generate", microserving_protocol.StartGenerateRequest),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_no_field_gives_fastapi_many_errors(
    app: access.Guard, path: str, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It describes each at 40 µs in the thread that answers all clients."""
    counted: list[int] = []
    init = RequestValidationError.__init__

    def count(self: RequestValidationError, errors: Any, **options: Any) -> None:
        counted.append(len(errors))
        init(self, errors, **options)

    monkeypatch.setattr(RequestValidationError, "__init__", count)
    fields = list(lists_of(model))
    value: Any
    assert {"prompt", "messages", "input"} & set(fields)
    for field in fields:
        for value in (
            [None] * 1000,
            [{}] * 1000,
            ["x"] * 999 + [1],
            [[None] * 10] * 100,
            [{"role": 1, "content": [1]}] * 1000,
            {str(number): None for number in range(1000)},
        ):
            status, _ = error(app, path, json.dumps({"model": 1, field: value}).encode())
            assert status == 400
    assert max(counted, default=0) < 20


def test_other_clients_are_answered_while_a_body_is_checked(app: access.Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    answered, check = threading.Event(), request_body.parse

    def waiting_check(body: bytes) -> Any:
        if len(body) > request_body.SHORT_BODY:
            assert answered.wait(PATIENCE), "nobody is answered"
        return check(body)

    monkeypatch.setattr(request_body, "parse", waiting_check)

    async def both() -> tuple[int, int]:
        long = asyncio.create_task(talk(app, COMPLETION, "POST", JSON, [b'{"prompt":%s}' % listed(b'"x"', 30_000)]))
        await asyncio.sleep(0)
        health = await talk(app, "/health")
        answered.set()
        return health[0], (await long)[0]

    health, long = asyncio.run(both())
    assert health in (200, 503) and long == 400


@pytest.mark.parametrize("item", [b"1", b'""', b'"a"', b"[]", b"{}", b'{"a":1}'])
def test_a_body_is_refused_before_it_takes_much_memory(item: bytes) -> None:
    body = b'{"prompt":%s}' % listed(item, 1_200_000)
    tracemalloc.start()
    try:
        with pytest.raises(openai_errors.RequestError):
            request_body.parse(body)
        assert tracemalloc.get_traced_memory()[1] < 3 * len(body)
    finally:
        tracemalloc.stop()


def parts(*texts: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text} for text in texts]


PROSE = 'A "quoted" word, a list [1, 2, {3}], a path C:\\dir\\, and\na line. ü 🙂 \\" \\\\'
SCHEMA = {"type": "object", "properties": {f"property_{n}": {"type": "string", "enum": ["a"]} for n in range(60)}}
IMAGE = "data:image/png;base64," + base64.b64encode(bytes(8 << 20)).decode()
ORDINARY = {
    "hello": {"messages": HELLO},
    "long_text": {"messages": [{"role": "user", "content": PROSE * 50_000}]},
    "long_prompt": {"prompt": PROSE * 50_000},
    "tokens": {"prompt": list(range(1 << 20))},
    "conversation": {"messages": [{"role": "user", "content": PROSE}, {"role": "assistant", "content": PROSE}] * 1024},
    "parts": {"messages": [{"role": "user", "content": parts(*[PROSE] * 2047)}]},
    "tools": {
        "messages": HELLO,
        "tools": [{"type": "function", "function": {"name": f"f{n}", "parameters": SCHEMA}} for n in range(100)],
        "tool_choice": "auto",
    },
    "images": {
        "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": IMAGE}}] * 2 + parts("x")}]
    },
    "options": {
        "prompt": "x",
        "stop": ["x" * 512] * 16,
        "logit_bias": {str(token): -100 for token in range(1024)},
        "user": "x" * 1000,
        "metadata": {"a": "b"},
    },
    "embeddings": {"input": [PROSE] * 2048},
    "embedding_tokens": {"input": [[1] * 146] * 2048},
    "no_embeddings": {"input": []},
    "schema": {"messages": HELLO, "response_format": {"type": "json_object", "schema": "x" * (128 << 10)}},
}


@pytest.mark.parametrize("ascii_only", [True, False], ids=["escaped", "unicode"])
@pytest.mark.parametrize("request_", ORDINARY.values(), ids=ORDINARY)
def test_what_ordinary_clients_send_passes(request_: dict[str, Any], ascii_only: bool) -> None:
    request_body.parse(json.dumps(request_, ensure_ascii=ascii_only).encode())
    request_body.parse(json.dumps(request_, ensure_ascii=ascii_only, indent=4).encode("utf-8-sig"))


@pytest.mark.parametrize("body", [b"", b" ", b"{", b'"x', b'{"a":1}x', b"\xff", b"[1]", b"null", b'"x"', b"1" * 5000])
def test_what_is_no_request_is_left_to_the_routes(app: access.Guard, body: bytes) -> None:
    request_body.parse(body)
    status, _, text = ask(app, COMPLETION, "POST", JSON, [body])
    assert status == 400 and len(text) < 1000


@pytest.mark.parametrize("text", ["[" * 100, '"' + "[" * 100, "\\" + "[" * 100, '\\"' + "[" * 100, "{" * 100 + "\\"])
def test_brackets_in_texts_do_not_count(text: str) -> None:
    """Neither after quotation marks and backslashes; those after the text do."""
    request_body.parse(json.dumps({"prompt": text}).encode())
    with pytest.raises(openai_errors.RequestError, match="80 deep"):
        request_body.parse(json.dumps({"prompt": text})[:-1].encode() + b',"x":' + b"[" * 80 + b"]" * 80 + b"}")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_other_encodings_are_refused(encoding: str) -> None:
    """Python reads them too. In their bytes this quotation mark would not look escaped, and hide what follows."""
    with pytest.raises(openai_errors.RequestError, match="expected JSON in UTF-8"):
        request_body.parse(('{"user":"\\"","x":' + "[" * 100 + "]" * 100 + "}").encode(encoding))


def test_an_error_names_the_item_and_does_not_repeat_the_input(app: access.Guard) -> None:
    secret = "SECRET" * 100
    for path, wrong, status, message in (
        (CHAT, {"messages": [*HELLO, {"role": secret}]}, 400, "messages: 1: role: expected system, developer"),
        (CHAT, {"messages": secret}, 400, "messages: expected a list"),
        (CHAT, {"messages": HELLO, "n": secret}, 400, "n: expected an integer"),
        (CHAT, {"messages": HELLO, "stop": ["x", 5]}, 400, "stop: 1: Input should be a valid string"),
        (
            CHAT,
            {"messages": HELLO, "logit_bias": {"x": 5}},
            400,
            'logit_bias: expected numbers of tokens, with biases from -100 to 100, found "x": 5',
        ),
        (CHAT, {"messages": HELLO, "logit_bias": {"1": 500}}, 400, "biases from -100 to 100"),
        (COMPLETION, {"prompt": ["x", 1]}, 400, "prompt: expected a text, a list of texts"),
        (COMPLETION, {"prompt": "x", "user": "x" * 70_000}, 400, "expected at most 65536 characters in all fields but"),
        (COMPLETION, {"prompt": "x", "x": [1] * 4097}, 400, "x: expected at most 4096 items in a list or object"),
        (COMPLETION, {}, 400, "prompt: expected a text or tokens"),
    ):
        found, answer = error(app, path, json.dumps(wrong).encode())
        assert (found, answer["code"]) == (status, None) and message in answer["message"], answer
        assert "SECRET" not in answer["message"]
    # Names are the client's too.
    for path, headers in ((CHAT, JSON), (CHAT, {}), (CHAT, {"content-type": "text/plain"})):
        _, answer = error(app, path, json.dumps({"messages": HELLO, "logit_bias": {secret: 5}}).encode(), headers)
        assert answer["message"].count("SECRET") < 8


def test_an_error_lists_few_errors(app: access.Guard) -> None:
    wrong: dict[str, Any] = dict.fromkeys(("n", "seed", "stream", "top_p", "user", "temperature"), {})
    body = json.dumps({"prompt": "x", "begin": 0, **wrong}).encode()
    status, answer = error(app, "/microserving/start_generate", body)
    assert status == 400 and answer["message"].endswith("; and 2 more") and answer["message"].count(";") == 4


def receiver(parts: list[bytes], ended: bool = False) -> Any:
    """A client that sends parts of a body, and the end or nothing more."""

    async def receive() -> dict[str, Any]:
        if not parts:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts) or not ended}

    return receive


@pytest.mark.parametrize(
    ("path", "method"), [("/health", "POST"), ("/metrics", "POST"), ("/v1/models", "GET"), (CHAT, "OPTIONS")]
)
def test_what_needs_no_key_sends_no_body(app: access.Guard, path: str, method: str) -> None:
    """Such bodies took the room and the time of those that clients with the key send."""

    async def answered() -> int:
        headers = {**JSON, "Origin": "https://example.org", "Access-Control-Request-Method": "POST"}
        task = asyncio.create_task(talk(app, path, method, headers, [b"x", b""]))
        return (await asyncio.wait_for(task, PATIENCE))[0]

    assert asyncio.run(answered()) in (200, 400, 405, 503)


def test_a_body_whose_end_does_not_come_is_given_up(app: access.Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_check, "BODY_SECONDS", 0.01)
    reader = request_body.Reader(1 << 30)
    with pytest.raises(openai_errors.RequestError, match="expected the whole body within") as refused:
        asyncio.run(reader.read({"headers": []}, receiver([b"x" * (1 << 20)])))
    assert refused.value.status == 408 and refused.value.response().headers["connection"] == "close"
    assert reader._held == 0


def test_long_bodies_that_are_read_at_once_share_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """30 clients that held back the end of theirs took 1.2 GB."""
    monkeypatch.setattr(request_check, "MAX_BODIES_BYTES", 3 << 20)
    reader = request_body.Reader(1 << 30)
    long = b"x" * (2 << 20)

    async def several() -> None:
        waiting = asyncio.create_task(reader.read({"headers": []}, receiver([long])))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with pytest.raises(openai_errors.RequestError, match="too many long bodies") as refused:
            await reader.read({"headers": []}, receiver([long, b""], ended=True))
        assert refused.value.status == 503 and "retry-after" in refused.value.response().headers
        # Short ones are read all the same.
        assert await reader.read({"headers": []}, receiver([b"x", b"y"], ended=True)) == b"xy"
        waiting.cancel()
        await asyncio.wait([waiting])
        assert await reader.read({"headers": []}, receiver([long, b""], ended=True)) == long

    asyncio.run(several())


def test_pages_of_other_sites_may_read_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    app = Service(monkeypatch, Model)('--allow-origins=["https://example.org"]')
    headers = {**JSON, "Origin": "https://example.org"}
    status, answered, _ = ask(app, COMPLETION, "POST", headers, [b'{"prompt":["x",1]}'])
    assert status == 400 and answered["access-control-allow-origin"] == "https://example.org"


def test_the_limits_leave_room_for_those_of_requests() -> None:
    assert (
        max(request_check.MAX_MESSAGES, request_check.MAX_INPUTS, request_check.MAX_BIASES, request_check.MAX_TOOLS)
        < request_check.MAX_BODY_ITEMS
    )
    assert request_check.MAX_BODY_OTHER_CHARACTERS > 2 * request_check.MAX_STOPS * request_check.MAX_STOP_BYTES
    assert request_check.MAX_BODY_DEPTH > request_check.MAX_TOOL_DEPTH + 5
