"""Paths of the tiny model from //models/tiny, under Bazel and in the image, and the environment of child processes."""

from __future__ import annotations

import contextlib
import http.server
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent


def _place(variable: str, name: str) -> Path:
    """Bazel sets a variable, relative to the runfiles, where tests run. In the image the model is next to this file."""
    path = Path(os.environ.get(variable, HERE / name)).absolute()
    assert path.exists(), f"{path}: expected a part of //models/tiny, found nothing; set {variable}"
    return path


WEIGHTS = _place("MLC_TINY_WEIGHTS", "tiny")
"""Folder of mlc-chat-config.json, weight shards and tokenizer: quantisation q0f32, template chatml, context 512, batch
4, chunk 128.
"""

LIBRARY = _place("MLC_TINY_LIBRARY", "tiny.so")
CHECKPOINT = _place("MLC_TINY_CHECKPOINT", "checkpoint")
"""Folder of config.json and model.safetensors."""

SYSTEM_MESSAGE = (
    "A conversation between a user and an LLM-based AI assistant. The assistant gives helpful and honest answers."
)
"""The system message of mlc-llm's template chatml."""


def chatml(*messages: tuple[str, str]) -> str:
    """The prompt that the template chatml makes of messages (role, text), up to the assistant's answer."""
    turns = [("system", SYSTEM_MESSAGE), *messages]
    return "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns) + "<|im_start|>assistant\n"


def child_environment(home: Path) -> dict[str, str]:
    """An environment in which Python imports the same packages and sees nothing else of the machine."""
    return {
        "HOME": str(home),
        "PATH": "/nonexistent",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYTHONUNBUFFERED": "1",
        # Servers use as many threads as the test, because spinning threads slow each other down.
        **{name: os.environ[name] for name in ("OMP_NUM_THREADS", "TVM_NUM_THREADS") if name in os.environ},
    }


@contextlib.contextmanager
def tiny_hub(repository: str) -> Iterator[tuple[str, list[str]]]:
    """A hub on loopback with the tiny model as `repository`, and nothing else.

    Yields:
        Its address, and the revisions that it was asked for.
    """
    revisions: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            place, _, rest = self.path[1:].partition("/resolve/")
            revision, _, name = rest.partition("/")
            revisions.append(revision)
            found = place == repository and (WEIGHTS / name).is_file()
            content = (WEIGHTS / name).read_bytes() if found else b""
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", revisions
        server.shutdown()
