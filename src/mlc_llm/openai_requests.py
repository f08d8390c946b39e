"""Translates requests in OpenAI's dialect, as clients send them today, to the one that upstream reads.

At the pinned commit upstream refuses `null` for optional fields, the role `developer`, texts as lists of parts except
from users, lists of prompts, tools in the history and `response_format` with `json_schema`; it accepts and ignores
`max_completion_tokens`, unknown fields and much else. Here a request is accepted if it means the same to the server as
to the client, and refused otherwise. docs/users/openai.md lists what is supported.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from typing import Any

from mlc_llm.serve.server import ServerContext

from . import json_schema, request_body, request_check, tool_calls
from .openai_errors import RequestError, clip

CHAT, COMPLETION, EMBEDDING = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"

PASSED = {
    CHAT: {"logprobs", "top_logprobs"},
    COMPLETION: {"echo", "logprobs"},
    EMBEDDING: {"dimensions", "encoding_format", "input", "model"},
}
"""Fields that upstream reads as OpenAI does, of each path."""

PASSED_BOTH = {
    "debug_config",
    "frequency_penalty",
    "logit_bias",
    "max_tokens",
    "model",
    "n",
    "presence_penalty",
    "seed",
    "stop",
    "stream",
    "temperature",
    "top_p",
}

TRANSLATED = {
    CHAT: {"max_completion_tokens", "messages", "parallel_tool_calls", "tool_choice", "tools"},
    COMPLETION: {"prompt"},
    EMBEDDING: set(),
}
TRANSLATED_BOTH = {"response_format", "stream_options"}

IGNORED = {
    "metadata",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "user",
}
"""Fields that change no answer. Upstream would use `user` as the name of the request."""

ONLY: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "modalities": (["text"],),
    "moderation": (),
    "reasoning_effort": ("none",),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "suffix": ("",),
    "verbosity": ("medium",),
}
"""Fields of OpenAI's API with the values that ask for nothing. Others are refused, like all fields not named here."""

NUMBERS = {
    "frequency_penalty": (-2, 2),
    "presence_penalty": (-2, 2),
    "temperature": (0, 2),
    "top_p": (0, 1),
}
"""Fields that are numbers, with their smallest and largest values."""

LEAST_NUMBER = 1e-6
"""Positive numbers below it mean the same, and the engine's 32-bit numbers do not have them all."""

INTEGERS = {"max_tokens": 1, "n": 1, "seed": None, "top_logprobs": 0}
"""Fields that are integers, and their smallest values."""


@dataclasses.dataclass
class Translated:
    """A request as upstream reads it, and what its answer depends on.

    Args:
        path: where it goes.
        bodies: one body for each choice; those of one prompt follow each other.
        model: the name that the answer repeats.
        choices: answers to each prompt, which the bodies do not mention.
        usage: whether a stream ends with a count of tokens.
        functions: names of functions that the model may call.
        required: whether it must call one.
        parallel: whether it may call several at once.
    """

    path: str
    bodies: list[dict[str, Any]]
    model: str
    choices: int = 1
    usage: bool = False
    functions: tuple[str, ...] = ()
    required: bool = False
    parallel: bool = True

    def reader(self) -> tool_calls.Reader | None:
        """Returns the reader of one choice; None if all text is content."""
        return tool_calls.Reader(self.functions, self.required, self.parallel) if self.functions else None


def translate(path: str, request: Any) -> Translated:
    """Translates the body of a request.

    Args:
        path: CHAT, COMPLETION or EMBEDDING.
        request: JSON of any kind.

    Raises:
        RequestError: it is refused.
    """
    if not isinstance(request, dict):
        raise RequestError("expected a JSON object as the request's body")
    given = {name: value for name, value in request.items() if value is not None}
    _refuse_unsupported(path, given)
    if "debug_config" in given and not ServerContext.current().enable_debug:
        raise RequestError("only a server with --enable-debug supports this field", "debug_config")
    both = set() if path == EMBEDDING else PASSED_BOTH
    body = {name: value for name, value in given.items() if name in PASSED[path] | both}
    if path == EMBEDDING:
        if "input" not in body:
            raise RequestError("expected a text or tokens, found none", "input")
        request_body.check_types(body)
        return Translated(path, [body], _model(path, given))
    _check_types(body, path == CHAT)
    request_body.check_types(body)
    answer = Translated(path, [body], _model(path, given))
    answer.choices = body.pop("n", 1)
    answer.usage = _stream_options(given, body)
    if (form := _response_format(given)) is not None:
        body["response_format"] = form
    if path == CHAT:
        _tokens(given, body)
        _chat(given, body, answer)
    else:
        if body.get("echo") and "logprobs" in body:
            raise RequestError("log probabilities of a prompt are not supported; leave out logprobs", "echo")
        answer.bodies = [{**body, "prompt": prompt} for prompt in _prompts(given)]
    answer.bodies = _choices(answer.bodies, answer.choices)
    return answer


