"""Reports failures of an engine, which upstream turns into hangs.

Upstream runs its engine in a separate thread. A failure there ends the thread, and everything that waits for it (the
constructor, every request) hangs. Seen at the pinned commit: a missing or truncated weight shard, a file that is not a
library, no memory for the KV cache; and while serving: a JSON schema that does not compile, more than five top
logprobs, a request that fills the KV cache. A truncated library kills the process with SIGBUS.

`install` makes `model_check` check a model before an engine loads it, and watches the thread of every engine.
`request_check` refuses the requests that are known to fail an engine; here is what happens after one that is not.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextvars
import dataclasses
import functools
import json
import logging
import os
import queue
import re
import signal
import threading
import time
import types
import weakref
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import fastapi

from . import hub
from .model_check import ModelError, check_model

logger = logging.getLogger(__name__)

PAGE_SIZE = 16
"""Tokens in a page of the KV cache; upstream supports no other size."""

EXIT_VARIABLE = "MLC_LLM_EXIT_ON_ENGINE_FAILURE"
"""Environment variable; if set, a program whose engine fails for good ends, so that an orchestrator starts it again."""

exit_status = 0
"""Exit status of a server: 1 if it ends because of that variable."""

QUESTION = "mlc_bazel.question"
"""Name of the request that asks an engine whether it works. Those of clients have other names."""


ADMITTED: contextvars.ContextVar[asyncio.Event | None] = contextvars.ContextVar("ADMITTED", default=None)
"""What to set when a request of this task is given to the engine. Parsing and tokenizing are then over."""


class EngineError(fastapi.HTTPException, RuntimeError):
    """The engine failed while serving. Its requests are lost (the server answers 500), but later ones are served."""

    def __init__(self, message: str) -> None:
        super().__init__(status_code=500, detail=message)  # type: ignore[call-arg]

    def __str__(self) -> str:
        return self.detail


class Observer(Protocol):
    """What `observe` tells about the requests of an engine."""

    def add(self, name: str, prompt: int, choices: int) -> None: ...

    def deliver(self, name: str, parts: Sequence[Any]) -> None: ...

    def lose(self, names: Iterable[str]) -> None: ...


@dataclasses.dataclass
class Question:
    """A question to an engine, which answers between two steps: when it was asked (time.monotonic), and the answer."""

    asked: float
    answer: concurrent.futures.Future[None]


class _Engine:
    """The functions of a native engine, watched, so that failures in its thread reach everything that waits for it."""

    def __init__(self, engine: Any, functions: dict[str, Callable[..., Any]]) -> None:
        self.engine = engine
        self.native = functions
        self.outcome: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self.loaded = False
        self.dead: BaseException | None = None
        self.last_request: str | None = None
        self.created, self.size = "", (0, 1)
        self.lost: set[str] = set()
        self.open: set[str] = set()
        """Requests that were given to the engine and whose end it has not reported. Each may fail the engine once."""
        self.unexplained = 0
        """Failures without an open request, in a row."""
        self.observer: Observer | None = None
        self.question: Question | None = None

    def functions(self) -> dict[str, Callable[..., Any]]:
        """Returns the functions that the engine calls instead of the native ones."""
        watched = ["add_request", "create_request", "init_threaded_engine", "reload", "run_background_loop"]
        return {**self.native, **{name: getattr(self, name) for name in watched}}

    def reload(self, config: str) -> None:
        """Loads the model, or says why it cannot.

        Raises:
            ModelError: it cannot be loaded.
        """

        def load() -> None:
            self.native["reload"](config)
            self.outcome.put(None)

        # If loading fails, this never returns, and the thread stays behind, asleep.
        threading.Thread(target=load, daemon=True).start()
        error = self.outcome.get()
        if error is not None:
            raise ModelError(_why_not_loaded(json.loads(config), error)) from error
        self.loaded = True

    def run_background_loop(self) -> None:
        """Runs the engine in its thread until asked to stop. After a failure it continues with an empty engine."""
        while True:
            try:
                self.native["run_background_loop"]()
                return
            except Exception as error:
                if not self.loaded:
                    self.outcome.put(error)
                    return
                if self._is_dead():
                    self._die(error)
                    return
                # Reset before telling the waiting clients, so that their next request comes after it.
                try:
                    self.native["reset"]()
                except Exception as again:  # A lost GPU, for example.
                    self._die(again)
                    return
                self._lose_requests(error)

    def _is_dead(self) -> bool:
        """Counts a failure; returns whether the engine cannot recover: it has failed twice without a request to blame.

        Requests that wait in the engine's queue survive a reset, so several bad ones fail it several times in a row.
        """
        if self.open:
            self.open.pop()  # Nothing tells which one failed.
            self.unexplained = 0
        else:
            self.unexplained += 1
        return self.unexplained > 1

    def _die(self, error: BaseException) -> None:
        """Refuses all requests from now on, and ends the program if asked to."""
        self.dead = error
        self._lose_requests(error)
        logger.error("The engine failed for good: %s", _last_line(error))
        if EXIT_VARIABLE in os.environ:
            global exit_status
            exit_status = 1
            # A server answers what is open, then ends.
            os.kill(os.getpid(), signal.SIGTERM)

    def _lose_requests(self, error: BaseException) -> None:
        """Tells everything that waits for an answer that none will come."""
        state = self.engine.state
        held, state.async_streamers = state.async_streamers, {}
        streamers = dict(held)
        # The error may quote another client's request: the only open one need not be the one that failed.
        why = _last_line(error) if state.async_event_loop is None else "the server's log says why"
        failure = EngineError(f"the engine failed, and with it this request: {why}")
        failure.__cause__ = error
        logger.error("The engine failed, %d requests are lost: %s", max(len(streamers), 1), _last_line(error))
        # Decide what is lost before telling anyone: a client that hears of it may send its next request at once, and
        # that one is not lost.
        last, self.last_request = self.last_request, None
        self.lost.update(streamers)
        # The asynchronous engine lists all its requests in `streamers`; its last one may be added only after the reset.
        if last is not None and state.async_event_loop is None:
            self.lost.add(last)
        if self.observer is not None:
            self.observer.lose(streamers)
        # The engine may have dropped the question with the rest of its queue.
        question, self.question = self.question, None
        if question is not None:
            question.answer.cancel()
        for stream, _ in streamers.values():
            state.async_event_loop.call_soon_threadsafe(stream.push, failure)
        state.sync_output_queue.put(_Raise(failure))

    def init_threaded_engine(self, device: Any, callback: Callable[[Any], None], recorder: Any) -> None:
        """Passes on the outputs of requests, except late outputs of requests that are already lost."""

        def deliver_one(output: Any) -> None:
            output = _Output(output)
            if output.request == QUESTION:
                question, self.question = self.question, None
                if question is not None:
                    question.answer.set_result(None)
                return
            if output.is_last:
                self.open.discard(output.request)
            if output.request in self.lost:
                return
            if self.observer is not None:
                self.observer.deliver(*output.unpacked)
            # The engine works again. What it had dropped by then will not fail it any more.
            self.unexplained = 0
            self.open -= self.lost
            callback([output])

        def deliver(outputs: Any) -> None:
            # One at a time: an exception would drop the outputs of other requests behind it, and end upstream's thread.
            for output in outputs:
                try:
                    deliver_one(output)
                except Exception:
                    logger.exception("An output of a request is lost")

        self.native["init_threaded_engine"](device, deliver, recorder)

    def create_request(self, name: str, inputs: Any, config: str) -> Any:
        """Creates a request.

        Raises:
            BadRequestError: it cannot be served; the server answers status 400.
        """
        from mlc_llm.protocol.error_protocol import BadRequestError

        options = json.loads(config)
        choices = int(options.get("n", 1))
        prompt = sum(_length(part) for part in inputs)
        room = _room(self.engine.engine_config, prompt, choices)
        if choices > 1 and room < 1:
            raise BadRequestError(f"n: the KV cache has no room for {choices} answers to a prompt of {prompt} tokens")
        if options["max_tokens"] < 0 or options["max_tokens"] > room:
            options["max_tokens"] = max(room, 1)
        # Upstream's default, jump_forward, appends text that the grammar forces without the model. At the pinned commit
        # it ends the process where such a text ends inside a character, fails the engine where it is longer than a
        # prefill chunk, and ignores max_tokens.
        options["debug_config"] = {**(options.get("debug_config") or {}), "grammar_execution_mode": "constraint"}
        try:
            request = self.native["create_request"](name, inputs, json.dumps(options))
        except Exception as error:
            raise BadRequestError(_last_line(error).rpartition("is false: ")[2]) from error
        self.lost.discard(name)
        self.last_request = self.created = name
        self.size = prompt, choices
        return request

    def add_request(self, request: Any) -> None:
        """Passes a request to the engine.

        Raises:
            EngineError: the engine has failed for good.
        """
        if self.dead is not None:
            raise EngineError(self.why_dead()) from self.dead
        # Upstream adds each request as soon as it is created.
        self.open.add(self.created)
        if (admitted := ADMITTED.get()) is not None:
            admitted.set()
        if self.observer is not None:
            self.observer.add(self.created, *self.size)
        self.native["add_request"](request)

    def ask(self) -> Question:
        """Asks the engine whether it works, or returns the question that it has not answered."""
        question = self.question
        if question is None:
            self.question = question = Question(time.monotonic(), concurrent.futures.Future())
            config = json.dumps({"debug_config": {"special_request": "query_engine_metrics"}})
            self.native["add_request"](self.native["create_request"](QUESTION, [], config))
        return question

    def why_dead(self) -> str:
        """Says in one line that the engine serves no more requests; empty if it does.

        Everyone reads this, and the error may quote a request, so only the log says why.
        """
        return "the engine failed for good, its log says why; restart it" if self.dead is not None else ""


def failure(engine: Any) -> str:
    """Says in one line why an engine serves no more requests; empty if it does.

    Args:
        engine: MLCEngine or AsyncMLCEngine; others, such as embedding engines and None, are not watched.
    """
    watched = _watched(engine)
    return watched.why_dead() if watched else ""


def ask(engine: Any) -> Question | None:
    """Asks an engine whether it works. Returns None for one that is not watched."""
    watched = _watched(engine)
    return watched.ask() if watched else None


def observe(engine: Any, observer: Callable[[], Observer]) -> None:
    """Makes an observer and tells it of the requests of an engine, unless that is not watched.

    It is called in the thread that adds requests and in that which delivers outputs.
    """
    watched = _watched(engine)
    if watched:
        watched.observer = observer()


def _watched(engine: Any) -> _Engine | None:
    return getattr(engine, "__dict__", {}).get("_watched")


@dataclasses.dataclass
class Generated:
    """What one output has of one choice.

    Args:
        tokens: how many.
        logprobs: the engine's JSON for each of them, if the request asks for it.
    """

    tokens: int
    logprobs: Sequence[str] | None = None


class _Output:
    """An output of a request that can be unpacked repeatedly, unlike upstream's.

    Upstream passes on the log probabilities of a choice as they are, but not the number of its tokens. `Generated`
    takes their place, on its way to `answer_text`.
    """

    def __init__(self, output: Any) -> None:
        self.unpacked = output.unpack()
        self.request = str(self.unpacked[0])
        # Upstream ends every request with its usage, even one that is aborted.
        self.is_last = any(part.request_final_usage_json_str is not None for part in self.unpacked[1])
        if not self.is_last:
            for part in self.unpacked[1]:
                part.delta_logprob_json_strs = Generated(len(part.delta_token_ids), part.delta_logprob_json_strs)

    def unpack(self) -> Any:
        return self.unpacked


class _Raise:
    """Stands for the outputs of a request, and raises an error instead."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __iter__(self) -> Any:
        raise self.error


