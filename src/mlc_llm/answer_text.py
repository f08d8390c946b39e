"""The text of an answer while the engine generates it: where it stops, and the log probabilities of its tokens.

At the pinned commit upstream's engine drops the whole token in which it finds a stop text, with the text in front of
it: `stop: ["aris"]` makes "" of " Paris." where OpenAI answers " P". This build's engine reports these tokens
(third_party/mlc_llm), and here the text is cut. Upstream writes tokens without their spaces and without all that is not
ASCII, and drops the log probabilities of tokens that end inside a character. `install` wraps the functions that
generate, of both engines, so that the server and Python programs get the same.
"""

from __future__ import annotations

import collections
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
        self._waiting: collections.deque[str] = collections.deque()
        """Log probabilities of tokens whose text the engine has not reported."""
        self._logprobs: collections.deque[tuple[int, str]] = collections.deque()
        """Log probabilities that are held, and where in the text their tokens begin."""

    def put(self, text: str, tokens: int, logprobs: Sequence[str], last: bool) -> tuple[str, list[str]]:
        """Adds generated text; returns what can be no part of a stop, with the log probabilities of its tokens.

        Args:
            text: of no, one or several tokens.
            tokens: how many. A part of a character is a token without text.
            logprobs: the engine's JSON for the tokens that it has generated, some of which it may report later.
            last: whether it is the end. The token that ends an answer is never reported.
        """
        begin = self._sent + len(self._held)
        self._waiting += logprobs
        for _ in range(min(tokens, len(self._waiting))):
            self._logprobs.append((begin, _with_text(self._waiting.popleft(), text if begin == 0 else None)))
        self._held += text
        # The stop that is complete first, however the text is cut into tokens.
        found = min(((at + len(stop), at) for stop in self._stops if (at := self._held.find(stop)) >= 0), default=None)
        if found:
            ready, self._held = self._held[: found[1]], ""
        else:
            size = len(self._held) if last else len(self._held) - self._beginning()
            ready, self._held = self._held[:size], self._held[size:]
        self._sent += len(ready)
        out = []
        while self._logprobs and (self._logprobs[0][0] < self._sent or (last and not found)):
            out.append(self._logprobs.popleft()[1])
        return ready, out

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
        config: upstream's GenerationConfig.
    """

    def __init__(self, config: Any) -> None:
        # For measurements, like the engine.
        endless = config.debug_config is not None and config.debug_config.ignore_eos
        stops = [] if endless else config.stop_strs or []
        self._texts = [Text(stops) for _ in range(config.n or 1)]

    def edit(self, choices: list[Any]) -> list[Any]:
        """Edits an output and returns it.

        Args:
            choices: upstream's CallbackStreamOutput of each choice, or of the usage, the last one.
        """
        if choices[0].request_final_usage_json_str is not None:
            return choices
        for text, choice in zip(self._texts, choices):
            given: engine_watch.Generated = choice.delta_logprob_json_strs
            choice.delta_text, logprobs = text.put(
                choice.delta_text, given.tokens, given.logprobs or [], choice.finish_reason is not None
            )
            # Upstream skips outputs without text, unless they are the last.
            choice.delta_logprob_json_strs = logprobs if logprobs or given.logprobs is not None else None
        return choices


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
        answer = Answer(config)
        async with contextlib.aclosing(upstream(owner, prompt, config, name)) as outputs:  # type: ignore[type-var]
            async for choices in outputs:
                yield answer.edit(choices)

    return generate


def _synchronous(upstream: Callable[..., Iterator[list[Any]]]) -> Callable[..., Iterator[list[Any]]]:
    @functools.wraps(upstream)
    def generate(owner: Any, prompt: Any, config: Any, name: str) -> Iterator[list[Any]]:
        answer = Answer(config)
        with contextlib.closing(upstream(owner, prompt, config, name)) as outputs:  # type: ignore[type-var]
            for choices in outputs:
                yield answer.edit(choices)

    return generate


def install() -> None:
    """Wraps `_generate` of both engines."""
    engine.AsyncMLCEngine._generate = _asynchronous(engine.AsyncMLCEngine._generate)
    engine.MLCEngine._generate = _synchronous(engine.MLCEngine._generate)
