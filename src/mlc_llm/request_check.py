"""Checks what a client sends before any of upstream's code uses it.

At the pinned commit upstream makes lists of `n` items, downloads images and tokenizes prompts in the thread that
answers all clients, and passes token numbers, stop texts and schemas unchecked to native code, where one that is wrong
ends the requests of everyone.

`install` puts one check in front of the engine, for the server and for Python programs: `check`. What is over a limit
is refused with status 400 and the limit. The server does two things earlier: `openai_api` checks and translates bodies
before upstream parses them, with limits that stand here; and the routes limit `n`, because they make the first lists.
"""

from __future__ import annotations

import base64
import functools
import io
import itertools
import json
import math
import re
import secrets
from collections.abc import Callable
from typing import Any

from . import connections, json_schema

BODY_SECONDS = 25.0
"""For reading a body, less than a drain (`--shutdown-timeout`). 1 MB takes as long with 0.4 Mbit/s."""

MAX_BODIES_BYTES = 256 << 20
"""Of all long bodies that are being read at a time."""

MAX_BODY_VALUES = 1 << 16
"""Of texts, names, lists and objects in a body, and of all values outside of `prompt` and `input`. 128 tools with 100
properties each have fewer. Parsing, checking and validating as many takes 0.1 s.
"""

MAX_BODY_TOKENS = 1 << 20
"""Of items of lists and objects in a body, tokens included: as many as the longest contexts have."""

MAX_BODY_OUTSIDE = 8 << 20
"""Of bytes that are neither in texts nor spaces: 8 for each token. Python takes 40 µs for a number of 4,000 digits."""

MAX_BODY_DEPTH = 80
"""Of lists and objects in a body, above the depth of a tool's parameters."""

MAX_BODY_ITEMS = 4096
"""Of one list or object outside of `prompt` and `input`, above all limits below."""

MAX_BODY_OTHER_CHARACTERS = 64 << 10
"""Of the fields that are no text for the model. Upstream repeats the name of an unknown model in its answer."""

MAX_CHOICES = 128
"""Of `n`, like OpenAI's. Upstream makes lists of this length at once: 1.9 GB for 30,000,000."""

MAX_CHOICES_BYTES = 8 << 20
"""Of the bodies that a request for several choices becomes, one for each."""

MAX_STOPS = 16
MAX_STOP_BYTES = 512
"""Upstream compares every byte of an answer with every stop text. OpenAI accepts 4."""

MAX_BIASES = 1024
"""Of `logit_bias`. Upstream applies all of them for each token of an answer."""

TOP_LOGPROBS = 5
"""The maximum of upstream's samplers, which crash the engine above it. Upstream's server accepts 20, like OpenAI's."""

MAX_MESSAGES = 2048
"""Of messages and the parts of their contents."""

MAX_TOOLS = 128
MAX_TOOL_DEPTH = 64
"""Upstream writes the tools into the prompt as JSON, recursively. OpenAI accepts 128."""

BYTES_PER_TOKEN = 32
"""A prompt with more bytes than this per token of the context is refused before it is tokenized, 1 s for 1 to 5 MB.
English has 4 to 5.
"""

MAX_IMAGES = 8
MAX_IMAGE_BYTES = 8 << 20
MAX_IMAGE_PIXELS = 8 << 20
"""Upstream decodes images in the thread that answers all clients; models shrink them to 336 pixels. 8 million pixels,
24 MB of memory, take 0.1 s.
"""

IMAGE_FORMATS = ("GIF", "JPEG", "PNG", "WEBP")
"""Pillow guesses the format from the content and reads many, some with known faults or with other programs."""

IMAGE_MODELS = ("llava", "phi3_v")
"""Model types whose libraries have the function `image_embed`. The engine dies if another one gets an image."""

MAX_INPUTS = 2048
"""Of one request for embeddings, like OpenAI's."""

MAX_INPUT_TOKENS = 300_000
"""Of one request for embeddings, like OpenAI's. Validating as many takes 0.1 s."""

MAX_INPUT_BYTES = 2 << 20
"""Of the texts of one request for embeddings: 7 for each token. Upstream tokenizes all of a text, then truncates it."""


