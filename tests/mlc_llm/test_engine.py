"""The engine answers chats, streams, JSON by schema and concurrent requests, and respects the options of a request."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import re
import signal
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from mlc_llm._mlc_bazel import engine_watch, json_schema, request_check
from mlc_llm.protocol.error_protocol import BadRequestError
from mlc_llm.serve import engine_base
from mlc_llm.tokenizers import TextStreamer
from tiny_model_files import LIBRARY, WEIGHTS, chatml

from mlc_llm import AsyncMLCEngine, MLCEngine

HELLO = [{"role": "user", "content": "hello world"}]

# Every kind of value, with limits that keep the answer finite.
SCHEMA = {
    "type": "object",
    "properties": {
        "flag": {"type": "boolean"},
        "kind": {"enum": ["fox", "dog"]},
        "nothing": {"type": "null"},
        "pair": {"type": "array", "prefixItems": [{"type": "boolean"}, {"enum": [1, 2]}], "items": False},
        "inner": {
            "type": "object",
            "properties": {"x": {"const": "y"}},
            "required": ["x"],
            "additionalProperties": False,
        },
    },
    "required": ["flag", "kind", "nothing", "pair", "inner"],
    "additionalProperties": False,
}


def fits_schema(value: Any) -> bool:
    """Whether a value fits SCHEMA, checked without the schema."""
    return (
        isinstance(value, dict)
        and set(value) == {"flag", "kind", "nothing", "pair", "inner"}
        and isinstance(value["flag"], bool)
        and value["kind"] in ("fox", "dog")
        and value["nothing"] is None
        and [type(each) for each in value["pair"]] == [bool, int]
        and value["pair"][1] in (1, 2)
        and value["inner"] == {"x": "y"}
    )


@pytest.fixture(scope="module")
def engine() -> Iterator[MLCEngine]:
    engine = MLCEngine(str(WEIGHTS), model_lib=str(LIBRARY), device="cpu")
    yield engine
    engine.terminate()


@pytest.fixture
def ask(engine: MLCEngine) -> Callable[..., Any]:
    """A chat completion; by default of HELLO, greedy, with 20 tokens."""

    def create(messages: list[dict[str, str]] = HELLO, **options: Any) -> Any:
        return engine.chat.completions.create(messages=messages, **{"max_tokens": 20, "temperature": 0.0, **options})

    return create


def text(answer: Any) -> str:
    return answer.choices[0].message.content


def test_a_chat_is_answered(engine: MLCEngine, ask: Callable[..., Any]) -> None:
    answer = ask()
    assert answer.object == "chat.completion"
    assert [(choice.index, choice.message.role, choice.finish_reason) for choice in answer.choices] == [
        (0, "assistant", "length")
    ]
    assert text(answer)


def test_usage_counts_tokens(engine: MLCEngine, ask: Callable[..., Any]) -> None:
    prompt = len(engine.tokenizer.encode(chatml(("user", "hello world"))))
    usage = ask(max_tokens=17).usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (prompt, 17, prompt + 17)


def test_several_choices_differ(engine: MLCEngine, ask: Callable[..., Any]) -> None:
    prompt = len(engine.tokenizer.encode(chatml(("user", "hello world"))))
    answer = ask(n=3, temperature=1.0, seed=1, max_tokens=5)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) == 3
    # Upstream does not count the first token of each of several choices; 15 would be right. This test notices when
    # that changes.
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (prompt, 12)


def test_a_stream_is_the_answer_in_pieces(ask: Callable[..., Any]) -> None:
    answer = ask()
    *pieces, last = ask(stream=True, stream_options={"include_usage": True})
    assert len(pieces) > 5
    assert "".join(piece.choices[0].delta.content for piece in pieces) == text(answer)
    assert [piece.choices[0].finish_reason for piece in pieces] == [None] * (len(pieces) - 1) + ["length"]
    assert last.choices == []
    assert last.usage.model_dump(exclude={"extra"}) == answer.usage.model_dump(exclude={"extra"})


@pytest.mark.parametrize("seed", range(4))
def test_an_answer_fits_the_schema(ask: Callable[..., Any], seed: int) -> None:
    """The model knows no JSON: the grammar enforces all of it."""
    answer = ask(
        max_tokens=150,
        temperature=1.0,
        seed=seed,
        response_format={"type": "json_object", "schema": json.dumps(SCHEMA)},
    )
    assert answer.choices[0].finish_reason == "stop"
    assert fits_schema(json.loads(text(answer))), text(answer)


@pytest.mark.parametrize(
    "schema",
    [
        {"enum": ["😀", "😁"]},
        {"type": "object", "properties": {"größe": {"const": "é"}}, "required": ["größe"]},
        {"const": "1" * 200},
    ],
    ids=["characters of one beginning", "names", "longer than a chunk of a prompt"],
)
def test_forced_text_is_generated_like_other_text(ask: Callable[..., Any], schema: dict[str, Any]) -> None:
    """Upstream appended it at once: the process ended, or the engine failed, and max_tokens did not count."""
    options = {"type": "json_object", "schema": json.dumps(schema)}
    debug = {"debug_config": {"grammar_execution_mode": "jump_forward"}}
    answer = ask(max_tokens=250, temperature=1.0, seed=1, response_format=options, extra_body=debug)
    value = json.loads(text(answer))
    assert value == schema.get("const", value) and value in schema.get("enum", [value])
    assert ask(max_tokens=3, response_format=options).usage.completion_tokens == 3


@pytest.mark.parametrize("seed", range(6))
def test_constrained_texts_and_numbers_are_json(ask: Callable[..., Any], seed: int) -> None:
    """The grammar let through control characters, and 444.0 as an integer."""
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "string"}},
        "required": ["a", "b"],
        "additionalProperties": False,
    }
    options = {"type": "json_object", "schema": json.dumps(schema)}
    biases = dict.fromkeys(range(3, 40), 30)  # Bytes that are no letters come first in this vocabulary.
    answer = ask(max_tokens=300, temperature=1.5, seed=seed, response_format=options, logit_bias=biases)
    written = text(answer)
    assert not re.search(r"[\0-\x1f]", written.partition('"b"')[2])
    if answer.choices[0].finish_reason == "stop":
        assert type(json.loads(written)["a"]) is int


def test_without_a_schema_it_would_not(ask: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="Expecting value"):
        json.loads(text(ask(max_tokens=150, temperature=1.0, seed=0)))


def test_json_without_a_schema_has_no_error_before_its_end(ask: Callable[..., Any]) -> None:
    finished = []
    for seed in range(12):
        answer = ask(max_tokens=40, temperature=1.0, seed=seed, response_format={"type": "json_object"})
        try:
            finished.append(json.loads(text(answer), strict=False))
            assert answer.choices[0].finish_reason == "stop"
        except json.JSONDecodeError as error:
            assert answer.choices[0].finish_reason == "length", text(answer)
            # A string without an end is reported where it begins.
            assert error.msg.startswith("Unterminated string") or error.pos >= len(error.doc.rstrip()) - 6, (
                error,
                text(answer),
            )
    assert finished and all(isinstance(value, (dict, list)) for value in finished)


def test_upstream_does_not_know_the_schema_format_of_openai(ask: Callable[..., Any]) -> None:
    """Upstream has its own: type json_object, with the schema as text. It accepts no grammars. This test notices when
    that changes.
    """
    with pytest.raises(ValueError, match="'text' or 'json_object'"):
        ask(response_format={"type": "json_schema", "json_schema": {"name": "flag", "schema": {"type": "boolean"}}})


@pytest.mark.parametrize("schema", ["{", '"boolean"', "[]"])
def test_a_malformed_schema_is_refused(ask: Callable[..., Any], schema: str) -> None:
    with pytest.raises(BadRequestError, match="response_format: expected a JSON schema"):
        ask(response_format={"type": "json_object", "schema": schema})


def test_text_that_fits_in_two_ways_is_no_work(ask: Callable[..., Any], engine: MLCEngine) -> None:
    """Each such number doubled the time and memory of the next one, and 25 of them never ended."""
    texts = {token: engine.tokenizer.decode([token]) for token in range(5, 320)}
    bias = {token: -100 if "]" in text else 100 for token, text in texts.items() if "]" in text or "," in text}
    schema = {"type": "array", "items": {"anyOf": [{"const": 1}, {"enum": [1]}]}}
    answer = ask(max_tokens=200, response_format={"type": "json_object", "schema": json.dumps(schema)}, logit_bias=bias)
    assert text(answer).count(", 1") > 40


@pytest.fixture
def unchecked_schemas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets schemas pass that fail the engine."""
    monkeypatch.setattr(json_schema, "simplify", lambda schema, _: schema)


