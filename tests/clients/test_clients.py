"""Clients of OpenAI's API from PyPI, as they are, chat, stream, use a tool, ask for JSON, and see errors as errors.

The model's weights are random, so its words mean nothing. Where a tool is required or a schema given, their shape is
certain. Every answer is compared with the types of the `openai` package.
"""

from __future__ import annotations

import json
import os
from typing import Any, Literal, cast

# Read when these packages are imported: their maps of models and prices come with them, and they report to nobody.
os.environ |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LANGSMITH_TRACING": "false"}

import instructor
import litellm
import openai
import pydantic
import pytest
from instructor.core import InstructorRetryException
from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai import OpenAI as LlamaOpenAI
from llama_index.llms.openai import utils as llama_models
from openai.types.chat import ChatCompletionMessage
from server import PATIENCE, Server, checked_client
from server import client as client
from server import server as server

NAME = "tiny"  # The server has one model, which answers to any name.
HELLO: list[Any] = [{"role": "user", "content": "hello"}]
SHORT: dict[str, Any] = {"max_tokens": 12, "temperature": 0}


class Weather(pydantic.BaseModel):
    """Weather of a city"""

    sunny: bool
    wind: Literal["north", "south"]


@tool
def get_weather(sky: Literal["clear", "grey"]) -> str:
    """Tells the weather for a sky."""
    return f"{sky}, 20 degrees"


WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather",
        "parameters": {
            "type": "object",
            "properties": {"sky": {"enum": ["clear", "grey"]}},
            "required": ["sky"],
            "additionalProperties": False,
        },
    },
}


def test_openai_chats_and_streams(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=NAME, messages=HELLO, **SHORT)
    assert answer.usage is not None and answer.usage.completion_tokens == 12
    assert answer.choices[0].finish_reason == "length"
    pieces = list(
        client.chat.completions.create(
            model=NAME, messages=HELLO, stream=True, stream_options={"include_usage": True}, **SHORT
        )
    )
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
    assert text == answer.choices[0].message.content != ""
    assert pieces[-1].usage == answer.usage
    assert len({piece.id for piece in pieces}) == 1 and len(pieces) > 5


def test_openai_uses_a_tool_in_two_turns(client: openai.OpenAI) -> None:
    messages: list[Any] = [{"role": "developer", "content": "Be brief"}, *HELLO]
    ask: dict[str, Any] = {"model": NAME, "tools": [WEATHER], "temperature": 0}
    message = client.chat.completions.create(messages=messages, tool_choice="required", **ask).choices[0].message
    assert message.tool_calls is not None
    (call,) = message.tool_calls
    assert call.type == "function" and json.loads(call.function.arguments)["sky"] in ("clear", "grey")
    result = {"role": "tool", "tool_call_id": call.id, "content": "20 degrees"}
    final = client.chat.completions.create(messages=[*messages, message, cast(Any, result)], max_tokens=5, **ask)
    assert final.choices[0].finish_reason in ("stop", "length") and final.choices[0].message.tool_calls is None


def test_openai_gathers_a_streamed_call(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model=NAME, messages=HELLO, tools=[WEATHER], tool_choice="required", temperature=0
    ) as stream:
        message = stream.get_final_completion().choices[0].message
    assert isinstance(message, ChatCompletionMessage) and message.tool_calls is not None
    assert "sky" in json.loads(message.tool_calls[0].function.arguments)


def test_openai_parses_a_schema(client: openai.OpenAI) -> None:
    parsed = client.chat.completions.parse(model=NAME, messages=HELLO, response_format=Weather, temperature=0)
    assert isinstance(parsed.choices[0].message.parsed, Weather)


def test_openai_reads_log_probabilities(client: openai.OpenAI) -> None:
    chat = client.chat.completions.create(model=NAME, messages=HELLO, logprobs=True, top_logprobs=3, **SHORT)
    assert chat.choices[0].logprobs is not None and chat.choices[0].logprobs.content is not None
    assert [len(token.top_logprobs) for token in chat.choices[0].logprobs.content] == [3] * 12
    text = client.completions.create(model=NAME, prompt=["one", "two"], logprobs=2, **SHORT)
    assert [each.index for each in text.choices] == [0, 1]
    for each in text.choices:
        assert each.logprobs is not None and each.logprobs.text_offset is not None
        assert len(each.logprobs.text_offset) == 12
    # With a schema, most tokens have the probability 0.
    form: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"const": "abc"}}}
    chat = client.chat.completions.create(
        model=NAME, messages=HELLO, response_format=form, logprobs=True, top_logprobs=5, temperature=1
    )
    assert chat.choices[0].message.content == '"abc"'