def check(request: Any, engine: Any) -> None:
    """Refuses a chat or completion request that upstream's code does not survive, and simplifies its schema.

    Args:
        request: upstream's ChatCompletionRequest or CompletionRequest.
        engine: the MLCEngine or AsyncMLCEngine that it is for.

    Raises:
        BadRequestError: it is refused; the server answers status 400.
    """
    config = engine.model_config_dicts[0]
    vocabulary = int(config["vocab_size"])
    check_values(request)
    check_choices(request)
    _check_stops([request.stop] if isinstance(request.stop, str) else request.stop or [])
    biases = request.logit_bias or {}
    _at_most("logit_bias", "tokens", len(biases), MAX_BIASES)
    _check_tokens("logit_bias", biases, vocabulary)
    _at_most("top_logprobs", "", getattr(request, "top_logprobs", 0), TOP_LOGPROBS)
    _check_schema(request.response_format, vocabulary)
    max_bytes = BYTES_PER_TOKEN * int(engine.max_input_sequence_length)
    if hasattr(request, "messages"):
        _check_roles(request.messages, engine.conv_template)
        length = _check_messages(request.messages, config, max_bytes)
        _check_tools(request.tools or [], request.tool_choice != "none", length, max_bytes)
        _check_choice_of_tool(request.tool_choice)
    elif not request.prompt:
        raise _refusal("prompt: expected a text or tokens, found none")
    elif isinstance(request.prompt, str):
        _check_length("prompt", len(request.prompt.encode("utf-8", "replace")), max_bytes)
    else:
        # Upstream refuses longer ones too, after it has written all tokens into a message.
        _at_most("prompt", "tokens", len(request.prompt), int(engine.max_input_sequence_length))
        _check_tokens("prompt", request.prompt, vocabulary)


def check_choices(request: Any) -> None:
    """Refuses a request for too many choices. The engine refuses less than one."""
    _at_most("n", "", request.n, MAX_CHOICES)


def check_values(request: Any) -> None:
    """Refuses texts that are not Unicode and numbers that are not finite, which upstream answers with status 500.

    JSON can write halves of a surrogate pair, which no text has (RFC 8259, 8.2), and Python's parser accepts NaN.
    """
    for field in type(request).model_fields:
        waiting = [getattr(request, field)]
        while waiting:
            value = waiting.pop()
            if isinstance(value, str):
                if not _is_unicode(value):
                    raise _refusal(f"{field}: expected text, found half of a surrogate pair")
            elif isinstance(value, float):
                if not math.isfinite(value):
                    raise _refusal(f"{field}: expected finite numbers, found {value}")
            elif isinstance(value, dict):
                waiting += [*value, *value.values()]
            elif isinstance(value, list):
                waiting += value
            elif hasattr(type(value), "model_fields"):
                waiting += [getattr(value, each) for each in type(value).model_fields]


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_roles(messages: list[Any], template: Any) -> None:
    """Refuses messages that the model's template has no place for."""
    if not messages:
        raise _refusal("messages: expected at least one, found none")
    for message in messages:
        if message.role == "system":
            if not isinstance(message.content, str):
                raise _refusal("messages: expected text from the role system")
        elif message.role not in template.roles:
            roles = ", ".join(["system", *template.roles])
            raise _refusal(f"messages: expected roles of this model ({roles}), found {message.role}")


def _check_choice_of_tool(choice: Any) -> None:
    if isinstance(choice, dict):
        function = choice.get("function")
        if not (isinstance(choice.get("type"), str) and isinstance(function, dict) and "name" in function):
            raise _refusal('tool_choice: expected {"type": "function", "function": {"name": NAME}}')


def _check_stops(stops: list[str]) -> None:
    _at_most("stop", "texts", len(stops), MAX_STOPS)
    if "" in stops:
        raise _refusal("stop: expected texts, found an empty one")
    _at_most("stop", "bytes in a text", max((len(stop.encode()) for stop in stops), default=0), MAX_STOP_BYTES)


def _check_tokens(what: str, tokens: Any, vocabulary: int) -> None:
    for token in tokens:
        if not 0 <= token < vocabulary:
            raise _refusal(f"{what}: expected tokens from 0 to {vocabulary - 1}, found {_short(token)}")


def _check_schema(response_format: Any, vocabulary: int) -> None:
    if response_format is not None and response_format.json_schema is not None:
        try:
            response_format.json_schema = json_schema.simplify(response_format.json_schema, vocabulary)
        except json_schema.SchemaError as error:
            raise _refusal(f"response_format: {error}") from None