def test_a_schema_that_cannot_be_compiled_is_refused(ask: Callable[..., Any]) -> None:
    with pytest.raises(BadRequestError, match="response_format: type: expected one of array, .*, found .nonsense"):
        ask(response_format={"type": "json_object", "schema": '{"type": "nonsense"}'})
    # It overflowed the stack.
    tree = {"$defs": {"tree": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}, "$ref": "#/$defs/tree"}
    with pytest.raises(BadRequestError, match="refer to themselves"):
        ask(response_format={"type": "json_object", "schema": json.dumps(tree)})


@pytest.mark.parametrize("schema", [{}, {"type": "boolean"}, {"type": "object", "properties": {'a"\\': {"const": 1}}}])
def test_a_schema_that_upstream_cannot_compile_is_changed_so_that_it_can(
    ask: Callable[..., Any], schema: dict[str, Any]
) -> None:
    answer = ask(max_tokens=1, response_format={"type": "json_object", "schema": json.dumps(schema)})
    assert answer.choices[0].finish_reason


def test_a_request_that_fails_the_engine_fails_no_later_one(ask: Callable[..., Any], unchecked_schemas: None) -> None:
    """Upstream's engine dies, and every later request waits forever."""
    before = text(ask())
    with pytest.raises(RuntimeError, match="Unsupported type nonsense"):
        ask(response_format={"type": "json_object", "schema": '{"type": "nonsense"}'})
    assert text(ask()) == before


