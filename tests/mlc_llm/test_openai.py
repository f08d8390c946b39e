"""The server speaks OpenAI's API as clients do today: what they send means the same to both, or is refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import openai.types.chat
import pytest
from application import JSON, AnsweringEngine, Output, Service, ask, talk
from mlc_llm._mlc_bazel import access, answer_text, engine_watch, openai_answers, openai_requests, tool_calls
from mlc_llm.serve import engine, engine_base, engine_utils
from mlc_llm.serve.server import ServerContext

CHAT, COMPLETION, EMBEDDING = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
HELLO = [{"role": "user", "content": "hello"}]
SYSTEM = "the template's own"

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"$ref": "#/$defs/City"}},
            "$defs": {"City": {"type": "string"}},
        },
    },
}
NOW = {"type": "function", "function": {"name": "now"}}
CALLED = [
    *HELLO,
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}},
            {"id": "b", "type": "function", "function": {"name": "now", "arguments": "{}"}},
        ],
    },
    {"role": "tool", "tool_call_id": "a", "content": "20 degrees"},
    {"role": "tool", "tool_call_id": "b", "content": [{"type": "text", "text": "noon"}]},
]


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Iterator[access.Guard]:
    monkeypatch.setattr(engine, "TextStreamer", lambda _: SimpleNamespace(finish=lambda: ""))
    monkeypatch.setattr(engine_utils, "convert_prompts_to_data", lambda prompts: [prompts])
    yield Service(monkeypatch, AnsweringEngine)()


@pytest.fixture
def prompts(app: access.Guard, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The prompts that the tokenizer gets."""
    texts: list[str] = []

    def encode(text: str) -> list[int]:
        texts.append(text)
        return [1]

    monkeypatch.setattr(served(), "tokenizer", SimpleNamespace(encode=encode, decode=str))
    monkeypatch.setattr(served().conv_template, "system_message", SYSTEM)
    return texts


def served() -> AnsweringEngine:
    return ServerContext.current().get_engine(None)


def request(path: str, **options: Any) -> list[bytes]:
    default = {"messages": HELLO} if path == CHAT else {"prompt": "hello"} if path == COMPLETION else {}
    return [json.dumps({**default, **options}).encode()]


def answered(app: access.Guard, path: str, **options: Any) -> Any:
    served().state = engine_base.EngineState(False)  # It holds the event loop of the request before.
    status, _, text = ask(app, path, "POST", JSON, request(path, **options))
    assert status == 200, text
    return json.loads(text)


def refused(app: access.Guard, path: str, **options: Any) -> dict[str, Any]:
    """The error of a request that never reaches the engine."""
    status, _, text = ask(app, path, "POST", JSON, request(path, **options))
    assert status == 400 and served().seen == [], (status, text)
    error: dict[str, Any] = json.loads(text)["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["type"] == "invalid_request_error"
    assert "\n" not in error["message"]
    return error


def streamed(app: access.Guard, path: str, **options: Any) -> list[dict[str, Any]]:
    """The events of a stream without the last, [DONE]."""
    served().state = engine_base.EngineState(False)
    status, headers, text = ask(app, path, "POST", JSON, request(path, stream=True, **options))
    assert status == 200 and headers["content-type"].startswith("text/event-stream"), text
    *events, done, nothing = text.split("\n\n")
    assert (done, nothing) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in events]


def say(*texts: str, reason: str = "stop") -> None:
    """Sets what the engine answers, piece by piece."""
    served().texts, served().finish_reason = texts, reason


def call(name: str = "get_weather", **arguments: Any) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


@pytest.mark.parametrize("path", [CHAT, COMPLETION])
def test_null_is_the_default_of_every_field(app: access.Guard, path: str) -> None:
    names = ("best_of", "echo", "logit_bias", "logprobs", "max_tokens", "model", "n", "response_format", "seed", "stop",
             "stream", "stream_options", "suffix", "temperature", "tool_choice", "tools", "top_logprobs", "top_p",
             "user", "anything")  # fmt: skip
    assert answered(app, path, **dict.fromkeys(names))["model"] == "model"


