"""`mlc_llm serve` answers the official openai client, explains what is wrong with a request, and stops on SIGTERM."""

from __future__ import annotations

import concurrent.futures
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from serving import PATIENCE, Server
from tiny_model_files import WEIGHTS

HELLO = [{"role": "user", "content": "hello world"}]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server")) as server:
        server.wait()
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with server.client() as client:
        yield client


def create(client: openai.OpenAI, **options: Any) -> Any:
    return client.chat.completions.create(
        **{"model": str(WEIGHTS), "messages": HELLO, "max_tokens": 12, "temperature": 0.0, **options}
    )


def test_health_names_the_model(server: Server) -> None:
    assert json.loads(server.get("/health")) == {"status": "ok", "models": [str(WEIGHTS)]}


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [str(WEIGHTS)]
    assert client.models.retrieve(str(WEIGHTS)).id == str(WEIGHTS)


def test_a_chat_is_answered_and_streamed(client: openai.OpenAI) -> None:
    answer = create(client)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 12
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 12
    pieces = list(create(client, stream=True, stream_options={"include_usage": True}))
    assert (
        "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
        == answer.choices[0].message.content
        != ""
    )
    assert pieces[-1].usage.total_tokens == answer.usage.total_tokens


def test_a_completion_is_answered(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=str(WEIGHTS), prompt="the quick brown", max_tokens=5, temperature=0.0)
    assert answer.choices[0].text and answer.usage.completion_tokens == 5


def test_json_fits_its_schema(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "boolean"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    answer = create(
        client, max_tokens=60, extra_body={"response_format": {"type": "json_object", "schema": json.dumps(schema)}}
    )
    value = json.loads(answer.choices[0].message.content)
    assert list(value) == ["a"] and isinstance(value["a"], bool)


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        ({"messages": "hello"}, 400, "messages: expected a list"),
        (
            {"messages": [{"role": "nobody", "content": "hello"}]},
            400,
            "messages: 0: role: expected system, developer, user, assistant or tool",
        ),
        (
            {"messages": [*HELLO, {"role": "system", "content": "late"}]},
            400,
            "messages: 1: the role system is supported only before all other messages",
        ),
        ({"messages": [{"role": "user", "content": "hello " * 600}]}, 400, "larger than the model input length limit"),
        ({"response_format": {"type": "json_object", "schema": "{"}}, 400, "response_format: expected a JSON schema"),
        ({"response_format": {"type": "json_schema"}}, 400, "json_schema: expected an object with a name"),
        ({"n": 0}, 400, "n: expected at least 1, found 0"),
        ({"n": 30_000_000}, 400, "n: expected at most 128, found 30000000"),
        ({"stop": ["x", ""]}, 400, "stop: expected texts, found an empty one"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "http://127.0.0.1:1/"}]}]},
            400,
            "this model takes no images",
        ),
        ({"top_p": 2.0}, 400, "top_p: expected a number from 0 to 1"),
        ({"logit_bias": {"320": 1}}, 400, "expected tokens from 0 to 319, found 320"),
        ({"logprobs": True, "top_logprobs": 20}, 400, "top_logprobs: expected at most 5, found 20"),
        ({"logprobs": True, "top_logprobs": 21}, 400, "must be in range [0, 20]"),
    ],
    ids=[
        "no_list",
        "role",
        "late_system",
        "long",
        "schema",
        "openai_schema",
        "n",
        "many",
        "empty_stop",
        "image",
        "top_p",
        "bias",
        "logprobs",
        "many_logprobs",
    ],
)
def test_the_error_of_a_wrong_request_says_what_is_wrong(
    client: openai.OpenAI, options: dict[str, Any], status: int, message: str
) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        # Sent without the client, which would refuse some of them.
        create(client, extra_body=options)
    assert caught.value.status_code == status
    assert isinstance(caught.value.body, dict) and message in caught.value.body["message"]


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"},
        {"$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"},
    ],
    ids=["nonsense", "cyclic"],
)
def test_a_schema_that_would_end_the_engine_is_refused(client: openai.OpenAI, schema: dict[str, Any]) -> None:
    """Upstream's engine dies, and the server with it, or the server keeps running and answers nothing."""
    before = create(client).choices[0].message.content
    with pytest.raises(openai.BadRequestError) as refused:
        create(client, extra_body={"response_format": {"type": "json_object", "schema": json.dumps(schema)}})
    assert "response_format: " in refused.value.response.text
    assert create(client).choices[0].message.content == before


def test_tokens_outside_of_the_vocabulary_are_refused(client: openai.OpenAI) -> None:
    for token in (320, 2147483647, -5):
        with pytest.raises(openai.BadRequestError) as refused:
            client.completions.create(model=str(WEIGHTS), prompt=[1, token], max_tokens=1)
        assert f"expected tokens from 0 to 319, found {token}" in refused.value.response.text


def test_the_same_user_may_ask_twice_at_once(client: openai.OpenAI) -> None:
    """Upstream gave the second request the answer of the first."""
    expected = [create(client, seed=seed, temperature=1.0).choices[0].message.content for seed in range(4)]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        asked = [pool.submit(create, client, seed=seed, temperature=1.0, user="alice") for seed in range(4)]
        assert [each.result(PATIENCE).choices[0].message.content for each in asked] == expected


def test_it_requires_its_key_and_stops_on_sigterm(tmp_path: Path) -> None:
    """A health check needs no key."""
    server = Server(tmp_path, "--api-key", "secret")
    try:
        server.wait()
        with server.client("wrong") as client, pytest.raises(openai.AuthenticationError) as refused:
            create(client)
        assert "Invalid API Key" in refused.value.response.text
        # A refused request is not read: the server answers before its body is sent.
        host, _, port = server.address.removeprefix("http://").rpartition(":")
        with socket.create_connection((host, int(port)), PATIENCE) as connection:
            connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 60000000\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 401 ")
        with server.client("secret") as client:
            assert create(client).choices
        assert server.terminate() == 0, server.log.read_text()
        log = server.log.read_text()
        assert "Finished server process" in log and "Traceback" not in log, log
    finally:
        server.process.kill()
        server.process.wait()
