"""Tools for models of any template: written into the system message, and read from the model's text.

At the pinned commit upstream offers tools only to models whose template has a place for them, expects calls in the
syntax of Python, which one family of models writes, and reports any other answer as an error. Here tools are text in
the format of Hermes, which Qwen, SmolLM2 and many others are trained on:

    <tool_call>
    {"name": "get_weather", "arguments": {"city": "Paris"}}
    </tool_call>

If a client requires a call, a JSON schema makes the model write one, whatever it was trained on.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Sequence
from typing import Any

OPEN, CLOSE = "<tool_call>", "</tool_call>"

MAX_SPACE = 1024
"""Of space that is held back because a call may follow. Looking through it again for each token takes time."""

_INSTRUCTIONS = """# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{tools}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""
"""The words of Hermes and Qwen; models were trained on them, so they are not ours to improve."""


def instructions(functions: Sequence[dict[str, Any]]) -> str:
    """Returns the part of the system message that offers functions."""
    lines = [json.dumps({"type": "function", "function": function}, ensure_ascii=False) for function in functions]
    return _INSTRUCTIONS.format(tools="\n".join(lines))


def written(calls: Sequence[tuple[str, str]]) -> str:
    """Returns earlier calls, of names and arguments in JSON, as the model wrote them."""
    return "\n".join(f'{OPEN}\n{{"name": {json.dumps(name)}, "arguments": {given}}}\n{CLOSE}' for name, given in calls)


def answered(results: Sequence[str]) -> str:
    """Returns the results of calls as one message."""
    return "\n".join(f"<tool_response>\n{result}\n</tool_response>" for result in results)