def test_the_newer_name_of_a_limit_counts(app: access.Guard) -> None:
    answered(app, CHAT, max_completion_tokens=3)
    assert served().seen.pop()["max_tokens"] == 3
    answered(app, CHAT, max_completion_tokens=3, max_tokens=3)
    served().seen.clear()
    assert "found both" in refused(app, CHAT, max_completion_tokens=3, max_tokens=4)["message"]
    assert refused(app, CHAT, max_completion_tokens=0)["param"] == "max_completion_tokens"


def test_messages_of_every_role_may_be_lists_of_texts(app: access.Guard, prompts: list[str]) -> None:
    def parts(*texts: str) -> list[dict[str, str]]:
        return [{"type": "text", "text": text} for text in texts]

    answered(
        app,
        CHAT,
        messages=[
            {"role": "system", "content": parts("one", "two")},
            {"role": "developer", "content": "three"},
            {"role": "user", "content": parts("four")},
            {"role": "assistant", "content": parts("five"), "refusal": None, "annotations": []},
            {"role": "user", "content": "six", "name": "bob"},
        ],
    )
    assert prompts == ["one\ntwo\n\nthreeu:four\na:five\nu:six\na:"]


def test_a_model_without_system_messages_reads_them_in_the_first_of_the_user(
    app: access.Guard, prompts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served().conv_template, "system_template", "")
    answered(app, CHAT, messages=[{"role": "system", "content": "one"}, *HELLO])
    assert prompts == ["u:one\n\nhello\na:"]


@pytest.mark.parametrize(
    ("message", "found"),
    [
        ({"role": "user", "content": None}, "content: expected text"),
        ({"role": "user", "content": []}, "content: expected text"),
        ({"role": "user", "content": [{"type": "text"}]}, "parts of the type text, with text"),
        ({"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}, "found input_audio"),
        ({"role": "user", "content": ["x"]}, "found something else"),
        ({"role": "system", "content": None}, "supported only before"),
        ({"role": "developer", "content": "x"}, "supported only before"),
        ({"role": "assistant", "content": None}, "content: expected text"),
        ({"role": "assistant", "content": "x", "function_call": {"name": "f", "arguments": ""}}, "not supported"),
        ({"role": "assistant", "tool_calls": [{"id": "a"}]}, "tool_calls: expected"),
        ({"role": "assistant", "tool_calls": "x"}, "tool_calls: expected"),
        ({"role": "tool", "tool_call_id": "none", "content": "x"}, "tool_call_id: expected"),
        ({"role": "tool", "tool_call_id": [], "content": "x"}, "tool_call_id: expected"),
        ({"role": "function", "content": "x"}, "role: expected"),
        ("x", "role: expected"),
    ],
    ids=str,
)
def test_a_message_without_a_meaning_is_refused(app: access.Guard, message: Any, found: str) -> None:
    error = refused(app, CHAT, messages=[*HELLO, message])
    assert error["param"] == "messages" and error["message"].startswith("messages: 1: ") and found in error["message"]


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"functions": []}, "functions"),
        ({"audio": {}}, "audio"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"store": True}, "store"),
        ({"store": 0}, "store"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"top_k": 5}, "top_k"),
        ({"n": "2"}, "n"),
        ({"logprobs": "yes"}, "logprobs"),
        ({"logprobs": 1}, "logprobs"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "strict": "no"}}},
            "response_format",
        ),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "strict": True, "schema": {"allOf": 5}},
                }
            },
            "response_format",
        ),
        ({"n": True}, "n"),
        ({"stream": "yes"}, "stream"),
        ({"temperature": 2.1}, "temperature"),
        ({"debug_config": {"ignore_eos": True}}, "debug_config"),
        ({"stream_options": {}}, "stream_options"),
        ({"stream_options": {"usage": True}, "stream": True}, "stream_options"),
        ({"stream_options": {"include_usage": 1}, "stream": True}, "stream_options"),
        ({"response_format": "json"}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": "some"}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "now"}}}, "tool_choice"),
        ({"tools": [WEATHER, WEATHER]}, "tools"),
        ({"tools": [WEATHER] * 129}, "tools"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools"),
        ({"tools": [WEATHER], "parallel_tool_calls": 1}, "parallel_tool_calls"),
        ({"tools": [WEATHER], "response_format": {"type": "json_object"}}, "response_format"),
    ],
    ids=str,
)
def test_what_is_not_supported_is_refused(app: access.Guard, options: dict[str, Any], param: str) -> None:
    """Upstream ignored most of it."""
    assert refused(app, CHAT, **options)["param"] == param