def _check_tools(tools: list[Any], used: bool, length: int, max_bytes: int) -> None:
    """Refuses tools that are too many, too deep, or too long for a prompt with the messages.

    Args:
        tools: upstream's ChatTools.
        used: whether the prompt contains them.
        length: bytes of the messages.
        max_bytes: limit of messages and tools together.
    """
    _at_most("tools", "tools", len(tools), MAX_TOOLS)
    characters = 0
    for tool in tools:
        characters += len(tool.function.name) + len(tool.function.description or "")
        level, depth = [tool.function.parameters], 0
        while level:
            _at_most("tools", "levels of parameters", depth, MAX_TOOL_DEPTH)
            inner = [each for values in level for each in values]  # Names of objects, items of lists.
            inner += [each for values in level if isinstance(values, dict) for each in values.values()]
            characters += sum(len(each) for each in inner if isinstance(each, str))
            level, depth = [each for each in inner if isinstance(each, (dict, list))], depth + 1
    if tools and used:
        # As JSON they are up to six times as long, so refuse what is too long even without it.
        _check_length("messages and tools", length + characters, max_bytes)
        written = json.dumps([tool.function.model_dump(by_alias=True) for tool in tools])
        _check_length("messages and tools", length + len(written), max_bytes)


def _check_messages(messages: list[Any], config: dict[str, Any], max_bytes: int) -> int:
    """Refuses messages that the model cannot read; returns the bytes of their texts."""
    contents = [message.content for message in messages if message.content is not None]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    _at_most("messages", "messages and parts", len(messages) + len(parts), MAX_MESSAGES)
    images = [_image_of(part) for part in parts if part.get("type") == "image_url"]
    texts = [content for content in contents if isinstance(content, str)]
    for part in parts:
        if part.get("type") == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif part.get("type") != "image_url":
            raise _refusal("messages: expected parts of the types text, with text, and image_url")
    length = sum(len(text.encode("utf-8", "replace")) for text in texts)
    _check_length("messages", length, max_bytes)
    if images and config.get("model_type") not in IMAGE_MODELS:
        raise _refusal("image_url: this model takes no images")
    _at_most("image_url", "images", len(images), MAX_IMAGES)
    for image in images:
        _check_image(image)
    return length


def join_texts(messages: list[Any]) -> list[Any]:
    """Joins consecutive texts of a prompt. Upstream copies all that is before each: 8 s for 4,096 texts of 1 kB."""
    joined: list[Any] = []
    for is_text, group in itertools.groupby(messages, lambda message: isinstance(message, str)):
        members = list(group)
        joined += ["".join(members)] if is_text else members
    return joined