def _choices(bodies: list[dict[str, Any]], choices: int) -> list[dict[str, Any]]:
    """Returns one body for each choice. At the pinned commit the engine fails where choices of one request end at
    different times; as requests they share the prompt's part of the KV cache too.
    """
    if len(bodies) * choices > request_check.MAX_CHOICES:
        what = "n" if len(bodies) == 1 else "prompt"
        unit = "" if len(bodies) == 1 else " prompts, times n"
        found = len(bodies) * choices
        raise RequestError(f"expected at most {request_check.MAX_CHOICES}{unit}, found {found}", what)
    if choices == 1:
        return bodies
    size = choices * sum(len(json.dumps(body)) for body in bodies)
    if size > request_check.MAX_CHOICES_BYTES:
        limit = request_check.MAX_CHOICES_BYTES
        raise RequestError(f"expected at most {limit} bytes of prompts, times n, found {size}", "n")
    return [{**body, **_seeded(body, choice)} for body in bodies for choice in range(choices)]


def _seeded(body: dict[str, Any], choice: int) -> dict[str, int]:
    """Returns the seed of a choice, if the client gives one: the first has that, and no two have the same."""
    if "seed" not in body:
        return {}
    return {"seed": (body["seed"] + choice + (1 << 63)) % (1 << 64) - (1 << 63)}


def _model(path: str, given: dict[str, Any]) -> str:
    """Returns the name of the model. If only one is served, it answers to any name, as upstream's server does."""
    context = ServerContext.current()
    served = context.get_model_list()
    model = given.get("model", served[0] if served else "")
    if not isinstance(model, str):
        raise RequestError("expected text", "model")
    if path == EMBEDDING and context.get_embedding_engine(model) is None:
        raise RequestError("this server has no model for embeddings", "model", code="model_not_found")
    if path != EMBEDDING and context.get_engine(model) is None:
        found = f"expected one that GET /v1/models lists, found {clip(model)}"
        raise RequestError(found, "model", 404, "model_not_found")
    return model


def _refuse_unsupported(path: str, given: dict[str, Any]) -> None:
    known = PASSED[path] | TRANSLATED[path] | IGNORED
    if path != EMBEDDING:
        known |= PASSED_BOTH | TRANSLATED_BOTH
    for name, value in given.items():
        if name in known:
            continue
        allowed = ONLY.get(name)
        if allowed is None or path == EMBEDDING:
            raise RequestError("this server does not support this field", clip(name), code="unsupported_parameter")
        if value not in allowed or isinstance(value, bool) != isinstance(allowed[0], bool):
            only = " or ".join(json.dumps(each) for each in allowed)
            raise RequestError(f"this server supports only {only}" if only else "not supported", name)


def _check_types(body: dict[str, Any], chat: bool = True) -> None:
    """Checks what pydantic would convert, such as "1" to 1, or what upstream leaves to native code."""
    for name, least in INTEGERS.items():
        if name in body:
            value = body[name]
            if type(value) is not int:
                raise RequestError("expected an integer", name)
            if not -(1 << 63) <= value < 1 << 63:
                raise RequestError("expected an integer of 64 bits", name)
            if least is not None and value < least:
                raise RequestError(f"expected at least {least}, found {value}", name)
    for name in ("stream", "echo", *(["logprobs"] if chat else [])):
        if not isinstance(body.get(name, False), bool):
            raise RequestError("expected true or false", name)
    if not chat and type(body.get("logprobs", 0)) is not int:
        raise RequestError("expected an integer", "logprobs")
    for name, (least, most) in NUMBERS.items():
        value = body.get(name, 0)
        if type(value) not in (int, float) or not least <= value <= most:
            raise RequestError(f"expected a number from {least} to {most}", name)
        if 0 < value < LEAST_NUMBER:
            body[name] = LEAST_NUMBER
    biases = body.get("logit_bias", {})
    if not isinstance(biases, dict):
        raise RequestError("expected an object of tokens and their biases", "logit_bias")
    for token, bias in biases.items():
        if not re.fullmatch(r"-?[0-9]+", token) or type(bias) not in (int, float) or not -100 <= bias <= 100:
            found = f"{json.dumps(clip(token))}: {clip(bias)}"
            raise RequestError(f"expected numbers of tokens, with biases from -100 to 100, found {found}", "logit_bias")