def test_openai_repeats_an_answer_with_a_seed(client: openai.OpenAI) -> None:
    texts = [
        client.chat.completions.create(model=NAME, messages=HELLO, seed=seed, max_tokens=12, temperature=1)
        .choices[0]
        .message.content
        for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]


def test_openai_lists_models(client: openai.OpenAI) -> None:
    (model,) = client.models.list()
    assert client.models.retrieve(model.id) == model.model_copy(
        update={"created": client.models.retrieve(model.id).created}
    )


@pytest.mark.parametrize(
    ("options", "kind", "param"),
    [
        ({"temperature": 9}, openai.BadRequestError, "temperature"),
        ({"messages": []}, openai.BadRequestError, "messages"),
        ({"stop": [""]}, openai.BadRequestError, "stop"),
        ({"reasoning_effort": "high"}, openai.BadRequestError, "reasoning_effort"),
    ],
    ids=str,
)
def test_openai_sees_errors(client: openai.OpenAI, options: Any, kind: type[openai.APIStatusError], param: str) -> None:
    with pytest.raises(kind) as error:
        client.chat.completions.create(**{"model": NAME, "messages": HELLO, **options})
    assert error.value.param == param and error.value.type == "invalid_request_error"
    assert isinstance(error.value.body, dict) and error.value.body["message"].startswith(f"{param}: ")


def test_openai_sees_that_there_are_no_embeddings(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        client.embeddings.create(model=NAME, input="x")
    assert error.value.code == "model_not_found" and "no model for embeddings" in str(error.value)
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("none")


def complete(client: openai.OpenAI, **options: Any) -> Any:
    options = {"messages": HELLO, "temperature": 0, **options}
    return litellm.completion(model=f"openai/{NAME}", client=client, num_retries=0, **options)


def test_litellm_chats_and_streams(client: openai.OpenAI) -> None:
    answer = complete(client, max_tokens=12)
    pieces = list(complete(client, max_tokens=12, stream=True))
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces)
    assert text == answer.choices[0].message.content != "" and answer.usage.completion_tokens == 12


def test_litellm_uses_a_tool_in_two_turns(client: openai.OpenAI) -> None:
    message = complete(client, tools=[WEATHER], tool_choice="required").choices[0].message
    (call,) = message.tool_calls
    assert json.loads(call.function.arguments)["sky"] in ("clear", "grey")
    messages = [*HELLO, message, {"role": "tool", "tool_call_id": call.id, "content": "20 degrees"}]
    assert complete(client, messages=messages, tools=[WEATHER], max_tokens=5).choices[0].finish_reason == "length"


def test_litellm_asks_for_a_schema_and_log_probabilities(client: openai.OpenAI) -> None:
    answer = complete(client, response_format=Weather, logprobs=True, top_logprobs=2)
    Weather.model_validate_json(answer.choices[0].message.content)
    assert len(answer.choices[0].logprobs.content[0].top_logprobs) == 2


def test_litellm_sees_errors(client: openai.OpenAI) -> None:
    with pytest.raises(litellm.BadRequestError, match="stop: expected texts"):
        complete(client, stop=[""])
    with pytest.raises(litellm.ContextWindowExceededError):
        complete(client, messages=[{"role": "user", "content": "hello " * 2000}])


@pytest.fixture
def langchain(server: Server) -> ChatOpenAI:
    return ChatOpenAI(
        model=NAME,
        base_url=server.url + "/v1",
        api_key=pydantic.SecretStr("none"),
        http_client=checked_client(),
        max_retries=0,
        temperature=0,
        max_completion_tokens=400,
    )


def test_langchain_chats_and_streams(langchain: ChatOpenAI) -> None:
    messages = [SystemMessage("Be brief"), HumanMessage([{"type": "text", "text": "hello"}])]
    answer = langchain.invoke(messages)
    pieces = list(langchain.stream(messages))
    assert "".join(str(piece.content) for piece in pieces) == answer.content != ""
    assert answer.usage_metadata is not None and answer.usage_metadata["output_tokens"] > 0


