"""`mlc_llm serve` says whether it takes requests, drains on SIGTERM, and ends whatever is stuck."""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import signal
from pathlib import Path

import pytest
from application import Service
from serving import PATIENCE, Server
from tiny_model_files import WEIGHTS

STREAMS = 32
"""The engine works on four of them at a time."""

LOAD_FOREVER = """
import threading
from mlc_llm._mlc_bazel import engine_watch
engine_watch._Engine.reload = lambda *_: threading.Event().wait()
"""

# The engine hears of requests when there is a file "go" in the server's folder: it could answer all before the server
# ends.
HOLD_REQUESTS = """
import threading, time
from pathlib import Path
from mlc_llm._mlc_bazel import engine_watch
held, add = [], engine_watch._Engine.add_request
def give():
    while not Path("go").exists():
        time.sleep(0.01)
    for engine, arguments in held:
        add(engine, *arguments)
def hold(*arguments):
    held.append((arguments[0], arguments[1:]))
    if len(held) == 32:
        print("HELD", flush=True)
        threading.Thread(target=give).start()
engine_watch._Engine.add_request = hold
"""

# The engine never hears of requests.
LOSE_REQUESTS = """
from mlc_llm._mlc_bazel import engine_watch
engine_watch._Engine.add_request = lambda *_: print("GIVEN")
"""

# The thread that answers all clients and runs Python's signal handlers does not return.
BLOCK_THE_LOOP = """
import time
from mlc_llm._mlc_bazel import engine_watch
engine_watch._Engine.add_request = lambda *_: (print("GIVEN"), time.sleep(10**6))
"""

# Requests have gone, but the engine's threads do not end.
NEVER_TERMINATE = """
import threading
from mlc_llm.serve.server import ServerContext
ServerContext.__exit__ = lambda *_: threading.Event().wait()
"""

READY = {"status": "ok", "models": [str(WEIGHTS)]}
REFUSED = {"type": "service_unavailable", "param": None, "code": None}


def start_stream(server: Server, max_tokens: int = 8) -> http.client.HTTPConnection:
    """Sends a request for a stream."""
    host, _, port = server.address.removeprefix("http://").rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=PATIENCE)
    request = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": max_tokens, "stream": True}
    connection.request("POST", "/v1/chat/completions", json.dumps(request), {"Content-Type": "application/json"})
    return connection


def read_stream(connection: http.client.HTTPConnection) -> list[str]:
    """Returns the events of a stream until its orderly end."""
    answer = connection.getresponse()
    assert answer.status == 200
    return [line.removeprefix("data: ") for line in answer.read().decode().splitlines() if line]


def assert_refused(server: Server, message: str) -> None:
    """New requests are refused so that clients ask again, and another server if there is one."""
    status, headers, body = server.ask("/v1/models")
    assert (status, headers["retry-after"], headers["connection"]) == (503, "1", "close")
    assert json.loads(body) == {"error": {"message": message, **REFUSED}}


def test_32_streams_end_normally_while_the_server_drains(tmp_path: Path) -> None:
    with Server(tmp_path, "--shutdown-timeout", str(PATIENCE), change=HOLD_REQUESTS) as server:
        server.wait()
        assert json.loads(server.get("/health")) == json.loads(server.get("/health/ready")) == READY
        streams = [start_stream(server, max_tokens=400) for _ in range(STREAMS)]
        server.until(lambda: "HELD" in server.log.read_text())
        server.process.send_signal(signal.SIGTERM)
        server.until(lambda: server.status("/health/ready") == 503)
        assert json.loads(server.ask("/health/ready")[2])["error"]["message"] == "the server is shutting down"
        assert (server.status("/health"), server.status("/health/live")) == (503, 200)
        assert_refused(server, "the server is shutting down")
        (tmp_path / "go").touch()
        with concurrent.futures.ThreadPoolExecutor(STREAMS) as pool:
            for events in pool.map(read_stream, streams):
                assert events[-1] == "[DONE]"
                assert json.loads(events[-2])["choices"][0]["finish_reason"] in ("length", "stop")
        assert server.process.wait(PATIENCE) == 0
        assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize("change", [LOSE_REQUESTS, BLOCK_THE_LOOP], ids=["request", "loop"])