def _stream_options(given: dict[str, Any], body: dict[str, Any]) -> bool:
    """Sets the options of a stream; returns whether the client asks for usage."""
    options = given.get("stream_options")
    if options is None:
        return False
    if not isinstance(options, dict):
        raise RequestError("expected an object", "stream_options")
    if not body.get("stream"):
        raise RequestError("expected only with stream", "stream_options")
    for name in options:
        if name not in ("include_obfuscation", "include_usage"):
            raise RequestError(f"{clip(name)}: this server does not support this option", "stream_options")
    usage = options.get("include_usage")
    if not isinstance(usage, (bool, type(None))):
        raise RequestError("include_usage: expected true or false", "stream_options")
    body["stream_options"] = {"include_usage": bool(usage)}
    return bool(usage)


def _tokens(given: dict[str, Any], body: dict[str, Any]) -> None:
    if "max_completion_tokens" in given:
        value = given["max_completion_tokens"]
        if body.get("max_tokens", value) != value:
            raise RequestError("expected either this or max_completion_tokens, found both", "max_tokens")
        try:
            _check_types({"max_tokens": value})
        except RequestError as error:
            raise RequestError(str(error).partition(": ")[2], "max_completion_tokens") from None
        body["max_tokens"] = value


def _response_format(given: dict[str, Any]) -> dict[str, Any] | None:
    field = "response_format"
    wanted = given.get(field)
    if wanted is None:
        return None
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind == "text":
        return None
    if kind == "json_object":
        # Upstream's extension: a schema as text. Without one its engine writes JSON of any kind.
        schema = wanted.get("schema")
        if not isinstance(schema, (str, type(None))):
            raise RequestError("schema: expected JSON as text", field)
        return {"type": "json_object", "schema": schema if schema is not None else '{"type": "object"}'}
    if kind != "json_schema":
        raise RequestError('expected an object with the type "text", "json_object" or "json_schema"', field)
    described = wanted.get("json_schema")
    if not (isinstance(described, dict) and isinstance(described.get("name"), str)):
        raise RequestError("json_schema: expected an object with a name", field)
    schema = described.get("schema")
    if schema is None:
        schema = {"type": "object"}
    if not isinstance(schema, dict):
        raise RequestError("json_schema.schema: expected an object", field)
    if not isinstance(described.get("strict"), (bool, type(None))):
        raise RequestError("json_schema.strict: expected true or false", field)
    if described.get("strict"):
        _refuse_unenforced(schema, field)
    return {"type": "json_object", "schema": json.dumps(schema)}


def _refuse_unenforced(schema: Any, field: str) -> None:
    """Refuses a strict schema with keywords that the grammar of an answer does not have."""
    if found := json_schema.unenforced(schema):
        raise RequestError(f"strict schemas may not contain {', '.join(found)}: this server cannot enforce them", field)


def _prompts(given: dict[str, Any]) -> list[Any]:
    """Returns the prompts: texts, or lists of tokens."""
    field, prompt = "prompt", given.get("prompt")
    nothing = RequestError("expected a text or tokens, found none", field)
    if prompt is None or prompt in ("", []):
        raise nothing
    if isinstance(prompt, str):
        return [prompt]
    # All items of one type are quick to check, even a million of them.
    kinds = {type(each) for each in prompt} if isinstance(prompt, list) else {dict}
    if kinds == {int}:
        return [prompt]
    if kinds == {list}:
        kinds = {type(each) for inner in prompt for each in inner} | {int}
    elif kinds == {str}:
        kinds = {int}
    if kinds != {int}:
        raise RequestError("expected a text, a list of texts, of tokens or of lists of tokens", field)
    if not all(prompt):
        raise nothing
    return list(prompt)