def test_every_prompt_of_a_list_is_answered(app: access.Guard) -> None:
    say("x", "y")
    answer = answered(app, COMPLETION, prompt=["one", "two", "three"], n=2)
    assert [(each["index"], each["text"]) for each in answer["choices"]] == [(index, "xy") for index in range(6)]
    # Those of a prompt are counted once.
    assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 6, "total_tokens": 9}
    assert len({each["name"] for each in served().seen}) == 6
    events = streamed(app, COMPLETION, prompt=[[1], [2, 3]], stream_options={"include_usage": True})
    texts = ["", ""]
    for event in events[:-1]:
        assert event["usage"] is None and event["id"] == events[0]["id"]
        texts[event["choices"][0]["index"]] += event["choices"][0]["text"]
    assert texts == ["xy", "xy"] and events[-1]["usage"]["total_tokens"] == 4
    served().seen.clear()
    wrong: tuple[Any, ...] = (["x", 1], [[1], "x"], [[1], ["x"]], [{}], {}, [""], [[]], ["x"] * 129, [["x"]])
    for prompt in wrong:
        assert refused(app, COMPLETION, prompt=prompt)["param"] == "prompt"
    assert "129" not in refused(app, COMPLETION, prompt=["x"] * 65, n=2)["message"]


def test_choices_are_requests_of_their_own(app: access.Guard) -> None:
    """Upstream's engine failed where the choices of one request ended at different times."""
    answered(app, CHAT, n=3, seed=(1 << 63) - 2)
    assert [each["n"] for each in served().seen] == [1] * 3
    assert {each["seed"] for each in served().seen} == {(1 << 63) - 2, (1 << 63) - 1, -(1 << 63)}
    served().seen.clear()
    answered(app, COMPLETION, n=2)
    assert [each["seed"] for each in served().seen] == [None, None]
    served().seen.clear()
    events = streamed(app, CHAT, n=2, stream_options={"include_usage": True})
    assert {each["index"] for event in events for each in event["choices"]} == {0, 1}
    assert events[-1]["usage"] == {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}