def test_langchain_uses_a_tool_in_two_turns(langchain: ChatOpenAI) -> None:
    must = langchain.bind_tools([get_weather], tool_choice="get_weather")
    question = HumanMessage("hello")
    call = must.invoke([question])
    result = get_weather.invoke(call.tool_calls[0])
    assert isinstance(result, ToolMessage) and "20 degrees" in str(result.content)
    may = langchain.bind_tools([get_weather])
    assert not may.invoke([question, call, result]).tool_calls


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_langchain_asks_for_a_schema(langchain: ChatOpenAI, method: Any) -> None:
    assert isinstance(langchain.with_structured_output(Weather, method=method).invoke("hello"), Weather)


def test_langchain_reads_log_probabilities(langchain: ChatOpenAI) -> None:
    answer = langchain.bind(logprobs=True, top_logprobs=2).invoke("hello")
    assert len(answer.response_metadata["logprobs"]["content"][0]["top_logprobs"]) == 2


def test_langchain_sees_errors(langchain: ChatOpenAI, server: Server) -> None:
    with pytest.raises(openai.BadRequestError):
        langchain.invoke("hello", stop=[""])
    embeddings = OpenAIEmbeddings(
        model=NAME,
        base_url=server.url + "/v1",
        api_key=pydantic.SecretStr("none"),
        check_embedding_ctx_length=False,
        max_retries=0,
    )
    with pytest.raises(openai.BadRequestError, match="no model for embeddings"):
        embeddings.embed_query("x")


@pytest.fixture
def llama(server: Server, monkeypatch: pytest.MonkeyPatch) -> LlamaOpenAI:
    # It looks up how long the contexts of OpenAI's own models are, and refuses other names.
    monkeypatch.setitem(llama_models.ALL_AVAILABLE_MODELS, NAME, 4096)
    monkeypatch.setitem(llama_models.CHAT_MODELS, NAME, 4096)
    return LlamaOpenAI(
        model=NAME,
        api_base=server.url + "/v1",
        api_key="none",
        http_client=checked_client(),
        max_retries=0,
        temperature=0,
        max_tokens=400,
        timeout=PATIENCE,
    )


def test_llama_index_chats_and_streams(llama: LlamaOpenAI) -> None:
    messages = [ChatMessage(role="system", content="Be brief"), ChatMessage(role="user", content="hello")]
    answer = llama.chat(messages)
    *_, last = llama.stream_chat(messages)
    assert last.message.content == answer.message.content != ""


def test_llama_index_uses_a_tool_in_two_turns(llama: LlamaOpenAI) -> None:
    weather = FunctionTool.from_defaults(lambda sky: f"{sky}, 20 degrees", name="get_weather", description="Weather")
    answer = llama.chat_with_tools([weather], user_msg="hello", tool_required=True)
    (call,) = llama.get_tool_calls_from_response(answer)
    assert call.tool_name == "get_weather"
    result = ChatMessage(role="tool", content="20 degrees", additional_kwargs={"tool_call_id": call.tool_id})
    history = [ChatMessage(role="user", content="hello"), answer.message, result]
    final = llama.chat_with_tools([weather], chat_history=history)
    assert not llama.get_tool_calls_from_response(final, error_on_no_tool_call=False)


def test_llama_index_asks_for_a_schema(llama: LlamaOpenAI) -> None:
    assert isinstance(llama.as_structured_llm(Weather).complete("hello").raw, Weather)


def test_llama_index_sees_errors(llama: LlamaOpenAI) -> None:
    with pytest.raises(openai.BadRequestError):
        llama.complete("hello", stop=[""])


@pytest.mark.parametrize("mode", [instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA])
def test_instructor_returns_objects(client: openai.OpenAI, mode: instructor.Mode) -> None:
    patched = instructor.from_openai(client, mode=mode)
    ask: dict[str, Any] = {"model": NAME, "messages": HELLO, "response_model": Weather, "temperature": 0}
    assert isinstance(patched.chat.completions.create(**ask), Weather)


def test_instructor_sees_errors(client: openai.OpenAI) -> None:
    patched = instructor.from_openai(client)
    with pytest.raises(InstructorRetryException, match="temperature: expected"):
        patched.chat.completions.create(
            model=NAME, messages=HELLO, response_model=Weather, temperature=9, max_retries=1
        )