def _chat(given: dict[str, Any], body: dict[str, Any], answer: Translated) -> None:
    """Translates messages and tools."""
    template = ServerContext.current().get_engine(answer.model).conv_template
    functions = _functions(given)
    _choose(given, functions, answer)
    system, turns = _turns(given.get("messages"), template)
    if answer.functions:
        offered = [functions[name] for name in answer.functions]
        if body.get("response_format"):
            raise RequestError("not supported together with tools; leave out one, or set tool_choice to none",
                               "response_format")  # fmt: skip
        if answer.required:
            body["response_format"] = {"type": "json_object", "schema": json.dumps(tool_calls.schema(offered))}
        if system is None and _has_system(template):
            system = template.system_message
        system = "\n\n".join(part for part in (system, tool_calls.instructions(offered)) if part)
    body["messages"] = _with_system(system, turns, template)


def _has_system(template: Any) -> bool:
    return "{system_message}" in template.system_template


def _with_system(system: str | None, turns: list[dict[str, Any]], template: Any) -> list[dict[str, Any]]:
    """Adds the system message. Where the template has no place for one, it goes in front of the user's first text."""
    if not system:
        # An empty one, unlike none, also replaces the template's default.
        return turns if system is None else [{"role": "system", "content": ""}, *turns]
    if _has_system(template):
        return [{"role": "system", "content": system}, *turns]
    for position, turn in enumerate(turns):
        if turn["role"] == "user":
            text = turn["content"]
            first = (
                [{"type": "text", "text": f"{system}\n\n"}, *text] if isinstance(text, list) else f"{system}\n\n{text}"
            )
            return [*turns[:position], {"role": "user", "content": first}, *turns[position + 1 :]]
    return [{"role": "user", "content": system}, *turns]


