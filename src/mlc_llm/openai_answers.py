"""Translates upstream's answers to those that OpenAI's clients expect, whole or as a stream.

At the pinned commit upstream adds fields that OpenAI's objects do not have, leaves out others, and has no offsets of
tokens. Choices arrive as answers to bodies of their own.
"""

from __future__ import annotations

import codecs
from typing import Any

from . import answer_text
from .openai_requests import COMPLETION, Translated

FINISHED = ("stop", "length", "tool_calls")

LEAST_LOGPROB = -9999.0
"""What OpenAI has for the logarithm of a probability of 0, which JSON cannot write."""


class Answer:
    """The answer to one request, made of upstream's answers to its bodies.

    Args:
        request: what was asked.
    """

    def __init__(self, request: Translated) -> None:
        self._request = request
        self._head: dict[str, Any] = {}
        self._usage: dict[str, int] = {}
        self._choices: dict[int, _Choice] = {}

    def whole(self, answers: list[dict[str, Any]]) -> dict[str, Any]:
        """Returns the answer.

        Args:
            answers: upstream's answers, one for each body.
        """
        choices = []
        for position, answer in enumerate(answers):
            head = self._headed(answer)
            self._count(position, answer["usage"])
            choices += [self._choice(position).whole(each) for each in answer["choices"]]
        return {**head, "choices": choices, "usage": self._usage}

    def chunks(self, position: int, chunk: dict[str, Any]) -> list[dict[str, Any]]:
        """Returns the chunks of a stream.

        Args:
            position: of the body.
            chunk: one of upstream's stream for it.
        """
        head = self._headed(chunk)
        if chunk["usage"] is not None:
            self._count(position, chunk["usage"])
        usage = {"usage": None} if self._request.usage else {}
        choices = [part for each in chunk["choices"] for part in self._choice(position).pieces(each)]
        return [{**head, "choices": [choice], **usage} for choice in choices]

    def last_chunks(self) -> list[dict[str, Any]]:
        """Returns the chunk with the usage, if the client asked for it."""
        return [{**self._head, "choices": [], "usage": self._usage}] if self._request.usage else []

    def _headed(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Returns what all parts of the answer have in common."""
        if not self._head:
            self._head = {name: answer[name] for name in ("id", "object", "created")} | {"model": self._request.model}
        return self._head

    def _count(self, position: int, usage: dict[str, Any]) -> None:
        """Adds the tokens of a choice, and with the first choice those of the prompt."""
        prompt = usage["prompt_tokens"] if position % self._request.choices == 0 else 0
        answer = usage["completion_tokens"]
        for name, tokens in (
            ("prompt_tokens", prompt),
            ("completion_tokens", answer),
            ("total_tokens", prompt + answer),
        ):
            self._usage[name] = self._usage.get(name, 0) + tokens
        if usage.get("extra") is not None:  # With --enable-debug.
            self._usage["extra"] = usage["extra"]

    def _choice(self, index: int) -> _Choice:
        if index not in self._choices:
            self._choices[index] = _Choice(self._request, index)
        return self._choices[index]


class _Choice:
    """One of the choices in an answer.

    Args:
        request: what was asked.
        index: of the choice.
    """

    def __init__(self, request: Translated, index: int) -> None:
        self._request = request
        self._index = index
        self._reader = request.reader()
        self._started = False
        self._offset = 0
        # Of UTF-8, which tokens may split.
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def whole(self, choice: dict[str, Any]) -> dict[str, Any]:
        head: dict[str, Any] = {
            "index": self._index,
            "finish_reason": self._reason(choice["finish_reason"]),
            "logprobs": None,
        }
        if self._request.path == COMPLETION:
            return {**head, "text": choice["text"], "logprobs": self._offsets(choice["logprobs"])}
        text, calls = choice["message"]["content"] or "", []
        if self._reader is not None:
            found = self._reader.read(text) + self._reader.end()
            text = "".join(each for each in found if isinstance(each, str))
            calls = [each for each in found if isinstance(each, dict)]
        message: dict[str, Any] = {"role": "assistant", "content": text if text or not calls else None, "refusal": None}
        if calls:
            message["tool_calls"] = calls
            head["finish_reason"] = self._reason(choice["finish_reason"])
        return {**head, "message": message, "logprobs": _content(choice["logprobs"])}

    def pieces(self, choice: dict[str, Any]) -> list[dict[str, Any]]:
        """Returns this choice in the chunks of a stream."""
        reason = choice["finish_reason"]
        if self._request.path == COMPLETION:
            logprobs = self._offsets(choice["logprobs"])
            reason = self._reason(reason) if reason else None
            return [{"index": self._index, "finish_reason": reason, "text": choice["text"], "logprobs": logprobs}]
        deltas: list[dict[str, Any]] = [] if self._started else [{"role": "assistant", "content": ""}]
        self._started = True
        text = choice["delta"]["content"]
        found: list[Any] = [text] if text else []
        if self._reader is not None:
            called = self._reader.called
            found = self._reader.read(text) + (self._reader.end() if reason else [])
            for each in found:
                if isinstance(each, dict):
                    deltas.append({"tool_calls": [{"index": called, **each}]})
                    called += 1
                else:
                    deltas.append({"content": each})
        else:
            deltas += [{"content": each} for each in found]
        logprobs = _content(choice["logprobs"])
        if logprobs and not deltas:
            deltas.append({})
        made: list[dict[str, Any]] = [
            {"index": self._index, "delta": delta, "finish_reason": None, "logprobs": None} for delta in deltas
        ]
        if logprobs:
            made[-1]["logprobs"] = logprobs
        if reason:
            made.append({"index": self._index, "delta": {}, "finish_reason": self._reason(reason), "logprobs": None})
        return made

    def _reason(self, reason: str) -> str:
        """Returns why the answer ended. A call counts only if the model ended it and it is complete."""
        if reason == "stop" and self._reader is not None and self._reader.called and self._reader.complete:
            return "tool_calls"
        return reason if reason in FINISHED else "length"

    def _offsets(self, logprobs: dict[str, Any] | None) -> dict[str, Any] | None:
        """Adds where each token starts in the text, in characters."""
        if logprobs is None:
            return None
        offsets = []
        for token in logprobs["tokens"]:
            offsets.append(self._offset)
            self._offset += len(self._decoder.decode(answer_text.token_bytes(token)))
        return {
            "tokens": logprobs["tokens"],
            "token_logprobs": [_finite(each) for each in logprobs["token_logprobs"]],
            "top_logprobs": [{token: _finite(each) for token, each in top.items()} for top in logprobs["top_logprobs"]],
            "text_offset": offsets,
        }


def _content(logprobs: dict[str, Any] | None) -> dict[str, Any] | None:
    """Returns the log probabilities of a chat."""
    if logprobs is None:
        return None
    for token in logprobs["content"]:
        for each in (token, *token["top_logprobs"]):
            each["logprob"] = _finite(each["logprob"])
    return {"content": logprobs["content"], "refusal": None}


def _finite(logprob: float | None) -> float:
    return logprob if logprob is not None and logprob > LEAST_LOGPROB else LEAST_LOGPROB
