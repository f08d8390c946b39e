"""The text of an answer while the engine generates it: where it stops, and the log probabilities of its tokens.

At the pinned commit upstream's engine searches stop texts itself and drops the whole token in which one is found, with
the text in front of it: `stop: ["aris"]` makes "" of " Paris." where OpenAI answers " P". It writes tokens without
their spaces and without all that is not ASCII, and drops the log probabilities of tokens that end inside a character.
`install` wraps the functions that generate, of both engines, so that the server and Python programs get the same.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from mlc_llm.serve import engine

from . import engine_watch


class Text:
    """Cuts the text of one choice at the first stop text, as it arrives.

    Args:
        stops: the stop texts.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""
        self._sent = 0
        self._logprobs: list[tuple[int, str]] = []
        """Log probabilities that are held, and where in the text their tokens begin."""
        self.stopped = False
        """Whether a stop text was found. Nothing comes behind it."""

    def put(self, text: str, logprobs: Sequence[str], last: bool) -> tuple[str, list[str]]:
        """Adds generated text; returns what can be no part of a stop, with the log probabilities of its tokens.

        Args:
            text: of no, one or several tokens.
            logprobs: the engine's JSON for each of them.
            last: whether it is the end.
        """
        begin = self._sent + len(self._held)
        self._logprobs += [(begin, _with_text(each, text if begin == 0 else None)) for each in logprobs]
        self._held += text
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            ready, self._held, self.stopped = self._held[: min(found)], "", True
        else:
            size = len(self._held) if last else len(self._held) - self._beginning()
            ready, self._held = self._held[:size], self._held[size:]
        self._sent += len(ready)
        count = len(self._logprobs) if last and not found else sum(at < self._sent for at, _ in self._logprobs)
        out, self._logprobs = self._logprobs[:count], self._logprobs[count:]
        return ready, [each for _, each in out]

    def _beginning(self) -> int:
        """Returns how many of the last characters may be the beginning of a stop text."""
        longest = min(len(self._held), max((len(stop) for stop in self._stops), default=1) - 1)
        return next(
            (
                size
                for size in range(longest, 0, -1)
                if any(stop.startswith(self._held[-size:]) for stop in self._stops)
            ),
            0,
        )


class Answer:
    """Edits the outputs of one request.

    Args:
        owner: the engine.
        config: upstream's GenerationConfig.
        name: of the request.
    """

    def __init__(self, owner: Any, config: Any, name: str) -> None:
        self._owner = owner
        self._name = name
        self._tokens = 0
        """Tokens generated up to a stop text."""
        # The engine ends all choices of a request together, so where there are several it searches the stops itself.
        self._alone = (config.n or 1) == 1
        # For measurements, like the engine.
        endless = config.debug_config is not None and config.debug_config.ignore_eos
        stops = config.stop_strs if self._alone and not endless else None
        self._texts = [Text(stops or []) for _ in range(config.n or 1)]
        self.config = config.model_copy(update={"stop_strs": []}) if self._alone else config
        """What the engine is given instead."""

    def edit(self, choices: list[Any]) -> bool:
        """Edits an output; returns whether it is part of the answer. At a stop text it ends the request.

        Args:
            choices: upstream's CallbackStreamOutput of each choice, or of the usage, the last one.
        """
        stopped = self._texts[0].stopped
        if choices[0].request_final_usage_json_str is not None:
            if stopped:
                choices[0].request_final_usage_json_str = self._usage(choices[0].request_final_usage_json_str)
            return True
        if stopped:
            return False  # What the engine generated until it knew.
        for text, choice in zip(self._texts, choices):
            given: engine_watch.Generated = choice.delta_logprob_json_strs
            self._tokens += given.tokens
            last = choice.finish_reason is not None
            # The token that ends an answer has a log probability and is no part of it. Where the engine searches stops,
            # it also reports log probabilities before their tokens.
            count = given.tokens if self._alone else None
            choice.delta_text, logprobs = text.put(choice.delta_text, (given.logprobs or [])[:count], last)
            # Upstream skips outputs without text, unless they are the last.
            choice.delta_logprob_json_strs = logprobs if logprobs or given.logprobs is not None else None
            if text.stopped:
                choice.finish_reason = "stop"
                engine_watch.complete(self._owner, self._name)
        return True

    def _usage(self, reported: str) -> str:
        """Returns the engine's usage without the tokens behind the stop text."""
        usage = json.loads(reported)
        usage["completion_tokens"] = self._tokens
        usage["total_tokens"] = usage["prompt_tokens"] + self._tokens
        return json.dumps(usage)


def _with_text(logprob: str, text: str | None) -> str:
    """Returns the engine's JSON of a token with the token's text, and its alternatives with theirs.

    Args:
        logprob: LogProbsContent of upstream's protocol.
        text: if the token begins the answer: the text of which it is the beginning. SentencePiece begins a text without
            the space that the token has.
    """
    content = json.loads(logprob)
    for each in (content, *content["top_logprobs"]):
        each["token"] = token_text(bytes(each["bytes"] or []))
    token = content["token"]
    if text is not None and token.startswith(" ") and not text.startswith(" ") and text.startswith(token[1:]):
        content["token"], content["bytes"] = token[1:], content["bytes"][1:]
    return json.dumps(content)


def token_text(content: bytes) -> str:
    """Returns the text of a token. A part of a character is written as OpenAI writes it: `bytes:\\xf0\\x9f`."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{each:02x}" for each in content)


def token_bytes(text: str) -> bytes:
    """Returns the bytes of a token from what `token_text` returned."""
    if re.fullmatch(r"bytes:(\\x[0-9a-f]{2})+", text):
        return bytes.fromhex(text.removeprefix("bytes:").replace("\\x", ""))
    return text.encode()


def _asynchronous(upstream: Callable[..., AsyncIterator[list[Any]]]) -> Callable[..., AsyncIterator[list[Any]]]:
    @functools.wraps(upstream)
    async def generate(owner: Any, prompt: Any, config: Any, name: str) -> AsyncIterator[list[Any]]:
        answer = Answer(owner, config, name)
        async with contextlib.aclosing(upstream(owner, prompt, answer.config, name)) as outputs:  # type: ignore[type-var]
            async for choices in outputs:
                if answer.edit(choices):
                    yield choices

    return generate


def _synchronous(upstream: Callable[..., Iterator[list[Any]]]) -> Callable[..., Iterator[list[Any]]]:
    @functools.wraps(upstream)
    def generate(owner: Any, prompt: Any, config: Any, name: str) -> Iterator[list[Any]]:
        answer = Answer(owner, config, name)
        with contextlib.closing(upstream(owner, prompt, answer.config, name)) as outputs:  # type: ignore[type-var]
            for choices in outputs:
                if answer.edit(choices):
                    yield choices

    return generate


def install() -> None:
    """Wraps `_generate` of both engines."""
    engine.AsyncMLCEngine._generate = _asynchronous(engine.AsyncMLCEngine._generate)
    engine.MLCEngine._generate = _synchronous(engine.MLCEngine._generate)