def test_a_stuck_request_does_not_keep_the_server(tmp_path: Path, change: str) -> None:
    """It kept the process for ever."""
    with Server(tmp_path, "--shutdown-timeout", "0.5", change=change) as server:
        server.wait()
        stream = start_stream(server)
        server.until(lambda: "GIVEN" in server.log.read_text())
        assert server.terminate() == 0
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            read_stream(stream)
        if change == LOSE_REQUESTS:
            assert "1 requests have not ended in 0.5 s and are cut off" in server.log.read_text()


def test_an_engine_that_does_not_end_does_not_keep_the_server(tmp_path: Path) -> None:
    with Server(tmp_path, "--shutdown-timeout", "0.5", change=NEVER_TERMINATE) as server:
        server.wait()
        assert server.terminate() == 0


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_the_server_at_once(tmp_path: Path, sent: signal.Signals) -> None:
    with Server(tmp_path, "--shutdown-timeout", str(10 * PATIENCE), change=LOSE_REQUESTS) as server:
        server.wait()
        _stream = start_stream(server)
        server.until(lambda: "GIVEN" in server.log.read_text())
        server.process.send_signal(sent)
        server.until(lambda: server.status("/health/ready") == 503)
        server.process.send_signal(sent)
        assert server.process.wait(PATIENCE) == 0


def test_a_server_that_loads_is_alive_but_takes_no_requests_and_ends_at_once(tmp_path: Path) -> None:
    """Nothing answered while the model was loaded."""
    with Server(tmp_path, "--shutdown-timeout", str(10 * PATIENCE), change=LOAD_FOREVER) as server:
        server.until(lambda: server.status("/health/live") == 200)
        assert (server.status("/health/ready"), server.status("/health")) == (503, 503)
        assert_refused(server, "the model is being loaded")
        for path in ("/health", "/health/ready"):
            assert json.loads(server.ask(path)[2])["error"]["message"] == "the model is being loaded"
        # A scrape before the first request is no error.
        assert server.status("/metrics") == 200
        assert server.terminate() == 0


def test_a_model_that_cannot_be_loaded_ends_the_server(tmp_path: Path) -> None:
    with Server(tmp_path, "--model-lib", str(tmp_path / "none.so")) as server:
        assert server.process.wait(PATIENCE) == 1
        assert "none.so" in server.log.read_text().splitlines()[-1]


def test_a_server_whose_engine_is_dead_ends_with_an_error_if_asked_to(tmp_path: Path) -> None:
    """So that a supervisor that restarts only what failed starts it again."""
    change = """
import os
from mlc_llm._mlc_bazel import engine_watch
os.environ[engine_watch.EXIT_VARIABLE] = "1"
engine_watch._Engine.add_request = lambda engine, _: engine._die(RuntimeError("the GPU is lost"))
"""
    with Server(tmp_path, change=change) as server:
        server.wait()
        _stream = start_stream(server)
        assert server.process.wait(PATIENCE) == 1
        assert "The engine failed for good: the GPU is lost" in server.log.read_text()


@pytest.mark.parametrize("port", ["-1", "65536", "99999"])
def test_a_port_that_is_none_is_refused(
    port: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        Service(monkeypatch)(f"--port={port}")
    assert f"argument --port: expected a number from 0 to 65535, found {port}" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", ["-1", "x", "nan", "inf"])
def test_a_time_that_is_none_is_refused(
    seconds: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        Service(monkeypatch)(f"--shutdown-timeout={seconds}")
    assert f"argument --shutdown-timeout: invalid seconds value: '{seconds}'" in capsys.readouterr().err