def schema(functions: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns the JSON schema of a call of one of these functions.

    Each function's parameters are a resource with its own `$id`, so that `#/$defs` in them are theirs.
    """
    calls = [
        {
            "type": "object",
            "properties": {
                "name": {"const": function["name"]},
                "arguments": {"type": "object", **function["parameters"], "$id": f"function:{position}"},
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for position, function in enumerate(functions)
    ]
    return calls[0] if len(calls) == 1 else {"anyOf": calls}


class Reader:
    """Splits the text of one answer into content and calls as it arrives.

    Args:
        names: functions that the client offers.
        required: the whole text is one call, with the schema above.
        parallel: whether more than one call counts.
    """

    def __init__(self, names: Sequence[str], required: bool = False, parallel: bool = True) -> None:
        self._names = names
        self._required = required
        self._parallel = parallel
        self._held = ""
        """Content that may be part of an opening tag, or space in front of one."""
        self._parts: list[str] | None = [] if required else None
        """The text of a call so far, in pieces: adding each to one text would take quadratic time."""
        self._tail = ""
        """As much of it as may be part of a closing tag."""
        self.called = 0
        """Number of calls so far."""
        self.complete = True
        """Whether the text of the last call has its end."""

    def read(self, text: str) -> list[str | dict[str, Any]]:
        """Returns what is complete: pieces of content, and calls as OpenAI's clients expect them."""
        found: list[str | dict[str, Any]] = []
        while text:
            text = self._read_call(text, found) if self._parts is not None else self._read_content(text, found)
        return found

    def _read_content(self, text: str, found: list[str | dict[str, Any]]) -> str:
        """Reads content up to an opening tag; returns what is behind it."""
        self._held += text
        if self.called:
            self._held = self._held.lstrip()
        content, opened, rest = self._held.partition(OPEN)
        if opened:
            found += [content.rstrip()] if content.strip() else []
            self._held, self._parts, self._tail = "", [], ""
            return rest
        ready = _ready(self._held)
        found += [self._held[:ready]] if ready else []
        self._held = self._held[ready:]
        return ""

    def _read_call(self, text: str, found: list[str | dict[str, Any]]) -> str:
        """Reads a call up to its closing tag; returns what is behind it."""
        assert self._parts is not None
        self._parts.append(text)
        if self._required:
            return ""
        both = self._tail + text
        at = both.find(CLOSE)
        if at < 0:
            self._tail = both[-len(CLOSE) + 1 :]
            return ""
        rest = both[at + len(CLOSE) :]
        whole = "".join(self._parts)
        inner = whole[: len(whole) - len(rest) - len(CLOSE)]
        self._parts = None
        found += self._calls(inner, f"{OPEN}{inner}{CLOSE}")
        return rest

    def end(self) -> list[str | dict[str, Any]]:
        """Returns the rest, after the last text."""
        if self._parts is not None:
            text, self._parts = "".join(self._parts), None
            # Some models end without the closing tag.
            return self._one(text) if self._required else self._calls(text, OPEN + text)
        text, self._held = self._held, ""
        return [text] if text and not (self.called and text.isspace()) else []

    def _calls(self, inner: str, text: str) -> list[str | dict[str, Any]]:
        """Returns the calls between the tags, or all as content if there are none."""
        try:
            value = json.loads(inner)
            each_text = _items(inner) if isinstance(value, list) else [inner]
            found = [_members(each) for each in each_text]
            calls = [(json.loads(each["name"]), _arguments(each)) for each in found]
        except (ValueError, RecursionError, TypeError, KeyError):
            return [text]
        if not all(isinstance(name, str) and name in self._names for name, _ in calls):
            return [text]
        # OpenAI's clients that ask for one call read no second one.
        return [self._call(*each) for each in calls if self._parallel or not self.called]

    def _one(self, text: str) -> list[str | dict[str, Any]]:
        """Returns the call that the whole text is. If something else than the model ended it, it is incomplete."""
        try:
            found = _members(text)
            return [self._call(json.loads(found["name"]), found["arguments"])]
        except (ValueError, RecursionError, TypeError, KeyError):
            self.complete = False
            started = re.match(
                r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*(.*)', text, re.DOTALL
            )
            try:
                return [self._call(json.loads(started[1]), started[2])] if started else []
            except ValueError:
                return []

    def _call(self, name: str, arguments: str) -> dict[str, Any]:
        self.called += 1
        return {
            "id": f"call_{secrets.token_hex(12)}",
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }


def _arguments(call: dict[str, str]) -> str:
    """Returns the arguments of a call as the model wrote them: JSON, some models write it as a text."""
    given = call.get("arguments", call.get("parameters", "{}"))
    if given.startswith('"'):
        given = str(json.loads(given)).encode("utf-8", "replace").decode()  # Without halves of surrogate pairs.
    return "{}" if given == "null" else given


def _members(text: str) -> dict[str, str]:
    """Returns the members of a JSON object as they are written. Written again they could be others: 1e999, "\\ud83d".

    Raises:
        ValueError: it is no object.
    """
    members: dict[str, str] = {}
    at = _after("{", text, 0)
    while not _is_end("}", text, at):
        if members:
            at = _after(",", text, at)
        name, at = _DECODER.raw_decode(text, _after("", text, at))
        begin = _after("", text, _after(":", text, at))
        _, at = _DECODER.raw_decode(text, begin)
        members[name] = text[begin:at]
    return members


def _items(text: str) -> list[str]:
    """Returns the items of a JSON list as they are written.

    Raises:
        ValueError: it is no list.
    """
    items: list[str] = []
    at = _after("[", text, 0)
    while not _is_end("]", text, at):
        begin = _after("", text, _after(",", text, at) if items else at)
        _, at = _DECODER.raw_decode(text, begin)
        items.append(text[begin:at])
    return items


_DECODER = json.JSONDecoder()


def _after(mark: str, text: str, at: int) -> int:
    """Returns the position behind spaces, a mark and more spaces.

    Raises:
        ValueError: something else is there.
    """
    found = re.compile(rf"\s*{re.escape(mark)}\s*").match(text, at)
    if not found:
        raise ValueError(f"expected {mark}")
    return found.end()


def _is_end(mark: str, text: str, at: int) -> bool:
    """Whether nothing comes but spaces and a mark."""
    return re.compile(rf"\s*{re.escape(mark)}\s*\Z").match(text, at) is not None


def _ready(text: str) -> int:
    """Returns how much of a text can be no part of an opening tag, nor space in front of one, unless that is long."""
    if len(text) > MAX_SPACE and text.isspace():
        return len(text)
    start = max((size for size in range(1, len(OPEN)) if text.endswith(OPEN[:size])), default=0)
    return len(text[: len(text) - start].rstrip())
