"""The server refuses what would harm it or other clients before upstream's code uses it, and mixes up no requests."""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import json
import zlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from application import JSON, AnsweringEngine, Service, ask, talk
from mlc_llm._mlc_bazel import access, connections
from mlc_llm.protocol import conversation_protocol, error_protocol
from mlc_llm.serve import engine, engine_base, engine_utils
from mlc_llm.serve.entrypoints import microserving_entrypoints
from mlc_llm.serve.server import ServerContext

CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"
HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Iterator[access.Guard]:
    monkeypatch.setattr(engine, "TextStreamer", lambda _: SimpleNamespace(finish=lambda: ""))
    monkeypatch.setattr(engine_utils, "convert_prompts_to_data", lambda prompts: [prompts])
    yield Service(monkeypatch, AnsweringEngine)()


def served() -> AnsweringEngine:
    return ServerContext.current().get_engine(None)


def body(path: str, **options: Any) -> list[bytes]:
    default = {"messages": HELLO} if path == CHAT else {"prompt": "hello"}
    return [json.dumps({**default, **options}).encode()]


def refusal(app: access.Guard, path: str, **options: Any) -> str:
    """The message of a request that is refused and never reaches the engine."""
    status, _, text = ask(app, path, "POST", JSON, body(path, **options))
    assert status == 400, (status, text)
    assert served().seen == []
    error = json.loads(text)["error"]
    assert error["type"] == "invalid_request_error" and "\n" not in error["message"]
    return str(error["message"])


def accepted(app: access.Guard, path: str, **options: Any) -> dict[str, Any]:
    """What the engine gets of a request."""
    served().state = engine_base.EngineState(False)  # It holds the event loop of the request before.
    status, _, text = ask(app, path, "POST", JSON, body(path, **options))
    assert status == 200, text
    return served().seen.pop()


def refused_program(**options: Any) -> str:
    """The message of a chat that a Python program asks the engine for, and that is refused."""
    with pytest.raises(error_protocol.BadRequestError) as refused:
        asyncio.run(served()._chat_completion(**{"messages": HELLO, **options}))
    assert served().seen == []
    return str(refused.value)


def accepted_program(**options: Any) -> dict[str, Any]:
    """What the engine gets of such a chat."""
    served().state = engine_base.EngineState(False)
    asyncio.run(served()._chat_completion(**{"messages": HELLO, **options}))
    return served().seen.pop()


BOTH = pytest.mark.parametrize("path", [CHAT, COMPLETION])


@BOTH
def test_requests_of_the_same_user_get_their_own_answers(app: access.Guard, path: str) -> None:
    """Upstream used `user` as the request's name: the second one took the answer of the first, which waited forever."""
    served().together = 2

    async def both() -> list[Any]:
        asked = [talk(app, path, "POST", JSON, body(path, user="alice")) for _ in range(2)]
        return await asyncio.wait_for(asyncio.gather(*asked), 60)

    answers = [json.loads(text) for _, _, text in asyncio.run(both())]
    names = [request["name"] for request in served().seen]
    assert len(set(names)) == 2 and "alice" not in names
    texts = [
        (answer["choices"][0].get("message") or {"content": answer["choices"][0].get("text")}) for answer in answers
    ]
    assert sorted(text["content"] for text in texts) == sorted(names)
    assert [answer["id"] for answer in answers] == [text["content"] for text in texts]


def test_micro_serving_keeps_the_name_that_links_its_steps(app: access.Guard) -> None:
    request = engine_utils.openai_api_protocol.CompletionRequest(prompt="hello", user="step")
    connected = SimpleNamespace(is_disconnected=lambda: asyncio.sleep(0, False))
    asyncio.run(microserving_entrypoints.request_completion(request=request, raw_request=connected))
    assert served().seen[0]["name"] == "step"


@BOTH
def test_too_many_choices_are_refused_before_upstream_lists_them(app: access.Guard, path: str) -> None:
    """Upstream needed 30 seconds and 2 GB for this, in which the server answered nobody."""
    assert refusal(app, path, n=30_000_000) == "n: expected at most 128, found 30000000"
    assert refusal(app, path, n=129, stream=True).startswith("n: expected at most 128")
    accepted(app, path, n=128)
    assert {each["n"] for each in served().seen} == {1}