def test_a_failed_request_does_not_affect_the_next_one(
    ask: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine fails during a request and ends it late, while the next request may already wait for its own end."""
    before = text(ask())
    monkeypatch.setattr(request_check, "TOP_LOGPROBS", 20)
    for _ in range(20):
        with pytest.raises(RuntimeError, match="num_top_probs <= 5"):
            ask(logprobs=True, top_logprobs=20)
        assert text(ask()) == before


def test_requests_concurrent_with_one_that_fails_the_engine_are_told(unchecked_schemas: None) -> None:
    """They are told about the failure, but not about the failing request's content."""
    bad = {"response_format": {"type": "json_object", "schema": '{"type": "nonsense"}'}}

    async def answers(engine: AsyncMLCEngine, *options: dict[str, Any]) -> list[Any]:
        default = {"messages": HELLO, "max_tokens": 250, "temperature": 0.0}
        return await asyncio.gather(
            *(engine.chat.completions.create(**{**default, **each}) for each in options), return_exceptions=True
        )

    async def talk() -> None:
        engine = AsyncMLCEngine(str(WEIGHTS), model_lib=str(LIBRARY), device="cpu")
        try:
            lost = await answers(engine, {}, {}, bad)
            assert [str(error) for error in lost] == [
                "the engine failed, and with it this request: the server's log says why"
            ] * 3
            assert [
                answer.usage.completion_tokens
                for answer in await answers(engine, {"max_tokens": 30}, {"max_tokens": 31})
            ] == [30, 31]
        finally:
            engine.terminate()

    asyncio.run(talk())


class Loop:
    """An event loop that runs at once what it is given."""

    def call_soon_threadsafe(self, push: Callable[[Exception], None], failure: Exception) -> None:
        push(failure)


class Stream:
    """What a request waits for; calls `told` with the failure."""

    def __init__(self, told: Callable[[str], None]) -> None:
        self.told = told

    def push(self, failure: Exception) -> None:
        self.told(str(failure))


OPTIONS = json.dumps({"top_logprobs": 0, "max_tokens": 1})


def watched_engine(told: Callable[[str], None], **native: Callable[..., Any]) -> engine_watch._Engine:
    """An engine with one open request, "lost", around functions that stand in for native ones."""
    state = SimpleNamespace(
        async_streamers={"lost": (Stream(told), [])}, async_event_loop=Loop(), sync_output_queue=queue.Queue()
    )
    config = SimpleNamespace(max_single_sequence_length=100, max_total_sequence_length=100, max_num_sequence=4)
    watched = engine_watch._Engine(
        SimpleNamespace(state=state, engine_config=config),
        {"create_request": lambda name, inputs, options: name, **native},
    )
    watched.loaded = True
    watched.create_request("lost", [], OPTIONS)
    return watched


def fail(*_: Any) -> None:
    raise RuntimeError("the GPU is lost")


def test_an_engine_that_cannot_be_reset_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread used to end in silence: open requests waited forever, and later ones were accepted."""
    monkeypatch.delenv(engine_watch.EXIT_VARIABLE, raising=False)
    told: list[str] = []
    watched = watched_engine(told.append, run_background_loop=fail, reset=fail, add_request=pytest.fail)
    engine = SimpleNamespace(_watched=watched)
    assert engine_watch.failure(engine) == ""
    watched.run_background_loop()
    assert told == ["the engine failed, and with it this request: the server's log says why"]
    assert engine_watch.failure(engine) == "the engine failed for good, its log says why; restart it"
    with pytest.raises(engine_watch.EngineError, match="failed for good, its log says why; restart it"):
        watched.add_request("next")


class Queue:
    """Upstream's threaded engine: an error drops the instructions that it has taken from its queue, but none after."""

    def __init__(self, steps: int) -> None:
        self.waiting: list[str] = []
        self.steps = steps

    def add_request(self, request: str) -> None:
        self.waiting.append(request)

    def reset(self) -> None:
        self.waiting.append("reset")

    def run_background_loop(self) -> None:
        while self.steps:
            self.steps -= 1
            instruction = self.waiting.pop(0) if self.waiting else ""
            if instruction.startswith("bad"):
                raise RuntimeError(f"Unsupported type nonsense in {instruction}")


@pytest.mark.parametrize("bad", [1, 2, 20])
def test_bad_requests_at_once_do_not_end_an_engine(bad: int) -> None:
    """The second failure happened without a request that was sent after the first, which counted as a dead engine."""
    native, told = Queue(100), list[str]()
    watched = watched_engine(told.append, **{name: getattr(native, name) for name in ("add_request", "reset")})
    watched.native["run_background_loop"] = native.run_background_loop
    for number in range(bad):
        watched.add_request(watched.create_request(f"bad {number} SECRET", [], OPTIONS))
    watched.run_background_loop()
    assert native.steps == 0 and watched.why_dead() == ""
    # Again, later.
    native.steps = 100
    for number in range(bad):
        watched.add_request(watched.create_request(f"bad {number} later", [], OPTIONS))
    watched.run_background_loop()
    assert native.steps == 0 and watched.why_dead() == ""
    assert told and not any("SECRET" in each for each in told)


def test_an_engine_that_fails_without_requests_is_dead_even_after_bad_ones() -> None:
    native = Queue(100)
    watched = watched_engine(lambda _: None, add_request=native.add_request, reset=native.reset)
    watched.native["run_background_loop"] = native.run_background_loop
    for number in range(3):
        watched.add_request(watched.create_request(f"bad {number} SECRET", [], OPTIONS))
    watched.run_background_loop()
    watched.native["run_background_loop"] = fail
    watched.run_background_loop()
    assert watched.why_dead() and "GPU" not in watched.why_dead()


def test_an_engine_that_answers_again_is_not_dead() -> None:
    delivered: list[str] = []
    outputs: list[Callable[[Any], None]] = []
    watched = watched_engine(
        lambda _: None,
        init_threaded_engine=lambda _, deliver, __: outputs.append(deliver),
        add_request=lambda _: None,
        reset=lambda: None,
    )
    watched.init_threaded_engine(None, lambda answers: delivered.extend(answer.request for answer in answers), None)
    assert not watched._is_dead()
    for name in ("one", "two"):
        watched.add_request(watched.create_request(name, [], OPTIONS))
        assert watched.open == {name}
        last = SimpleNamespace(request_final_usage_json_str="{}")
        outputs[0]([SimpleNamespace(unpack=lambda name=name, last=last: (name, [last]))])
        assert watched.open == set() and not watched._is_dead()
    assert delivered == ["one", "two"]
    assert watched._is_dead()


def test_an_output_that_cannot_be_delivered_affects_no_other_request() -> None:
    """The exception left upstream's thread, which then delivered nothing more to anyone."""
    delivered: list[str] = []
    outputs: list[Callable[[Any], None]] = []
    watched = watched_engine(
        lambda _: None, init_threaded_engine=lambda _, deliver, __: outputs.append(deliver), add_request=lambda _: None
    )

    def receive(answers: list[Any]) -> None:
        assert answers[0].request != "broken"
        delivered.extend(answer.request for answer in answers)

    watched.init_threaded_engine(None, receive, None)
    part = SimpleNamespace(request_final_usage_json_str="{}")
    outputs[0]([SimpleNamespace(unpack=lambda name=name: (name, [part])) for name in ("one", "broken", "two")])
    outputs[0]([SimpleNamespace(unpack=fail), SimpleNamespace(unpack=lambda: ("three", [part]))])
    assert delivered == ["one", "two", "three"]


def test_an_answer_that_cannot_be_read_fails_one_request_alone() -> None:
    """Upstream dropped the outputs behind it: other clients lost text, or the end of their answer."""
    pushed: dict[str, list[Any]] = {"broken": [], "other": []}

    def streamer(name: str) -> tuple[Any, list[Any]]:
        stream = SimpleNamespace(push=pushed[name].append, finish=lambda: pushed[name].append("end"))
        put = fail if name == "broken" else lambda _: "text"
        return stream, [SimpleNamespace(put=put, finish=lambda: "")]

    def output(name: str, usage: str | None) -> Any:
        part = SimpleNamespace(
            request_final_usage_json_str=usage,
            extra_prefix_string="",
            delta_token_ids=[1],
            delta_logprob_json_strs=None,
            finish_reason=None,
        )
        return SimpleNamespace(unpack=lambda: (name, [part]))

    state = engine_base.EngineState(False)
    state.async_streamers = {name: streamer(name) for name in pushed}
    state._async_request_stream_callback_impl(
        [output(name, usage) for usage in (None, "{}") for name in ("broken", "other")]
    )
    (failure,) = pushed["broken"]
    assert isinstance(failure, engine_watch.EngineError) and "GPU" not in str(failure)
    text, usage, end = pushed["other"]
    assert text[0].delta_text == "text" and usage[0].request_final_usage_json_str == "{}" and end == "end"
    assert state.async_streamers == {}


@pytest.mark.parametrize(
    ("prompt", "choices", "tokens"), [(1, 1, 495), (1, 2, 223), (33, 2, 207), (1, 4, 95), (1, 128, 95)]
)
def test_all_answers_to_a_prompt_fit_the_cache(prompt: int, choices: int, tokens: int) -> None:
    """Upstream's engine failed for everyone where two answers filled the KV cache."""
    config = SimpleNamespace(max_single_sequence_length=512, max_total_sequence_length=512, max_num_sequence=4)
    assert engine_watch._room(config, prompt, choices) == tokens


def never_ending(engine: MLCEngine) -> dict[int, int]:
    """A bias with which the model writes one letter until it may write no more."""
    letter = next(token for token in range(5, 320) if engine.tokenizer.decode([token]) == "x")
    return {letter: 100}


@pytest.mark.parametrize("choices", [2, 3, 4, 9])
def test_several_answers_that_fill_the_cache_do_not_fail_the_engine(engine: MLCEngine, choices: int) -> None:
    answer = engine.completions.create(
        prompt="a", n=choices, max_tokens=400, temperature=0.0, logit_bias=never_ending(engine)
    )
    assert [choice.finish_reason for choice in answer.choices] == ["length"] * choices
    with pytest.raises(BadRequestError, match="no room for 2 answers to a prompt of 460 tokens"):
        engine.completions.create(prompt=[5] * 460, n=2, max_tokens=40)


def test_requests_that_give_way_to_each_other_do_not_fail_the_engine(engine: MLCEngine) -> None:
    """Three answers of 490 tokens do not fit the cache, so two wait. Upstream told the prefix cache twice of their
    tokens, and the engine failed with 'fork_pos <= parent_it->second.seq_length'.
    """
    bias = never_ending(engine)

    async def talk() -> list[Any]:
        engine = AsyncMLCEngine(str(WEIGHTS), model_lib=str(LIBRARY), device="cpu")
        try:
            asked = [
                engine.completions.create(prompt="a", max_tokens=490, temperature=0.0, logit_bias=bias)
                for _ in range(3)
            ]
            return await asyncio.gather(*asked)
        finally:
            engine.terminate()

    texts = [answer.choices[0].text for answer in asyncio.run(talk())]
    assert len(texts[0]) == 490 and texts == [texts[0]] * 3


def test_several_choices_may_ask_for_log_probabilities(ask: Callable[..., Any]) -> None:
    """Upstream read the probabilities of the second choice from beyond the tensor, and the process crashed."""
    answer = ask(n=4, logprobs=True, top_logprobs=5, temperature=1.0, top_p=1.0, seed=1, max_tokens=30)
    first = [choice.logprobs.content[0] for choice in answer.choices]
    # All choices take their first token from the same probabilities, the prompt's.
    best = [[(top.token, top.logprob) for top in content.top_logprobs] for content in first]
    assert best == [best[0]] * 4 and len(best[0]) == 5
    for choice in answer.choices:
        for content in choice.logprobs.content:
            logprobs = [top.logprob for top in content.top_logprobs]
            assert logprobs == sorted(logprobs, reverse=True) and logprobs[0] >= content.logprob


@pytest.mark.parametrize("seed", range(4))
def test_broken_text_is_replaced(engine: MLCEngine, ask: Callable[..., Any], seed: int) -> None:
    """Upstream's streamer threw `basic_string::substr` where bytes became a character again without their last one."""
    bytes_of_characters = {token: 20 for token in range(5, 320) if engine.tokenizer.decode([token]) == "\ufffd"}
    assert len(bytes_of_characters) == 128
    answer = ask(max_tokens=200, temperature=1.0, seed=seed, logit_bias=bytes_of_characters)
    assert answer.choices[0].finish_reason == "length"
    assert "\ufffd" in text(answer)


@pytest.mark.parametrize(
    "data", [b"\xb8\xf0\xb8\x80\x80\x80", b"\x8a\xd3\xaf\xd1\xcd\xbe", b"\xff" * 9, b"\xe4\xb8\xad\xff\xe4\xb8\xad"]
)
def test_a_streamer_reads_any_bytes(engine: MLCEngine, data: bytes) -> None:
    """Upstream's threw an exception for the first two."""
    first = min(token for token in range(5, 320) if engine.tokenizer.decode([token]) == "\ufffd") - 0x80
    streamer = TextStreamer(engine.tokenizer)
    assert "".join(streamer.put([first + byte]) for byte in data) + streamer.finish()
    streamer = TextStreamer(engine.tokenizer)
    assert "".join(streamer.put([first + byte]) for byte in "中é😀".encode()) + streamer.finish() == "中é😀"


def test_a_program_whose_engine_is_dead_ends_if_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    signals: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *arguments: signals.append(arguments))
    monkeypatch.setenv(engine_watch.EXIT_VARIABLE, "1")
    watched_engine(lambda _: None, run_background_loop=fail, reset=fail).run_background_loop()
    assert signals == [(os.getpid(), signal.SIGTERM)]


