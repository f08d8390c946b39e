"""/health/live and /health/ready say what an orchestrator should do with the server."""

from __future__ import annotations

import concurrent.futures
import json
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
from application import Service, ask
from mlc_llm._mlc_bazel import access, engine_watch, health
from mlc_llm.serve.server import ServerContext


class Native:
    """The functions of a native engine that answers questions, or does not."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers = True
        self.deliver: Any = None

    def functions(self) -> dict[str, Any]:
        return {"create_request": self.create, "add_request": self.add, "init_threaded_engine": self.init}

    def init(self, _device: Any, deliver: Any, _recorder: Any) -> None:
        self.deliver = deliver

    def create(self, name: str, inputs: Any, config: str) -> str:
        assert inputs == [] and json.loads(config)["debug_config"] == {"special_request": "query_engine_metrics"}
        return name

    def add(self, request: str) -> None:
        self.asked.append(request)
        if self.answers:
            self.answer(request)

    def answer(self, request: str) -> None:
        output = SimpleNamespace(unpack=lambda: (request, [SimpleNamespace(request_final_usage_json_str="{}")]))
        thread = threading.Thread(target=self.deliver, args=([output],))  # As the engine does.
        thread.start()
        thread.join()


@pytest.fixture
def native() -> Native:
    return Native()


@pytest.fixture
def watched(native: Native) -> engine_watch._Engine:
    watched = engine_watch._Engine(SimpleNamespace(), native.functions())
    watched.init_threaded_engine(None, pytest.fail, None)
    return watched


@pytest.fixture
def app(watched: engine_watch._Engine, monkeypatch: pytest.MonkeyPatch) -> access.Guard:
    app = Service(monkeypatch)("--api-key=secret")
    # The model of the service ended with it.
    ServerContext.current()._models["model"] = SimpleNamespace(_watched=watched)
    return app


def states(app: access.Guard) -> dict[str, tuple[int, str]]:
    """Asks all paths with GET, and checks that HEAD gives the same."""
    found = {}
    for path in health.PATHS:
        status, headers, body = ask(app, path)
        assert ask(app, path, "HEAD")[:2] == (status, headers)
        found[path] = status, json.loads(body).get("error", {}).get("message", "")
    assert found["/health"] == found["/health/ready"]
    return found


def test_an_engine_that_answers_is_alive_and_ready(app: access.Guard, native: Native) -> None:
    assert {status for status, _ in states(app).values()} == {200}
    assert json.loads(ask(app, "/health")[2]) == {"status": "ok", "models": ["model"]}
    assert set(native.asked) == {engine_watch.QUESTION}


@pytest.mark.parametrize("reason", ["the model is being loaded", "the server is shutting down"])
def test_a_server_that_loads_or_drains_is_alive(
    app: access.Guard, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "unready", reason)
    assert states(app) == {"/health/live": (200, ""), "/health/ready": (503, reason), "/health": (503, reason)}


def test_a_dead_engine_is_neither(app: access.Guard, watched: engine_watch._Engine, native: Native) -> None:
    watched.dead = RuntimeError("SECRET")
    found = set(states(app).values())
    assert found == {(503, "model: the engine failed for good, its log says why; restart it")}
    assert native.asked == []


def test_a_stuck_engine_is_neither_once_its_time_is_over(
    app: access.Guard, watched: engine_watch._Engine, native: Native, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "ANSWER_SECONDS", 0.01)
    native.answers = False
    # A long step.
    assert {status for status, _ in states(app).values()} == {200}
    assert native.asked == [engine_watch.QUESTION]
    assert watched.question is not None
    watched.question.asked -= health.STUCK_SECONDS
    assert set(states(app).values()) == {(503, "model: the engine has not answered for 600 s; restart it")}
    # It works again.
    native.answer(engine_watch.QUESTION)
    native.answers = True
    assert {status for status, _ in states(app).values()} == {200}


def test_a_question_that_a_failure_takes_with_it_is_asked_again(
    app: access.Guard, watched: engine_watch._Engine, native: Native, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched.question = lost = engine_watch.Question(time.monotonic() - 1000, concurrent.futures.Future())
    state = SimpleNamespace(async_streamers={}, async_event_loop=None, sync_output_queue=SimpleNamespace(put=id))
    watched.engine.state = state
    watched._lose_requests(RuntimeError("failed"))
    assert lost.answer.cancelled()
    assert {status for status, _ in states(app).values()} == {200}
