"""A server of mlc-llm in a process of its own, with its own Python packages: clients pin other versions of them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pydantic
import pytest
from openai.types import Completion, CreateEmbeddingResponse, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk

MODEL = Path(os.environ["MLC_CLIENTS_WEIGHTS"]).absolute()
LIBRARY = Path(os.environ["MLC_CLIENTS_LIBRARY"]).absolute()
ENVIRONMENTS = [str(Path(each).absolute()) for each in os.environ["MLC_SERVER_ENVIRONMENTS"].split(":")]

PATIENCE = 600
"""Seconds after which a process counts as hanging; a start takes three."""


class Server:
    """A server on loopback, which prints to a file."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"
        self.log = folder / "log.txt"
        port = self.url.rpartition(":")[2]
        options = ["--device", "cpu", "--host", "127.0.0.1", "--port", port, "--overrides", "max_total_seq_length=8192"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "mlc_llm", "serve", str(MODEL), "--model-lib", str(LIBRARY), *options],
                cwd=folder,
                env={
                    "HOME": str(folder),
                    "PATH": "/nonexistent",
                    "PYTHONDONTWRITEBYTECODE": "1",
                    "PYTHONPATH": os.pathsep.join(ENVIRONMENTS),
                    # Spinning threads slow each other down.
                    "OMP_NUM_THREADS": "1",
                    "TVM_NUM_THREADS": "1",
                },
                stdout=log,
                stderr=log,
            )

    def wait(self) -> None:
        """Waits until its model is loaded."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                if httpx.get(self.url + "/health/ready", timeout=PATIENCE).is_success:
                    return
            except httpx.ConnectError:
                pass
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.1)
        pytest.fail(f"does not serve: {self.log.read_text()}")

    def answers(self) -> bool:
        """Whether the engine still answers."""
        body = {"model": "x", "prompt": "a", "max_tokens": 1}
        return httpx.post(self.url + "/v1/completions", json=body, timeout=PATIENCE).status_code == 200


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    try:
        server.wait()
        yield server
        assert "Traceback" not in server.log.read_text()
    finally:
        server.process.kill()
        server.process.wait()


ANSWERS: dict[str, tuple[type[openai.BaseModel], type[openai.BaseModel]]] = {
    "/v1/chat/completions": (ChatCompletion, ChatCompletionChunk),
    "/v1/completions": (Completion, Completion),
    "/v1/embeddings": (CreateEmbeddingResponse, CreateEmbeddingResponse),
}


def check(response: httpx.Response) -> None:
    """Compares an answer with OpenAI's own types, strictly: no field is missing, of another type, or unknown."""
    text = response.read().decode()
    path = response.request.url.path
    if response.status_code != 200:
        error = json.loads(text)["error"]
        assert set(error) == {"message", "type", "param", "code"}, error
        assert isinstance(error["message"], str) and "\n" not in error["message"]
        return
    if response.headers["content-type"].startswith("text/event-stream"):
        *events, done, nothing = text.split("\n\n")
        assert (done, nothing) == ("data: [DONE]", "")
        for event in events:
            # The package has no type for a streamed part of a completion, whose reason is null until the last one.
            whole = event.replace('"finish_reason":null', '"finish_reason":"stop"') if "chat" not in path else event
            check_object(ANSWERS[path][1], whole.removeprefix("data: "))
    elif path == "/v1/models":
        for each in json.loads(text)["data"]:
            check_object(Model, json.dumps(each))
    else:
        check_object(ANSWERS[path][0] if path in ANSWERS else Model, text)


def check_object(kind: type[openai.BaseModel], text: str) -> None:
    waiting: list[Any] = [kind.model_validate_json(text, strict=True)]
    while waiting:
        each = waiting.pop()
        if isinstance(each, pydantic.BaseModel):
            assert not each.model_extra, f"{type(each).__name__} has no {', '.join(each.model_extra)}"
            waiting += [getattr(each, name) for name in type(each).model_fields]
        elif isinstance(each, list):
            waiting += each


def checked_client() -> httpx.Client:
    """A client of HTTP that checks every answer."""
    return httpx.Client(event_hooks={"response": [check]}, timeout=PATIENCE)


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    """OpenAI's client, which checks every answer."""
    with openai.OpenAI(
        base_url=server.url + "/v1", api_key="none", max_retries=0, http_client=checked_client()
    ) as client:
        yield client