def test_a_request_sent_as_soon_as_another_is_lost_is_not_lost() -> None:
    """On a busy machine a client may continue before the engine's thread: its next request was never answered."""
    told: list[str] = []

    def hear(failure: str) -> None:
        told.append(failure)
        watched.create_request("next", [], OPTIONS)

    watched = watched_engine(hear)
    watched._lose_requests(RuntimeError("failed"))
    assert told == ["the engine failed, and with it this request: the server's log says why"]
    assert watched.lost == {"lost"}
    # A second failure, before "next" is added to the engine: it will be, and is answered.
    watched._lose_requests(RuntimeError("failed"))
    assert watched.lost == {"lost"}


def test_the_same_seed_gives_the_same_answer(ask: Callable[..., Any]) -> None:
    first, again, other = (text(ask(temperature=1.0, seed=seed)) for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_concurrent_requests_are_answered_as_one_by_one(engine: MLCEngine) -> None:
    """Sends more requests than the engine runs together (4), of different lengths, greedy and sampled.

    Uses the asynchronous engine: upstream's synchronous one has one queue for all answers and does not support several
    threads.
    """
    requests: list[dict[str, Any]] = [
        {
            "messages": [{"role": "user", "content": "one two three " * count}],
            "max_tokens": 10 + 3 * count,
            "temperature": temperature,
            "seed": count,
        }
        for count in range(1, 5)
        for temperature in (0.0, 1.0)
    ]
    expected = [text(engine.chat.completions.create(**request)) for request in requests]
    assert len(set(expected)) == len(expected)

    async def all_at_once() -> list[str]:
        engine = AsyncMLCEngine(str(WEIGHTS), model_lib=str(LIBRARY), device="cpu")
        try:
            return [
                text(answer)
                for answer in await asyncio.gather(*(engine.chat.completions.create(**request) for request in requests))
            ]
        finally:
            engine.terminate()

    assert asyncio.run(all_at_once()) == expected


def test_a_second_turn_is_answered_as_if_the_chat_were_new(engine: MLCEngine, ask: Callable[..., Any]) -> None:
    """The engine computes only the new part of the second turn."""
    first = ask()
    chat = [*HELLO, {"role": "assistant", "content": "a fox"}, {"role": "user", "content": "where is the dog"}]
    cached = ask(chat)
    assert cached.usage.extra["prefill_tokens"] < cached.usage.prompt_tokens
    engine.reset()
    fresh = ask(chat)
    assert fresh.usage.extra["prefill_tokens"] == fresh.usage.prompt_tokens > first.usage.prompt_tokens
    assert text(cached) == text(fresh)


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_ends_before_the_stop_text(ask: Callable[..., Any], stream: bool) -> None:
    whole = text(ask())
    stop = whole[-4:-2]
    assert whole.count(stop) == 1
    answer = ask(stop=stop, stream=stream)
    if stream:
        choices = [piece.choices[0] for piece in answer if piece.choices]
        assert "".join(choice.delta.content for choice in choices) == whole.partition(stop)[0]
        assert choices[-1].finish_reason == "stop"
    else:
        assert text(answer) == whole.partition(stop)[0]
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage.completion_tokens < 20
        assert answer.usage.prompt_tokens == ask().usage.prompt_tokens
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_an_answer_that_a_stop_ends_keeps_the_prompt_in_the_cache(engine: MLCEngine, ask: Callable[..., Any]) -> None:
    """Each turn of an agent, which stops at texts, would read the whole chat again."""
    engine.reset()
    whole = text(ask())
    engine.reset()
    first = ask(stop=whole[2:4])
    again = ask(stop=whole[2:4])
    assert first.usage.extra["prefill_tokens"] > 16 > again.usage.extra["prefill_tokens"]


def test_an_endless_answer_has_no_stops(ask: Callable[..., Any]) -> None:
    whole = text(ask())
    assert text(ask(stop=whole[-4:-2], extra_body={"debug_config": {"ignore_eos": True}})) == whole


@pytest.fixture(scope="module")
def pieces(engine: MLCEngine) -> dict[int, str]:
    """Tokens of at least two letters."""
    texts = {token: engine.tokenizer.decode([token]) for token in range(5, 320)}
    return {token: text for token, text in texts.items() if len(text) > 1 and text.isascii() and text.isalpha()}


def test_each_token_has_its_log_probability(ask: Callable[..., Any], pieces: dict[int, str]) -> None:
    answer = ask(temperature=1.0, seed=2, logprobs=True, top_logprobs=4, logit_bias=dict.fromkeys(pieces, 50))
    steps = answer.choices[0].logprobs.content
    assert len(steps) == answer.usage.completion_tokens == 20
    for step in steps:
        best = [each.logprob for each in step.top_logprobs]
        assert len(best) == 4 and best == sorted(best, reverse=True)
        assert step.logprob <= best[0] <= 0
    assert ask().choices[0].logprobs is None


@pytest.mark.parametrize("seed", range(6))
def test_log_probabilities_are_of_the_bytes_of_the_answer(ask: Callable[..., Any], seed: int) -> None:
    """Upstream drops an output without text, such as one with the first bytes of a character, and a token's spaces."""
    answer = ask(temperature=1.0, seed=seed, logprobs=True)
    steps = answer.choices[0].logprobs.content
    ended = answer.choices[0].finish_reason == "stop"  # The token of the end is no part of the answer.
    assert len(steps) == answer.usage.completion_tokens - ended
    for step in steps:
        assert step.token.startswith("bytes:") or step.token.encode() == bytes(step.bytes)


def test_log_probabilities_join_to_the_answer(engine: MLCEngine, ask: Callable[..., Any]) -> None:
    texts = {token: engine.tokenizer.decode([token, token]) for token in range(5, 320)}
    spaced = [token for token, text in texts.items() if " " in text and text.isascii()]
    answer = ask(temperature=1.0, seed=1, logprobs=True, logit_bias=dict.fromkeys(spaced, 90))
    assert " " in text(answer)
    assert "".join(step.token for step in answer.choices[0].logprobs.content) == text(answer)


def test_more_best_tokens_than_the_engine_has_are_refused(ask: Callable[..., Any]) -> None:
    """Upstream accepts up to 20, as OpenAI does, but its engine dies at more than 5."""
    assert len(ask(max_tokens=1, logprobs=True, top_logprobs=5).choices[0].logprobs.content[0].top_logprobs) == 5
    with pytest.raises(BadRequestError, match="top_logprobs: expected at most 5, found 6"):
        ask(logprobs=True, top_logprobs=6)


def test_a_bias_forces_a_token(ask: Callable[..., Any], pieces: dict[int, str]) -> None:
    token, piece = min(pieces.items())
    assert text(ask(max_tokens=3, logit_bias={token: 100})).replace(" ", "") == piece * 3


def test_a_bias_outside_of_the_vocabulary_is_refused(ask: Callable[..., Any]) -> None:
    """Upstream writes outside of the array."""
    with pytest.raises(BadRequestError, match="expected tokens from 0 to 319, found 320"):
        ask(logit_bias={320: 1})


@pytest.mark.parametrize(("option", "value"), [("n", 0), ("top_p", 1.5), ("temperature", -1.0)])
def test_an_option_out_of_range_is_refused(ask: Callable[..., Any], option: str, value: float) -> None:
    with pytest.raises(BadRequestError, match=f'"{option}" should be'):
        ask(**{option: value})


def test_a_prompt_longer_than_the_context_is_refused(ask: Callable[..., Any]) -> None:
    with pytest.raises(BadRequestError, match=r"\d+ tokens in total, larger than the model input length limit 495"):
        ask([{"role": "user", "content": "hello " * 512}])


def test_an_answer_that_fills_the_context_ends(engine: MLCEngine, ask: Callable[..., Any]) -> None:
    """By default upstream's KV cache has as many tokens as the context, and its engine dies when a request reaches the
    last page.
    """
    before = text(ask())
    words = 60
    while len(engine.tokenizer.encode(chatml(("user", "river " * words)))) < 485:
        words += 1
    prompt = [{"role": "user", "content": "river " * words}]
    answer = ask(prompt, max_tokens=None, extra_body={"debug_config": {"ignore_eos": True}})
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.total_tokens == 496
    assert text(ask()) == before


def test_a_completion_continues_its_prompt(engine: MLCEngine) -> None:
    """The prompt may be text or tokens."""
    prompt = "the quick brown fox"
    answer = engine.completions.create(prompt=prompt, max_tokens=12, temperature=0.0)
    tokens = engine.completions.create(prompt=engine.tokenizer.encode(prompt), max_tokens=12, temperature=0.0)
    assert answer.choices[0].text == tokens.choices[0].text
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len(engine.tokenizer.encode(prompt)), 12)