def test_health_is_answered_between_two_prompts(app: access.Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    """All prompts of a request were parsed and tokenized one after the other: 17 s in which nobody was answered."""
    events: list[str] = []

    def encode(_: str) -> list[int]:
        events.append("prompt")
        return [1]

    served().tokenizer = SimpleNamespace(encode=encode, decode=str)
    served().together = 5
    served().state = engine_base.EngineState(False)

    async def ask_both() -> int:
        asked = asyncio.create_task(talk(app, COMPLETION, "POST", JSON, request(COMPLETION, prompt=["x"] * 5)))
        while not asked.done():
            await asyncio.sleep(0)
            events.append("health")
        return (await asked)[0]

    assert asyncio.run(ask_both()) == 200
    first, last = events.index("prompt"), len(events) - 1 - events[::-1].index("prompt")
    between = "".join(each[0] for each in events[first : last + 1])
    assert between.count("p") == 5 and "pp" not in between


def test_prompts_behind_one_that_is_refused_are_not_read(app: access.Guard) -> None:
    encoded: list[str] = []

    def encode(text: str) -> list[int]:
        encoded.append(text)
        return [1] * 10_000

    served().tokenizer = SimpleNamespace(encode=encode, decode=str)
    assert ask(app, COMPLETION, "POST", JSON, request(COMPLETION, prompt=["x"] * 100))[0] == 400
    assert len(encoded) < 5


def test_choices_do_not_multiply_a_long_prompt(app: access.Guard) -> None:
    long = [{"role": "user", "content": "x" * (1 << 20)}]
    assert refused(app, CHAT, messages=long, n=9)["param"] == "n"


STOPS = [
    (["aris"], [" P", "aris!"], " P", "stop"),
    (["is", "aris"], [" Paris"], " P", "stop"),
    (["\n\n"], ["a\n", "b\n", "\nc"], "a\nb", "stop"),
    (["abc"], ["ab", "ab", "d"], "ababd", "stop"),
    (["abc"], ["xa", "b"], "xab", "length"),
    (["é"], ["th", "é vert"], "th", "stop"),
    ("x", ["x"], "", "stop"),
]


@pytest.mark.parametrize("path", [CHAT, COMPLETION])
@pytest.mark.parametrize(("stop", "pieces", "expected", "reason"), STOPS)
def test_an_answer_ends_at_the_first_stop_and_loses_nothing_before_it(
    app: access.Guard, path: str, stop: Any, pieces: list[str], expected: str, reason: str
) -> None:
    say(*pieces, reason=reason)
    choice = answered(app, path, stop=stop)["choices"][0]
    assert (choice["text"] if path == COMPLETION else choice["message"]["content"]) == expected
    assert choice["finish_reason"] == reason
    choices = [event["choices"][0] for event in streamed(app, path, stop=stop)]
    texts = [each["text"] if path == COMPLETION else each["delta"].get("content", "") for each in choices]
    assert "".join(texts) == expected and [each["finish_reason"] for each in choices if each["finish_reason"]] == [
        reason
    ]


def test_a_text_that_can_be_no_stop_is_sent_at_once() -> None:
    text = answer_text.Text(["abc", "b!"])
    assert [text.put(each, 1, [], last=False)[0] for each in ("xa", "b", "x", "ab")] == ["x", "", "abx", ""]
    assert text.put("", 0, [], last=True)[0] == "ab"


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_the_cut_does_not_depend_on_tokens(size: int) -> None:
    """The stop that is complete first counts, as in the engine, which reports whole tokens."""
    for whole, stops, expected in (("aaabb", ["abb", "b", "ba"], "aaa"), ("xabcd", ["d", "bc", "abcd"], "xa")):
        text, found = answer_text.Text(stops), ""
        for start in range(0, len(whole), size):
            part = whole[start : start + size]
            last = any(stop in whole[: start + size] for stop in stops)
            found += text.put(part, 1, [], last)[0]
            if last:
                break
        assert found == expected


def logprob(token: str) -> str:
    return json.dumps({"token": "", "logprob": -1.0, "bytes": [*token.encode()], "top_logprobs": []})


def tokens(logprobs: list[str]) -> list[str]:
    return [json.loads(each)["token"] for each in logprobs]


def test_log_probabilities_come_with_their_text() -> None:
    text = answer_text.Text(["bc"])
    given = ["a", "b", "x"]
    assert [tokens(text.put(each, 1, [logprob(each)], False)[1]) for each in given] == [["a"], [], ["b", "x"]]
    # The engine reports the log probabilities of tokens that may be part of a stop before their text.
    assert tokens(text.put("", 0, [logprob("b")], last=False)[1]) == []
    assert tokens(text.put("bcd", 2, [logprob("cd")], last=True)[1]) == []
    # An answer may end inside a character, and the token that ends it has a log probability.
    assert tokens(answer_text.Text([]).put("", 1, [logprob("x"), logprob("</s>")], last=True)[1]) == ["x"]


def test_tokens_are_counted_in_characters_of_the_text(app: access.Guard) -> None:
    smile = "😀".encode()
    texts = [" a", *(answer_text.token_text(part) for part in (smile[:2], smile[2:])), "\n", "b"]
    assert texts[1:3] == ["bytes:\\xf0\\x9f", "bytes:\\x98\\x80"]
    choice = openai_answers._Choice(openai_requests.Translated(COMPLETION, [{}], "model"), 0)
    given = {"tokens": texts, "token_logprobs": [0] * 5, "top_logprobs": [{}] * 5}
    found = choice._offsets(given)
    assert found is not None and found["text_offset"] == [0, 2, 2, 3, 4]


def test_the_first_error_of_several_prompts_is_the_answer(app: access.Guard) -> None:
    for stream in (False, True):
        served().state = engine_base.EngineState(False)
        assert "tokens from 0 to 319" in ask(app, COMPLETION, "POST", JSON, request(
            COMPLETION, prompt=[[1], [999]], stream=stream))[2]  # fmt: skip


def test_a_stream_begins_with_the_role_and_ends_with_the_reason(app: access.Guard) -> None:
    say("Hi ", "you", reason="length")
    events = streamed(app, CHAT)
    choices = [event["choices"][0] for event in events]
    assert [each["delta"] for each in choices] == [
        {"role": "assistant", "content": ""},
        {"content": "Hi "},
        {"content": "you"},
        {},
    ]
    assert [each["finish_reason"] for each in choices] == [None, None, None, "length"]
    assert len({(event["id"], event["created"], event["model"], event["object"]) for event in events}) == 1


def test_tools_are_offered_in_the_system_message(app: access.Guard, prompts: list[str]) -> None:
    answered(app, CHAT, tools=[WEATHER, NOW])
    (prompt,) = prompts
    assert prompt.startswith(f"{SYSTEM}\n\n# Tools") and prompt.endswith("u:hello\na:")
    assert json.dumps(WEATHER["function"])[1:40] in prompt
    assert '"name": "now", "parameters": {"type": "object", "properties": {}}' in prompt
    prompts.clear()
    answered(app, CHAT, tools=[WEATHER], tool_choice="none")
    assert prompts == [f"{SYSTEM}u:hello\na:"]


def test_earlier_calls_and_results_are_part_of_the_prompt(app: access.Guard, prompts: list[str]) -> None:
    answered(app, CHAT, messages=CALLED)
    results = "<tool_response>\n20 degrees\n</tool_response>\n<tool_response>\nnoon\n</tool_response>"
    calls = call(city="Paris") + "\n" + call("now")
    assert prompts == [f"{SYSTEM}u:hello\na:{calls}\nu:{results}\na:"]
    served().conv_template.roles["tool"] = "t"
    prompts.clear()
    answered(app, CHAT, messages=CALLED)
    assert prompts == [f"{SYSTEM}u:hello\na:{calls}\nt:{results}\na:"]


def test_a_call_is_found_in_the_text(app: access.Guard) -> None:
    say("Let me see.\n", call(city="Paris"), "\n" + call("now"), "\n")
    (choice,) = answered(app, CHAT, tools=[WEATHER, NOW])["choices"]
    assert choice["finish_reason"] == "tool_calls" and choice["message"]["content"] == "Let me see."
    calls = choice["message"]["tool_calls"]
    assert [each["function"] for each in calls] == [
        {"name": "get_weather", "arguments": '{"city": "Paris"}'},
        {"name": "now", "arguments": "{}"},
    ]
    assert len({each["id"] for each in calls}) == 2
    (choice,) = answered(app, CHAT, tools=[WEATHER, NOW], parallel_tool_calls=False)["choices"]
    assert len(choice["message"]["tool_calls"]) == 1
    # Without tools it is text.
    (choice,) = answered(app, CHAT)["choices"]
    assert choice["finish_reason"] == "stop" and "<tool_call>" in choice["message"]["content"]


def test_a_plain_answer_while_tools_are_offered_is_plain(app: access.Guard) -> None:
    """Upstream ended it with the reason "error" and threw its text away."""
    say("It is < 20 degrees <tool")
    (choice,) = answered(app, CHAT, tools=[WEATHER])["choices"]
    assert choice["finish_reason"] == "stop" and choice["message"]["content"] == "It is < 20 degrees <tool"
    assert "tool_calls" not in choice["message"]


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_call_is_streamed_as_one(app: access.Guard, size: int) -> None:
    text = "Well <b>\n" + call(city="x") + call("now") + " end"
    say(*(text[start : start + size] for start in range(0, len(text), size)))
    deltas = [event["choices"][0]["delta"] for event in streamed(app, CHAT, tools=[WEATHER, NOW])]
    assert "".join(each.get("content", "") for each in deltas) == "Well <b>end"
    calls = [each["tool_calls"][0] for each in deltas if "tool_calls" in each]
    assert [each["index"] for each in calls] == [0, 1]
    assert [each["function"]["name"] for each in calls] == ["get_weather", "now"]


@pytest.mark.parametrize(
    "text",
    ["<tool_call>{</tool_call>", call("unknown"), "<tool_call>[1]</tool_call>", "<tool_call>", "a <tool_call> {x"],
)
def test_what_is_no_call_stays_text(app: access.Guard, text: str) -> None:
    say(text)
    (choice,) = answered(app, CHAT, tools=[WEATHER])["choices"]
    assert choice["finish_reason"] == "stop" and choice["message"]["content"].replace("a<", "a <") == text


def test_a_call_without_its_last_tag_and_calls_in_a_list_count() -> None:
    reader = tool_calls.Reader(["f"])
    assert reader.read('<tool_call>{"name": "f", "parameters": {"a": 1}}') == []
    (found,) = reader.end()
    assert isinstance(found, dict) and found["function"] == {"name": "f", "arguments": '{"a": 1}'}
    found = tool_calls.Reader(["f"]).read('<tool_call>[{"name": "f"}, {"name": "f", "arguments": "x"}]</tool_call>')
    assert [each["function"]["arguments"] for each in found if isinstance(each, dict)] == ["{}", "x"]


def test_a_call_that_is_required_has_the_schema_of_the_function(app: access.Guard) -> None:
    say('{"name": "get_weather", "argum', 'ents": {"city": "Paris"}}')
    for choice in ("required", {"type": "function", "function": {"name": "get_weather"}}):
        tools = [WEATHER, NOW] if choice == "required" else [NOW, WEATHER]
        answer = answered(app, CHAT, tools=tools, tool_choice=choice)["choices"][0]
        assert answer["finish_reason"] == "tool_calls" and answer["message"]["content"] is None
        assert answer["message"]["tool_calls"][0]["function"]["arguments"] == '{"city": "Paris"}'
        schema = json.loads(served().seen.pop()["response_format"]["schema"])
        weather = {
            "type": "object",
            "properties": {
                "name": {"const": "get_weather"},
                "arguments": {"type": "object", "properties": {"city": {"type": "string"}}, "required": []},
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        assert (schema["anyOf"][0] if choice == "required" else schema) == weather
    deltas = [event["choices"][0]["delta"] for event in streamed(app, CHAT, tools=[WEATHER], tool_choice="required")]
    assert [each["tool_calls"][0]["function"]["name"] for each in deltas if "tool_calls" in each] == ["get_weather"]


@pytest.mark.parametrize("arguments", ['{"x": "\\ud83d"}', '{"x": 1e999, "y": NaN}', '{"x":1.0,  "y":1e2}', "{}"])
def test_arguments_are_what_the_model_wrote(app: access.Guard, arguments: str) -> None:
    """Read and written again, the first became a status 500 and the second invalid."""
    say(f'<tool_call>\n{{"arguments": {arguments}, "name": "now"}}\n</tool_call>')
    made = answered(app, CHAT, tools=[NOW])["choices"][0]["message"]["tool_calls"]
    assert [each["function"]["arguments"] for each in made] == [arguments]
    say(f'{{"name": "now", "arguments": {arguments}}}')
    made = answered(app, CHAT, tools=[NOW], tool_choice="required")["choices"][0]["message"]["tool_calls"]
    assert [each["function"]["arguments"] for each in made] == [arguments]


@pytest.mark.parametrize(
    ("written", "arguments"), [('"{\\"a\\": 1}"', '{"a": 1}'), ("null", "{}"), ('"\\ud83d"', "?"), ("[1]", "[1]")]
)
def test_arguments_in_other_forms_become_text(app: access.Guard, written: str, arguments: str) -> None:
    say(f'<tool_call>{{"name": "now", "arguments": {written}}}</tool_call>')
    made = answered(app, CHAT, tools=[NOW])["choices"][0]["message"]["tool_calls"]
    assert [each["function"]["arguments"] for each in made] == [arguments]


@pytest.mark.parametrize("text", ["x", "</tool_cal", " "])
def test_a_long_call_is_read_in_linear_time(text: str) -> None:
    """Each piece was added to all text before it, and that searched: a minute for 500 kB in pieces of 4 characters."""
    reader = tool_calls.Reader(["f"])
    found = reader.read("<tool_call>")
    for _ in range(20_000):
        found += reader.read(text)
        assert len(reader._held) + len(reader._tail) < 2000
    found += reader.end()
    assert found == ["<tool_call>" + text * 20_000]


def test_long_space_is_not_held_back() -> None:
    reader = tool_calls.Reader(["f"])
    found = [each for _ in range(5000) for each in reader.read(" ")]
    assert len(reader._held) < 2000 and "".join(map(str, found)) + reader._held == " " * 5000


def test_who_asks_for_one_call_gets_one(app: access.Guard) -> None:
    """The second was in the content, as markup."""
    say(call(city="Paris"), "\n", call(city="Rome"))
    message = answered(app, CHAT, tools=[WEATHER], parallel_tool_calls=False)["choices"][0]["message"]
    assert len(message["tool_calls"]) == 1 and message["content"] is None


def test_a_call_that_a_stop_text_cut_is_incomplete(app: access.Guard) -> None:
    say('{"name": "get_weather", "arguments": {"city": "Pa', 'ris"}}')
    choice = answered(app, CHAT, tools=[WEATHER], tool_choice="required", stop="aris")["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert choice["message"]["tool_calls"][0]["function"]["arguments"] == '{"city": "P'


def test_a_call_that_max_tokens_ended_is_incomplete(app: access.Guard) -> None:
    say('{"name": "get_weather", "arguments": {"ci', reason="length")
    (choice,) = answered(app, CHAT, tools=[WEATHER], tool_choice="required")["choices"]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["tool_calls"][0]["function"]["arguments"] == '{"ci'
    say('{"na', reason="length")
    (choice,) = answered(app, CHAT, tools=[WEATHER], tool_choice="required")["choices"]
    assert choice["finish_reason"] == "length" and choice["message"]["content"] == ""


def test_a_schema_of_openai_becomes_upstreams(app: access.Guard) -> None:
    def asked(**described: Any) -> dict[str, Any]:
        return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", **described}}}

    answered(app, CHAT, **asked(schema={"enum": [1]}, strict=True))
    assert json.loads(served().seen.pop()["response_format"]["schema"]) == {"enum": [1]}
    for options in (asked(), {"response_format": {"type": "json_object"}}):
        answered(app, CHAT, **options)
        assert json.loads(served().seen.pop()["response_format"]["schema"]) == {"anyOf": [{"type": "object"}]}
    answered(app, CHAT, response_format={"type": "text"})
    assert served().seen.pop()["response_format"] is None
    answered(app, CHAT, **asked(schema={"type": "string", "minLength": 1}))
    served().seen.clear()
    error = refused(app, CHAT, **asked(schema={"type": "string", "minLength": 1}, strict=True))
    assert "may not contain minLength" in error["message"]


def test_a_stream_that_fails_says_so_and_ends(app: access.Guard) -> None:
    """Upstream cut it off, which looks like the network's fault."""

    async def failing() -> str:
        served().together = 2  # So that it waits.
        task = asyncio.create_task(talk(app, CHAT, "POST", JSON, request(CHAT, stream=True)))
        while not served().seen:
            await asyncio.sleep(0.001)
        name = served().seen[0]["name"]
        stream, _ = served().state.async_streamers[name]
        served().state.get_request_stream_callback("async")([Output(name, ["Hi "])])
        await asyncio.sleep(0.01)
        stream.push(engine_watch.EngineError("the engine failed: no memory"))
        return (await asyncio.wait_for(task, 60))[2]

    *events, error, done, _ = asyncio.run(failing()).split("\n\n")
    assert '"Hi "' in events[-1] and done == "data: [DONE]"
    assert json.loads(error.removeprefix("data: "))["error"] == {
        "message": "the engine failed: no memory", "type": "server_error", "param": None, "code": None
    }  # fmt: skip


def test_a_stream_that_fails_at_once_is_an_error(app: access.Guard) -> None:
    status, headers, text = ask(app, CHAT, "POST", JSON, request(CHAT, stream=True, logit_bias={"999": 1}))
    assert status == 400 and headers["content-type"] == "application/json" and "logit_bias" in text


@pytest.mark.parametrize(
    ("path", "method", "headers", "status", "code"),
    [
        ("/v1/none", "GET", {}, 404, "unknown_url"),
        ("/v1/models/", "POST", JSON, 405, "method_not_supported"),
        (f"{CHAT}/", "POST", JSON, 404, "unknown_url"),
        ("/none", "POST", JSON, 404, "unknown_url"),
        (CHAT, "GET", {}, 405, "method_not_supported"),
        ("/v1/models", "DELETE", {}, 405, "method_not_supported"),
        ("/v1/models/none", "GET", {}, 404, "model_not_found"),
        (EMBEDDING, "POST", JSON, 400, "model_not_found"),
        (CHAT, "POST", {}, 415, None),
        (CHAT, "POST", {"content-type": "text/plain"}, 415, None),
    ],
)
def test_every_error_has_openais_shape(
    app: access.Guard, path: str, method: str, headers: dict[str, str], status: int, code: str | None
) -> None:
    found, _, text = ask(app, path, method, headers, [b'{"input": "x"}'] if method == "POST" else [b""])
    error = json.loads(text)["error"]
    assert (found, error["code"]) == (status, code) and set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error" and "\n" not in error["message"]


def test_the_wrong_key_has_openais_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    status, _, text = ask(Service(monkeypatch)("--api-key=secret"), "/v1/models")
    assert status == 401 and json.loads(text)["error"]["code"] == "invalid_api_key"


def test_what_nobody_expected_has_openais_shape(app: access.Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served(), "conv_template", None)
    with pytest.raises(AttributeError):  # It is in the log; this one is raised before the first byte of an answer.
        ask(app, CHAT, "POST", JSON, request(CHAT))


def test_a_model_is_described(app: access.Guard) -> None:
    status, _, text = ask(app, "/v1/models/model")
    assert status == 200 and json.loads(text)["id"] == "model"
    ServerContext.current().add_model("/models/b", AnsweringEngine())
    assert ask(app, "/v1/models//models/b")[0] == 200
    status, _, text = ask(app, CHAT, "POST", JSON, request(CHAT, model="none"))
    assert status == 404 and json.loads(text)["error"]["code"] == "model_not_found"


def test_log_probabilities_are_numbers(app: access.Guard) -> None:
    """JSON has no infinity, and clients expect a number."""
    token = {
        "token": "x",
        "logprob": None,
        "bytes": [120],
        "top_logprobs": [{"token": "y", "logprob": -1e9, "bytes": None}],
    }
    content = openai_answers._content({"content": [token]})
    assert content is not None
    assert [content["content"][0]["logprob"], content["content"][0]["top_logprobs"][0]["logprob"]] == [-9999.0] * 2
    openai.types.chat.chat_completion.ChoiceLogprobs.model_validate(content, strict=True)


@pytest.mark.parametrize("name", ["\ud800", "a\nb", "a\r\x00b"])
def test_an_error_is_a_line_of_text_whatever_the_client_wrote(app: access.Guard, name: str) -> None:
    assert refused(app, CHAT, **{name: 1})["message"].isprintable()
    assert refused(app, CHAT, messages=[{"role": "user", "content": [{"type": name}]}])["message"].isprintable()