def with_clients_text_kept(upstream: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    """Wraps `Conversation.as_prompt`, which replaces `{function_string}` in the whole prompt, not only in templates.

    A client's text with these characters would get the tools in the middle, or lose the characters.
    """
    placeholder = "{function_string}"

    @functools.wraps(upstream)
    def as_prompt(conversation: Any, config: Any = None) -> list[Any]:
        mark = secrets.token_hex(len(placeholder) // 2)

        def hide(content: Any) -> Any:
            if isinstance(content, str):
                return content.replace(placeholder, mark)
            if isinstance(content, list):
                return [
                    {**part, "text": hide(part["text"])} if part.get("type") == "text" else part for part in content
                ]
            return content

        hidden = conversation.model_copy(
            update={
                "messages": [(role, hide(content)) for role, content in conversation.messages],
                "system_message": hide(conversation.system_message),
                "function_string": hide(conversation.function_string),
            }
        )
        prompt = upstream(hidden, config)
        return [part.replace(mark, placeholder) if isinstance(part, str) else part for part in prompt]

    return as_prompt


def _image_of(part: dict[str, Any]) -> str:
    image = part.get("image_url")
    url = image.get("url") if isinstance(image, dict) else image
    if not isinstance(url, str):
        raise _refusal("image_url: expected a URL")
    return url


def _check_image(url: str) -> None:
    """Refuses what is no image inside the request. Upstream would fetch any address that the server can reach."""
    found = re.match(r"data:image/[a-z.+-]+;base64,", url)
    if not found:
        raise _refusal("image_url: expected data:image/TYPE;base64,DATA; this server fetches no other URLs")
    _at_most("image_url", "bytes", (len(url) - found.end()) * 3 // 4, MAX_IMAGE_BYTES)
    try:
        from PIL import Image
    except ImportError:
        raise _refusal("image_url: this server reads no images; to change that, install Pillow") from None
    # Pillow raises errors of many types for damaged images.
    try:
        data = base64.b64decode(url[found.end() :], validate=True)
        image = Image.open(io.BytesIO(data), formats=IMAGE_FORMATS)
    except Exception:
        raise _refusal(f"image_url: expected an image ({', '.join(IMAGE_FORMATS)}) in base64") from None
    _at_most("image_url", "pixels", image.width * image.height, MAX_IMAGE_PIXELS)
    try:
        image.convert("RGB")
    except Exception:
        raise _refusal("image_url: expected a complete image, found a damaged one") from None


def check_inputs(request: Any) -> None:
    """Refuses a request for embeddings that is too large, or with numbers that are no tokens of any model."""
    inputs = request.input if isinstance(request.input, list) else [request.input]
    if not isinstance(inputs[0], int):
        _at_most("input", "inputs", len(inputs), MAX_INPUTS)
    texts = [each for each in inputs if isinstance(each, str)]
    _at_most("input", "bytes", sum(len(text.encode("utf-8", "replace")) for text in texts), MAX_INPUT_BYTES)
    lists = [[each] if isinstance(each, int) else each for each in inputs if not isinstance(each, str)]
    _at_most("input", "tokens", sum(len(tokens) for tokens in lists), MAX_INPUT_TOKENS)
    for tokens in lists:
        _check_tokens("input", tokens, 1 << 31)


def _short(number: int) -> str:
    """Returns a number for a message. A client may send one of 4,300 digits."""
    return str(number) if abs(number) < 1 << 64 else "a number of more than 64 bits"


def _at_most(what: str, unit: str, found: int, limit: int) -> None:
    if found > limit:
        raise _refusal(f"{what}: expected at most {limit}{f' {unit}' if unit else ''}, found {_short(found)}")


def _check_length(what: str, found: int, limit: int) -> None:
    if found > limit:
        raise _refusal(
            f"{what}: expected at most {limit} bytes, which the model input length limit allows, found {found}"
        )


def _refusal(message: str) -> ValueError:
    from mlc_llm.protocol.error_protocol import BadRequestError

    return BadRequestError(message)


def install() -> None:
    """Puts the checks in front of every engine and of the server's routes."""
    import fastapi

    from mlc_llm.protocol import conversation_protocol
    from mlc_llm.serve import engine
    from mlc_llm.serve.entrypoints import microserving_entrypoints, openai_entrypoints

    def checked(upstream: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(upstream)
        def handle(engine: Any, request: Any, *arguments: Any, **options: Any) -> Any:
            check(request, engine)
            return upstream(engine, request, *arguments, **options)

        return handle

    for kind in (engine.AsyncMLCEngine, engine.MLCEngine):
        for name in ("_handle_chat_completion", "_handle_completion"):
            setattr(kind, name, checked(getattr(kind, name)))

    def routed(upstream: Callable[..., Any], early: Callable[[Any], None]) -> Callable[..., Any]:
        @functools.wraps(upstream)
        async def route(request: Any, *arguments: Any, **options: Any) -> Any:
            check_values(request)
            early(request)
            answer = upstream(request, *arguments, **options)
            client = options.get("raw_request")
            return await (connections.while_connected(client, answer) if client is not None else answer)

        return route

    conversation_protocol._combine_consecutive_messages = join_texts
    conversation_protocol.Conversation.as_prompt = with_clients_text_kept(conversation_protocol.Conversation.as_prompt)
    router = openai_entrypoints.app
    microserving_entrypoints.request_completion = routed(openai_entrypoints.request_completion, check_choices)
    for name, early in (
        ("request_embedding", check_inputs),
        ("request_completion", check_choices),
        ("request_chat_completion", check_choices),
    ):
        upstream = getattr(openai_entrypoints, name)
        (old,) = (route for route in router.routes if getattr(route, "endpoint", None) is upstream)
        router.routes.remove(old)
        assert isinstance(old, fastapi.routing.APIRoute)
        router.post(old.path)(routed(upstream, early))