@pytest.mark.parametrize("token", [320, 2147483647, 1 << 40, -1, -5])
def test_tokens_outside_of_the_vocabulary_are_refused(app: access.Guard, token: int) -> None:
    """Upstream's kernels read and write memory at these places."""
    expected = f"expected tokens from 0 to 319, found {token}"
    assert refusal(app, COMPLETION, prompt=[1, token]) == f"prompt: {expected}"
    assert refusal(app, COMPLETION, logit_bias={token: 1}) == f"logit_bias: {expected}"
    assert refusal(app, CHAT, logit_bias={token: 1}) == f"logit_bias: {expected}"


def test_tokens_of_the_vocabulary_are_accepted(app: access.Guard) -> None:
    accepted(app, COMPLETION, prompt=[0, 319])


@BOTH
@pytest.mark.parametrize("stop", ["", [""], ["a", ""]])
def test_an_empty_stop_text_is_refused(app: access.Guard, path: str, stop: Any) -> None:
    """Upstream's engine failed, and with it the requests of all clients."""
    assert refusal(app, path, stop=stop) == "stop: expected texts, found an empty one"


@BOTH
def test_options_have_limits(app: access.Guard, path: str) -> None:
    assert refusal(app, path, stop=["x"] * 17) == "stop: expected at most 16 texts, found 17"
    assert refusal(app, path, stop="x" * 513) == "stop: expected at most 512 bytes in a text, found 513"
    assert refusal(app, path, logit_bias=dict.fromkeys(range(1025), 1)).startswith("logit_bias: expected at most 1024")
    accepted(app, path, stop=["x"] * 16)


@BOTH
def test_a_prompt_that_cannot_fit_is_refused_before_it_is_tokenized(
    app: access.Guard, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served(), "tokenizer", None)
    text = "x" * 128_001
    options = {"prompt": text} if path == COMPLETION else {"messages": [{"role": "user", "content": text}]}
    assert "at most 128000 bytes" in refusal(app, path, **options)