class _Functions:
    """The attribute `_ffi` of an engine, which watches the functions assigned to it."""

    def __get__(self, engine: Any, _type: type | None = None) -> Any:
        if engine is None:
            return self
        try:
            return engine.__dict__["_ffi"]
        except KeyError:
            raise AttributeError("_ffi") from None

    def __set__(self, engine: Any, functions: dict[str, Callable[..., Any]]) -> None:
        engine.__dict__["_watched"] = watched = _Engine(engine, functions)
        engine.__dict__["_ffi"] = watched.functions()


def _room(config: Any, prompt: int = 0, choices: int = 1) -> int:
    """Returns the maximum number of tokens of each answer to a prompt.

    For one answer this is one page less than the KV cache. Upstream decodes only while there are as many free pages as
    running sequences, even if their last pages have room. It evicts a single request that reaches the last page, then
    has nothing to run, and that ends the engine. Several requests give way to each other. Several answers to one prompt
    do not: while one waits for another, the engine may find nothing to run. So all that run together must fit.

    Args:
        config: upstream's EngineConfig.
        prompt: tokens of the prompt.
        choices: number of answers.
    """
    room = min(int(config.max_single_sequence_length), int(config.max_total_sequence_length) - PAGE_SIZE) - prompt
    running = min(choices, int(config.max_num_sequence)) if choices > 1 else 1
    if running > 1:
        # They share the prompt's pages, except the last one if it is not full: each has a copy and goes on there.
        pages = int(config.max_total_sequence_length) // PAGE_SIZE - -(-prompt // PAGE_SIZE)
        room = min(room, (pages // running - 1) * PAGE_SIZE - prompt % PAGE_SIZE)
    return room


def _length(part: Any) -> int:
    """Returns the number of tokens in a part of a prompt."""
    return len(part.token_ids if hasattr(part, "token_ids") else part)


def separately(upstream: Callable[[Any, list[Any]], None]) -> Callable[[Any, list[Any]], None]:
    """Wraps the function that turns outputs into text, so that an exception fails one request and no other.

    Upstream's function leaves the outputs behind it, of other clients, and their requests never end.
    """

    @functools.wraps(upstream)
    def deliver(state: Any, outputs: list[Any]) -> None:
        for output in outputs:
            try:
                upstream(state, [output])
            except Exception as error:
                name, _ = output.unpack()
                logger.exception("Request %s is lost", name)
                failure = EngineError("the server could not read the answer, its log says why")
                failure.__cause__ = error
                stream, _ = state.async_streamers.pop(name, (None, None))
                if stream is not None:
                    stream.push(failure)  # Upstream then ends the request in the engine too.

    return deliver


def _last_line(error: BaseException) -> str:
    """Returns the message of an error without the additions of native code."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return re.sub(r"^\[[\d:]+\] \S+:\d+: ", "", lines[-1].strip().removesuffix(" :")) if lines else type(error).__name__


def _why_not_loaded(config: dict[str, Any], error: BaseException) -> str:
    """Returns one line that says why a model could not be loaded."""
    what = f"{config['model']} with {config['model_lib']}"
    if isinstance(error, MemoryError) or "bad_alloc" in str(error):
        tokens = config.get("max_total_sequence_length")
        asked = f"a KV cache of {tokens} tokens" if tokens else "the KV cache"
        return (
            f"{what}: not enough memory for weights and {asked}; ask for less: mlc_llm serve --overrides"
            " max_total_seq_length=TOKENS"
        )
    return f"{what}: cannot be loaded: {_last_line(error)}"


def install() -> None:
    """Checks every model before an engine loads it, and watches every engine.

    Imports mlc_llm's engine, and with it the native library.
    """
    from mlc_llm.serve import engine_base

    upstream_arguments = engine_base._process_model_args
    upstream_init = engine_base.MLCEngineBase.__init__

    @functools.wraps(upstream_arguments)
    def process_model_args(models: list[Any], *arguments: Any) -> Any:
        for model in models:
            if model.model.startswith(hub.ADDRESSES):
                model.model = str(hub.download(model.model))
            # Upstream first compiles a model without a library.
            if not (model.model_lib or "").startswith("mock://"):
                library = Path(model.model_lib) if model.model_lib else None
                check_model(Path(model.model), library)
                # Native code does not find a bare file name in the working directory.
                model.model_lib = str(library.absolute()) if library else None
        return upstream_arguments(models, *arguments)

    @functools.wraps(upstream_init)
    def init(engine: Any, *arguments: Any, **options: Any) -> None:
        try:
            upstream_init(engine, *arguments, **options)
        except BaseException:
            engine.terminate()
            raise
        engines.add(engine)
        engine.max_input_sequence_length = min(engine.max_input_sequence_length, _room(engine.engine_config) - 1)

    # A program that ends with an error still holds its engine, and Python would wait for the engine's threads before
    # releasing it.
    engines: weakref.WeakSet[Any] = weakref.WeakSet()
    engine_base.threading = types.SimpleNamespace(Thread=functools.partial(threading.Thread, daemon=True))

    @atexit.register
    def terminate_engines() -> None:
        for engine in engines:
            engine.terminate()

    engine_base._process_model_args = process_model_args
    engine_base.MLCEngineBase.__init__ = init
    engine_base.MLCEngineBase._ffi = _Functions()
    state = engine_base.EngineState
    state._async_request_stream_callback_impl = separately(state._async_request_stream_callback_impl)
