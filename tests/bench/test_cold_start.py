"""Cold starts are measured with the images that they name, and through the link that they name."""

from __future__ import annotations

import http.server
import json
import pathlib
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator

import cold_start
import pytest

from oci.layout import Image

CONTENT = bytes(range(256)) * 4096


@pytest.fixture
def port() -> Iterator[int]:
    """A server on loopback that answers with CONTENT."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def read(port: int) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
        return answer.read()


def test_the_link_passes_on_what_it_gets(port: int) -> None:
    with cold_start.Link(port, 1 << 40) as link:
        assert [read(link.port) for _ in range(3)] == [CONTENT] * 3


def test_the_link_waits_as_long_as_its_rate_takes(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    with cold_start.Link(port, len(CONTENT) // 4) as link:
        read(link.port)
        # No time passes meanwhile: the second answer waits for the first.
        read(link.port)
    assert 8 <= max(waited) < 8.1


def test_llama_cpps_image_has_the_root_and_the_model(tmp_path: pathlib.Path) -> None:
    root = tmp_path / "root"
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/llama-server").write_text("program")
    (root / "usr/bin/llama-server").chmod(0o755)
    (tmp_path / "model").write_bytes(b"weights")
    cold_start.llama_image(root, tmp_path / "model", tmp_path / "image")
    image = Image(tmp_path / "image")
    assert image.files["model.gguf"].data == b"weights"
    # As extracted packages leave it out.
    assert image.resolve("bin/llama-server") == "usr/bin/llama-server"
    assert image.files["usr/bin/llama-server"].entry.mode == 0o755
    assert json.dumps(image.config["config"]["Cmd"]) == '["-m", "/model.gguf"]'


class Server(http.server.BaseHTTPRequestHandler):
    """Answers a question with these events, and anything else with 200."""

    status, events = 200, ""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(self.events.encode())

    def log_message(self, *_: object) -> None:
        pass


ROLE = 'data: {"choices": [{"delta": {"role": "assistant", "content": ""}}]}\n\n'
TEXT = 'data: {"choices": [{"delta": {"content": "Paris"}}]}\n\n'


@pytest.mark.parametrize(
    ("status", "events", "found"),
    [
        (200, ROLE + TEXT + "data: [DONE]\n\n", TEXT[:-1]),
        (200, ROLE + 'data: {"error": {"message": "the engine failed"}}\n\n', "the engine failed"),
        (200, ROLE + "data: [DONE]\n\n", "found status 200"),
        (503, '{"error": "loading"}', "found status 503.*loading"),
    ],
)
def test_the_first_piece_has_text(status: int, events: str, found: str) -> None:
    handler = type("Handler", (Server,), {"status": status, "events": events})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]
        if found == TEXT[:-1]:
            assert cold_start.first_piece(port) == found.encode()
        else:
            with pytest.raises(SystemExit, match=found):
                cold_start.first_piece(port)
        server.shutdown()


PODMAN = """\
import os, pathlib, sys
folder = pathlib.Path(sys.argv[1])
store, words = sys.argv[2].removeprefix("--root="), sys.argv[4:]
with (folder / "said").open("a") as said:
    said.write(" ".join(words[:1]) + "\\n")
if words[0] == "run":
    print("name")
elif words[0] == "inspect":
    print("false")
elif words[0] == "logs":
    print("cannot load the model")
elif words[0] == "pull":
    os.makedirs(store)
"""


def test_a_container_that_ends_is_reported_with_its_log(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cold_start, "_LOOK", 2)
    (tmp_path / "podman.py").write_text(PODMAN)
    podman = [sys.executable, str(tmp_path / "podman.py"), str(tmp_path)]
    with (
        pytest.raises(SystemExit, match="cannot load the model"),
        cold_start.store(podman, tmp_path / "store") as command,
    ):
        cold_start.start(command, "host/image", [], "/health")
    # Nothing is left, and the container is gone.
    assert not (tmp_path / "store").exists()
    said = (tmp_path / "said").read_text().split()
    assert (said[:2], [word for word in said if word in ("logs", "rm")]) == (["pull", "run"], ["logs", "rm"])