def test_a_long_list_of_tokens_is_refused_before_upstream_writes_it_into_a_message(
    app: access.Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted(app, COMPLETION, prompt=[1] * 4000)
    monkeypatch.setattr(engine_utils, "process_prompts", lambda *_: pytest.fail("upstream's code got the tokens"))
    assert refusal(app, COMPLETION, prompt=[1] * 4001) == "prompt: expected at most 4000 tokens, found 4001"


def test_a_number_of_many_digits_is_not_repeated(app: access.Guard) -> None:
    found = "found a number of more than 64 bits"
    assert refusal(app, COMPLETION, prompt=[10**4000]) == f"prompt: expected tokens from 0 to 319, {found}"
    assert refusal(app, COMPLETION, n=10**4000) == "n: expected an integer of 64 bits"


def tool(**parameters: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", "parameters": parameters}}


def test_tools_count_as_part_of_the_prompt(app: access.Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    """28 MB of them reached the tokenizer."""
    accepted_program(tools=[tool(x="x" * 127_800)])
    # Names, and characters that are longer in JSON, count like the rest; so do the messages.
    message = {"messages": [{"role": "user", "content": "x" * 1000}]}
    # Tools that the prompt does not contain do not.
    accepted_program(tools=[tool(x="x" * 128_000)], tool_choice="none")
    monkeypatch.setattr(served(), "tokenizer", None)
    for options in (
        {"tools": [tool(x="x" * 128_000)]},
        {"tools": [tool(**{"x" * 128_000: [1]})]},
        {"tools": [tool(x="ü" * 22_000)]},
        {"tools": [tool(x="x" * 1000)] * 128},
        {"tools": [tool(x="x" * 127_800)], **message},
        {"tools": [{"type": "function", "function": {"name": "f", "description": "x" * 128_000, "parameters": {}}}]},
    ):
        assert "messages and tools: expected at most 128000 bytes" in refused_program(**options)


def test_a_client_may_write_what_upstream_replaces(app: access.Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Upstream put the tools into the middle of such a text, or removed the characters."""
    prompts: list[str] = []

    def encode(text: str) -> list[int]:
        prompts.append(text)
        return [1]

    tokenizer = SimpleNamespace(encode=encode, decode=str)
    monkeypatch.setattr(served(), "tokenizer", tokenizer)
    monkeypatch.setitem(served().conv_template.role_templates, "user", "{user_message} tools={function_string}")
    written = "a {function_string} b"
    for content in (written, [{"type": "text", "text": written}]):
        messages = [{"role": "system", "content": written}, *HELLO, {"role": "user", "content": content}]
        tools = [tool(x=written)]
        accepted_program(messages=messages, tools=tools)
        function = {"description": None, "name": "f", "parameters": {"x": written}}
        assert prompts.pop() == f"{written}u:hello tools=\nu:{written} tools={json.dumps([function])}\na:"


def test_texts_of_a_prompt_are_joined_at_once() -> None:
    """Upstream copied the whole prompt for each message: 8 seconds for 4 MB in 4,096 parts."""
    image = SimpleNamespace()
    for messages in ([], ["a"], ["a", "b", image, "c", image, image, "d", "e"]):
        expected = {0: [], 1: ["a"], 8: ["ab", image, "c", image, image, "de"]}[len(messages)]
        assert conversation_protocol._combine_consecutive_messages(messages) == expected

    class Text(str):
        def __add__(self, other: str) -> str:
            pytest.fail("the texts before it are copied")

    assert conversation_protocol._combine_consecutive_messages([Text("a"), Text("b")]) == ["ab"]


def test_a_chat_has_limits(app: access.Guard) -> None:
    assert "at most 2048 messages and parts, found 2049" in refusal(app, CHAT, messages=HELLO * 2049)
    parts = [{"type": "text", "text": ""}] * 2048
    assert "found 2049" in refused_program(messages=[{"role": "user", "content": parts}])
    deep: dict[str, Any] = {}
    for _ in range(65):
        deep = {"x": deep}
    for tools, message in (
        ([{}] * 129, "at most 128 tools, found 129"),
        ([deep], "at most 64 levels of parameters, found 65"),
    ):
        assert message in refused_program(tools=[tool(**parameters) for parameters in tools])
    assert "expected at most 5, found 6" in refusal(app, CHAT, logprobs=True, top_logprobs=6)


@BOTH
def test_a_schema_is_checked_and_simplified(app: access.Guard, path: str) -> None:
    def asked(schema: dict[str, Any]) -> dict[str, Any]:
        return {"response_format": {"type": "json_object", "schema": json.dumps(schema)}}

    cyclic = {"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}
    assert "refer to themselves" in refusal(app, path, **asked(cyclic))
    assert refusal(app, path, **asked({"type": "nonsense"})).startswith("response_format: type: expected one of array")
    seen = accepted(app, path, **asked({"type": "array", "items": {"$ref": "#"}, "title": "x"}))
    assert seen["response_format"]["schema"] == '{"type": "array", "items": {}}'


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    pixels = zlib.compress(b"".join(b"\0" * (width + 1) for _ in range(min(height, 10))))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size + b"\x08\0\0\0\0") + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def image(url: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": url}]}]}


def data_url(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails a test that upstream's code fetches something in."""
    from mlc_llm.serve import data

    monkeypatch.setattr(data.ImageData, "from_url", lambda *_: pytest.fail("upstream's code got the URL"))


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data/",
        "https://example.org/x.png",
        "file:///etc/passwd",
        "data:image,x",
        "httpx",
    ],
)
def test_only_images_inside_the_request_are_read(
    app: access.Guard, url: str, monkeypatch: pytest.MonkeyPatch, no_network: None
) -> None:
    """The server fetched any address that it can reach, and answered nobody meanwhile."""
    assert "takes no images" in refusal(app, CHAT, **image(url))
    monkeypatch.setitem(served().model_config_dicts[0], "model_type", "llava")
    for value in (url, {"url": url}):
        assert "this server fetches no other URLs" in refusal(app, CHAT, **image(value))


def test_a_model_without_images_refuses_them(app: access.Guard, no_network: None) -> None:
    """Its library lacks the function, and the engine would die."""
    assert refusal(app, CHAT, **image(data_url(png(2, 2)))) == "image_url: this model takes no images"


def test_images_have_limits(app: access.Guard, monkeypatch: pytest.MonkeyPatch, no_network: None) -> None:
    monkeypatch.setitem(served().model_config_dicts[0], "model_type", "llava")
    assert "at most 8388608 bytes" in refusal(app, CHAT, **image(data_url(b"\0" * ((8 << 20) + 3))))
    many = [{"type": "image_url", "image_url": data_url(b"")}] * 9
    assert "at most 8 images, found 9" in refusal(app, CHAT, messages=[{"role": "user", "content": many}])
    for part in ({"type": "image_url"}, {"type": "image_url", "image_url": 5}, {"type": "audio"}, {"type": "text"}):
        assert "expected" in refusal(app, CHAT, messages=[{"role": "user", "content": [part]}])


def test_images_without_pillow_are_refused(
    app: access.Guard, monkeypatch: pytest.MonkeyPatch, no_network: None
) -> None:
    monkeypatch.setitem(served().model_config_dicts[0], "model_type", "llava")
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    assert "install Pillow" in refusal(app, CHAT, **image(data_url(png(2, 2))))


def test_images_are_complete_and_small(app: access.Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    has_pillow = importlib.util.find_spec("PIL") is not None
    monkeypatch.setitem(served().model_config_dicts[0], "model_type", "llava")
    for data, message in (
        (png(30_000, 30_000), "image_url: expected"),
        (png(4000, 4000), "at most 8388608 pixels, found 16000000"),
        (png(100, 100)[:50], "expected a complete image"),
        (b"GIF89a", "expected an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "expected an image"),
    ):
        # The images and their tests have no Pillow; programs that use the wheel may have it.
        assert (message if has_pillow else "install Pillow") in refusal(app, CHAT, **image(data_url(data)))


def test_requests_for_embeddings_have_limits(app: access.Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = SimpleNamespace(async_embed=lambda _: pytest.fail("upstream's code got the request"))
    ServerContext.current().add_embedding_engine("model", embedder)
    for inputs, message in (
        (["x"] * 2049, "at most 2048 inputs"),
        ([[1]] * 2049, "at most 2048 inputs"),
        ([-1], "expected tokens"),
        ([[1], [1 << 31]], "expected tokens"),
        ("x" * (1 << 21) + "x", "at most 2097152 bytes"),
        (["ü" * 1024] * 1025, "at most 2097152 bytes"),
        ([1] * 300_001, "at most 300000 tokens"),
        ([[1] * 151] * 2000, "at most 300000 tokens"),
    ):
        status, _, text = ask(app, "/v1/embeddings", "POST", JSON, [json.dumps({"input": inputs}).encode()])
        assert status == 400 and message in text


def test_health_says_nothing_of_a_request(app: access.Guard) -> None:
    """It needs no key. The error of a dead engine quoted the schema of a client."""
    assert ask(app, "/health")[0] == 200
    served()._watched.dead = RuntimeError("Unsupported type SECRET in schema")
    status, _, text = ask(app, "/health")
    assert status == 503 and "the engine failed for good" in text and "SECRET" not in text
    status, _, text = ask(app, CHAT, "POST", JSON, body(CHAT))
    assert status == 500 and "SECRET" not in text


@BOTH
@pytest.mark.parametrize("field", ["model", "stop", "response_format"])
def test_half_a_surrogate_pair_is_refused(app: access.Guard, path: str, field: str) -> None:
    """The server answered status 500, with a traceback in its log."""
    half: dict[str, Any] = {"stop": ["\ud800"], "response_format": {"type": "json_object", "schema": '{"x": "\ud800"}'}}
    expected = f"{field}: expected text, found half of a surrogate pair"
    assert refusal(app, path, **{field: half.get(field, "\ud800")}) == expected


def test_half_a_surrogate_pair_is_refused_wherever_it_stands(app: access.Guard) -> None:
    half = "found half of a surrogate pair"
    assert half in refusal(app, COMPLETION, prompt="\ud800")
    assert half in refusal(app, COMPLETION, stop="\udfff", stream=True)
    assert half in refusal(app, CHAT, messages=[{"role": "user", "content": "\ud800"}])
    assert half in refusal(app, CHAT, messages=[{"role": "user", "content": [{"type": "text", "text": "\ud800"}]}])
    assert half in refusal(app, CHAT, tools=[tool(**{"\ud800": 1})])
    accepted(app, COMPLETION, prompt="\U0001f600")  # Both halves, as json writes it.
    ServerContext.current().add_embedding_engine("model", SimpleNamespace())
    status, _, text = ask(app, "/v1/embeddings", "POST", JSON, [b'{"input": "\\ud800"}'])
    assert status == 400 and half in text


@BOTH
@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_refused(app: access.Guard, path: str, number: float) -> None:
    """Python's parser accepts NaN and Infinity. Upstream compared NaN with its limits, and found it inside."""
    for field in ("temperature", "top_p", "frequency_penalty", "presence_penalty"):
        assert refusal(app, path, **{field: number}).startswith(f"{field}: expected a number from ")
    assert refusal(app, path, logit_bias={"5": number}).endswith(f', found "5": {number}')


@BOTH
@pytest.mark.parametrize("value", ["1", True, [1], {}])
def test_what_is_no_number_is_refused(app: access.Guard, path: str, value: Any) -> None:
    """pydantic makes numbers of the first two."""
    for field in ("temperature", "top_p", "frequency_penalty", "presence_penalty"):
        assert refusal(app, path, **{field: value}).startswith(f"{field}: expected a number from ")
    assert refusal(app, path, logit_bias={"5": value}).startswith("logit_bias: expected numbers of tokens")
    assert refusal(app, path, logit_bias={"5.0": 1}).endswith('found "5.0": 1')


@BOTH
def test_tiny_numbers_are_the_least_that_the_engine_has(app: access.Guard, path: str) -> None:
    """The engine read 1e-320 as 0, refused that for top_p, and answered with its own JSON."""
    given = accepted(app, path, temperature=1e-320, top_p=1e-320)
    assert given["temperature"] == given["top_p"] == 1e-6


def test_an_empty_prompt_is_refused(app: access.Guard) -> None:
    empty: tuple[str | list[int], ...] = ("", [])
    for prompt in empty:
        assert refusal(app, COMPLETION, prompt=prompt) == "prompt: expected a text or tokens, found none"
    assert refusal(app, CHAT, messages=[]) == "messages: expected a list of at least one message"


def test_what_the_template_has_no_place_for_is_refused(app: access.Guard) -> None:
    found = refused_program(messages=[*HELLO, {"role": "tool", "content": "x"}])
    assert found == "messages: expected roles of this model (system, user, assistant), found tool"
    for content in (None, [{"type": "text", "text": "x"}]):
        found = refused_program(messages=[{"role": "system", "content": content}, *HELLO])
        assert found == "messages: expected text from the role system"
    for choice in ({"a": 1}, {"type": "function"}, {"type": "function", "function": {}}):
        assert "tool_choice: expected" in refused_program(tools=[tool(x=1)], tool_choice=choice)
        assert "tool_choice: expected" in refusal(app, CHAT, tools=[tool(x=1)], tool_choice=choice)


@BOTH
@pytest.mark.parametrize("stream", [False, True])
def test_a_request_ends_when_its_client_has_gone(
    app: access.Guard, path: str, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Upstream noticed it only when the engine had written more text: a request without an end stayed forever."""
    monkeypatch.setattr(connections, "POLL_SECONDS", 0.01)
    aborted: list[str] = []
    served().together = 2  # The engine waits for another one before it answers.
    monkeypatch.setitem(served()._ffi, "abort_request", aborted.append)

    async def leave() -> None:
        bodies = body(path, stream=stream)

        async def receive() -> dict[str, Any]:
            if bodies:
                return {"type": "http.request", "body": bodies.pop(), "more_body": False}
            while not served().seen:
                await asyncio.sleep(0.001)
            return {"type": "http.disconnect"}

        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "query_string": b"",
            "headers": [(b"content-type", b"application/json")],
        }
        await asyncio.wait_for(app(scope, receive, lambda _: asyncio.sleep(0)), 60)

    asyncio.run(leave())
    assert aborted == [served().seen[0]["name"]]


def test_a_program_gets_the_same_checks(app: access.Guard) -> None:
    engine_utils_error: type[Exception] = engine_utils.error_protocol.BadRequestError
    create: Callable[..., Any] = served()._completion
    with pytest.raises(engine_utils_error, match="prompt: expected tokens from 0 to 319"):
        asyncio.run(create(prompt=[320], max_tokens=1))