def _functions(given: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns the functions that the client offers, by name."""
    field, tools = "tools", given.get("tools", [])
    if not isinstance(tools, list):
        raise RequestError("expected a list", field)
    if len(tools) > request_check.MAX_TOOLS:
        raise RequestError(f"expected at most {request_check.MAX_TOOLS} tools, found {len(tools)}", field)
    functions = {}
    for position, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
        if not isinstance(function, dict):
            raise RequestError(f'{position}: expected {{"type": "function", "function": {{…}}}}', field)
        name, about = function.get("name"), function.get("description")
        parameters = function.get("parameters")
        if not (isinstance(name, str) and 0 < len(name) <= 64):
            raise RequestError(f"{position}.function.name: expected a name of at most 64 characters", field)
        if name in functions:
            raise RequestError(f"{position}.function.name: expected each name once", field)
        if not isinstance(about, (str, type(None))) or not isinstance(parameters, (dict, type(None))):
            raise RequestError(f"{position}.function: expected a text as description, an object as parameters", field)
        functions[name] = {
            "name": name,
            **({"description": about} if about else {}),
            "parameters": parameters if parameters else {"type": "object", "properties": {}},
        }
    return functions


def _choose(given: dict[str, Any], functions: dict[str, Any], answer: Translated) -> None:
    """Sets which functions the model may call, and whether it must."""
    field, choice = "tool_choice", given.get("tool_choice", "auto")
    answer.functions = tuple(functions)
    parallel = given.get("parallel_tool_calls", True)
    if not isinstance(parallel, bool):
        raise RequestError("expected true or false", "parallel_tool_calls")
    answer.parallel = parallel
    if choice == "none":
        answer.functions = ()
    elif choice == "required":
        answer.required = True
    elif isinstance(choice, dict):
        function = choice.get("function")
        name = function.get("name") if choice.get("type") == "function" and isinstance(function, dict) else None
        if not isinstance(name, str):
            raise RequestError('expected {"type": "function", "function": {"name": NAME}}', field)
        if name not in functions:
            raise RequestError(f"expected the name of one of the tools, found {clip(name)}", field)
        answer.functions, answer.required = (name,), True
    elif choice != "auto":
        raise RequestError('expected "none", "auto", "required" or an object', field)
    if answer.required and not functions:
        raise RequestError("expected tools to choose from", field)


def _turns(messages: Any, template: Any) -> tuple[str | None, list[dict[str, Any]]]:
    """Returns the text of the system messages, if there are any, and the other messages."""
    if not isinstance(messages, list) or not messages:
        raise RequestError("expected a list of at least one message", "messages")
    if len(messages) > request_check.MAX_MESSAGES:
        found = len(messages)
        raise RequestError(
            f"expected at most {request_check.MAX_MESSAGES} messages and parts, found {found}", "messages"
        )
    system: list[str] = []
    turns: list[dict[str, Any]] = []
    results: list[str] = []
    calls: set[str] = set()

    def end_results() -> None:
        if results:
            role = "tool" if "tool" in template.roles else "user"
            turns.append({"role": role, "content": tool_calls.answered(results)})
            results.clear()

    for position, message in enumerate(messages):
        role = message.get("role") if isinstance(message, dict) else None
        if role == "tool":
            answered = message.get("tool_call_id")
            if not isinstance(answered, str) or answered not in calls:
                raise _wrong(position, "tool_call_id: expected that of a call in a message before this one")
            results.append(_text(position, message))
            continue
        end_results()
        if role in ("system", "developer"):
            if turns:
                raise _wrong(position, f"the role {role} is supported only before all other messages")
            system.append(_text(position, message))
        elif role == "user":
            turns.append({"role": "user", "content": _content(position, message)})
        elif role == "assistant":
            turns.append({"role": "assistant", "content": _assistant(position, message, calls)})
        else:
            raise _wrong(position, "role: expected system, developer, user, assistant or tool")
    end_results()
    return "\n\n".join(system) if system else None, turns


def _assistant(position: int, message: dict[str, Any], calls: set[str]) -> str:
    """Returns an earlier answer as the model wrote it, and adds the ids of its calls."""
    if message.get("function_call") is not None or message.get("audio") is not None:
        raise _wrong(position, "function_call and audio are not supported")
    made = message.get("tool_calls") or []
    described = []
    for each in made if isinstance(made, list) else [None]:
        made_one = each if isinstance(each, dict) else {}
        function = made_one.get("function") if made_one.get("type") == "function" else None
        if not (
            isinstance(function, dict)
            and isinstance(made_one.get("id"), str)
            and isinstance(function.get("name"), str)
            and isinstance(function.get("arguments"), str)
        ):
            raise _wrong(position, "tool_calls: expected objects with id, type and function, its name and arguments")
        calls.add(made_one["id"])
        described.append((function["name"], function["arguments"]))
    if not made and message.get("content") is None and isinstance(message.get("refusal"), str):
        return str(message["refusal"])
    text = "" if made and message.get("content") is None else _text(position, message)
    return "\n".join(part for part in (text, tool_calls.written(described)) if part)


def _content(position: int, message: dict[str, Any]) -> Any:
    """Returns the content of a user's message: text, or parts with images, which `request_check` checks."""
    content = message.get("content")
    if isinstance(content, list) and any(
        isinstance(part, dict) and part.get("type") == "image_url" for part in content
    ):
        for part in content:
            if not (isinstance(part, dict) and (part.get("type") == "image_url" or _is_text(part))):
                raise _wrong(position, "content: expected parts of the types text, with text, and image_url")
        return content
    return _text(position, message)


def _text(position: int, message: dict[str, Any]) -> str:
    """Returns the text of a message, whose parts become lines."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        raise _wrong(position, "content: expected text, or a list of parts with text")
    for part in content:
        if not (isinstance(part, dict) and _is_text(part)):
            kind = clip(part.get("type")) if isinstance(part, dict) else "something else"
            raise _wrong(position, f"content: expected parts of the type text, with text, found {kind}")
    return "\n".join(str(part.get("text", part.get("refusal"))) for part in content)


def _is_text(part: dict[str, Any]) -> bool:
    return any(part.get("type") == kind and isinstance(part.get(kind), str) for kind in ("text", "refusal"))


def _wrong(position: int, message: str) -> RequestError:
    return RequestError(f"{position}: {message}", "messages")


def fields(path: str) -> Sequence[str]:
    """Returns the fields that a request may have, with any value or with some."""
    if path == EMBEDDING:
        return sorted(PASSED[path] | IGNORED)
    return sorted(PASSED[path] | TRANSLATED[path] | PASSED_BOTH | TRANSLATED_BOTH | IGNORED | set(ONLY))
