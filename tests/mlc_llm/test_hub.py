"""A model on a hub is downloaded whole and checked, or refused; nothing is written outside of its folder."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import errno
import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlc_llm._mlc_bazel import home as home_module
from mlc_llm._mlc_bazel import hub, model_check
from mlc_llm.support import auto_config, constants, download_cache
from tiny_model_files import LIBRARY, WEIGHTS, child_environment

from mlc_llm import MLCEngine

CONFIG, SHARD, CACHE = "mlc-chat-config.json", "params_shard_0.bin", "tensor-cache.json"
ADDRESS = "HF://owner/tiny-MLC"
COMMIT = "c" * 40
TINY = {path.name: path.read_bytes() for path in WEIGHTS.iterdir()}
Answer = Callable[[http.server.BaseHTTPRequestHandler, bytes], None]


@dataclasses.dataclass
class Hub:
    """A hub with one repository.

    Args:
        address: of the hub.
        files: the repository's, by name.
        answers: what it does instead of sending a file, by name, once each.
        requests: path and headers of each request.
        waits: how long the download waited before each further try, by its own clock.
    """

    address: str
    files: dict[str, bytes]
    answers: dict[str, list[Answer]] = dataclasses.field(default_factory=dict)
    requests: list[tuple[str, dict[str, str]]] = dataclasses.field(default_factory=list)
    waits: list[float] = dataclasses.field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """The files that were requested."""
        return [path.rpartition("/")[2] for path, _ in self.requests]


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """The hub with the tiny model, to change, as the mirror that is set; and an empty cache."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            state.requests.append((self.path, dict(self.headers)))
            name = self.path.rpartition("/")[2]
            content = state.files.get(name)
            if state.answers.get(name):
                state.answers[name].pop(0)(self, content or b"")
            elif content is None or not self.path.startswith("/owner/tiny-MLC/resolve/"):
                send(self, b"Entry not found", 404)
            elif wanted := self.headers.get("Range"):
                start = int(wanted.removeprefix("bytes=").removesuffix("-"))
                send(self, content[start:], 206, {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"})
            else:
                send(self, content, headers={"X-Repo-Commit": COMMIT})

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        state = Hub(f"http://127.0.0.1:{server.server_address[1]}", dict(TINY))
        monkeypatch.setenv("HF_ENDPOINT", state.address)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setenv("NO_PROXY", "*")
        monkeypatch.setattr(constants, "MLC_LLM_HOME", tmp_path / "home")
        monkeypatch.setattr(constants, "MLC_LLM_READONLY_WEIGHT_CACHE", [])
        monkeypatch.setattr(constants, "MLC_DOWNLOAD_CACHE_POLICY", "ON")
        monkeypatch.setattr(hub, "_wait", lambda _, seconds: state.waits.append(seconds))
        # Upstream's code, which is not to be used, has imported it by name.
        monkeypatch.setattr(download_cache, "MLC_LLM_HOME", tmp_path / "home")
        yield state
        server.shutdown()


def send(
    request: http.server.BaseHTTPRequestHandler, body: bytes, status: int = 200, headers: dict[str, str] | None = None
) -> None:
    request.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
        request.send_header(name, value)
    request.end_headers()
    request.wfile.write(body)


def cached(tmp_path: Path) -> dict[str, bytes]:
    """The files of the model in the cache, which has nothing else but the lock."""
    owner = tmp_path / "home/model_weights/hf/owner"
    assert sorted(path.name for path in owner.iterdir()) == [".tiny-MLC.lock", "tiny-MLC"]
    return {path.name: path.read_bytes() for path in (owner / "tiny-MLC").iterdir()}


def partial_folder(tmp_path: Path) -> Path:
    """The folder of a download that is not complete."""
    return tmp_path / "home/model_weights/hf/owner/.tiny-MLC.partial"


def edit_records(serving: Hub, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes the record of the only shard."""
    cache = json.loads(serving.files[CACHE])
    change(cache["records"][0])
    serving.files[CACHE] = json.dumps(cache).encode()


def refused(serving: Hub, tmp_path: Path, *parts: str, error: type[Exception] = model_check.ModelError) -> str:
    """Downloads the model in vain: one line says why, and nothing is left where a model would be."""
    before = sorted(path for path in tmp_path.rglob("*") if "home" not in path.parts)
    with pytest.raises(error) as caught:
        download_cache.get_or_download_model(ADDRESS)
    said = str(caught.value)
    assert said.isprintable() and all(part in said for part in parts), said
    assert not (tmp_path / "home/model_weights/hf/owner/tiny-MLC").exists()
    assert sorted(path for path in tmp_path.rglob("*") if "home" not in path.parts) == before
    return said


def test_a_model_is_downloaded_and_answers(serving: Hub, tmp_path: Path) -> None:
    engine = MLCEngine(ADDRESS, model_lib=str(LIBRARY), device="cpu")
    try:
        answer = engine.chat.completions.create(messages=[{"role": "user", "content": "x"}], max_tokens=2)
        assert answer.usage.completion_tokens == 2
    finally:
        engine.terminate()
    found = cached(tmp_path)
    assert found == {name: TINY[name] for name in found}
    assert {CONFIG, CACHE, SHARD, "tokenizer.json"} <= found.keys() <= TINY.keys()
    asked = len(serving.requests)
    assert download_cache.get_or_download_model(ADDRESS) == tmp_path / "home/model_weights/hf/owner/tiny-MLC"
    assert auto_config.detect_mlc_chat_config(ADDRESS).read_bytes() == TINY[CONFIG]
    assert auto_config.detect_mlc_chat_config("https://huggingface.co/owner/tiny-MLC").read_bytes() == TINY[CONFIG]
    assert len(serving.requests) == asked, "a model in the cache is not downloaded again"


def test_all_files_are_of_the_commit_that_the_hub_names_first(serving: Hub) -> None:
    download_cache.get_or_download_model(ADDRESS)
    first, *others = [path.split("/")[4] for path, _ in serving.requests]
    assert first == "main" and set(others) == {COMMIT}


def test_a_script_for_the_old_docker_image_asks_a_model_on_the_hub(serving: Hub, tmp_path: Path) -> None:
    """Only the library is added: nothing links one here."""
    script = tmp_path / "old.py"
    script.write_text(
        "import sys\nfrom tvm.script import tir as T\nimport tvm\nfrom mlc_llm import MLCEngine\n"
        "print(tvm.base._LIB._name, T.prim_func.__name__)\n"
        f"engine = MLCEngine(model={ADDRESS!r}, model_lib=sys.argv[1], device='cpu')\n"
        "question = [{'role': 'user', 'content': 'x'}]\n"
        "print(engine.chat.completions.create(messages=question, max_tokens=2).usage.completion_tokens)\n"
        "engine.terminate()\n"
    )
    environment = {**child_environment(tmp_path), "HF_ENDPOINT": serving.address, "NO_PROXY": "*"}
    done = subprocess.run([sys.executable, str(script), str(LIBRARY)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    library, tokens = done.stdout.splitlines()
    assert library.endswith("/libtvm_runtime.so prim_func") and tokens == "2"
    for old in ("tvm.script.tir", "tvm.base._LIB"):
        assert f"{script}:" in done.stderr and f"DeprecationWarning: {old} is an old name of " in done.stderr


@pytest.mark.parametrize("revision", [COMMIT, "v1.0", "main", "refs/pr/1", "team/fix+1", "a/b"])
def test_a_revision_is_pinned_and_has_its_own_folder(serving: Hub, tmp_path: Path, revision: str) -> None:
    folder = download_cache.get_or_download_model(f"{ADDRESS}@{revision}")
    revision = revision.replace("/", "%2F")  # In the hub's addresses too.
    assert folder == tmp_path / f"home/model_weights/hf/owner/tiny-MLC@{revision}"
    assert (folder / SHARD).read_bytes() == TINY[SHARD]
    first, *others = [path.split("/")[4] for path, _ in serving.requests]
    assert first == revision and set(others) == {COMMIT}
    asked = len(serving.requests)
    revision = revision.replace("%2F", "/")
    assert download_cache.get_or_download_model(f"{ADDRESS}@{revision}") == folder
    assert len(serving.requests) == asked


def test_an_address_as_a_browser_shows_it_is_served(serving: Hub, tmp_path: Path) -> None:
    engine = MLCEngine("https://huggingface.co/owner/tiny-MLC/", model_lib=str(LIBRARY), device="cpu")
    engine.terminate()
    assert cached(tmp_path)[SHARD] == TINY[SHARD]
    assert hub.parse("https://huggingface.co/owner/x/@v1/2") == ("owner", "x", "v1/2")


def test_another_commit_than_the_one_asked_for_is_refused(serving: Hub) -> None:
    with pytest.raises(
        model_check.ModelError, match=f"{CONFIG}: expected it of commit {'d' * 40}, found commit {COMMIT}"
    ):
        download_cache.get_or_download_model(f"{ADDRESS}@{'d' * 40}")


def test_a_log_has_lines_about_the_progress(
    serving: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    partial = partial_folder(tmp_path)
    partial.mkdir(parents=True)
    (partial / SHARD).write_bytes(TINY[SHARD][:100_000])
    monkeypatch.setattr(hub, "_LOG_SECONDS", 0)
    download_cache.get_or_download_model(ADDRESS)
    first, *middle, last = [line for line in capfd.readouterr().err.splitlines() if line.startswith("owner/tiny-MLC: ")]
    size = len(TINY[SHARD]) / 1e6
    assert first == f"owner/tiny-MLC: downloading {size - 0.1:,.1f} MB of {size:,.1f} MB, the rest is here"
    assert middle[-1] == f"owner/tiny-MLC: {size:,.1f} of {size:,.1f} MB (100 %)"
    assert last == "owner/tiny-MLC: downloaded"


def test_a_checkpoint_that_is_not_converted_is_named(serving: Hub, tmp_path: Path) -> None:
    serving.files = {"config.json": b"{}", "model.safetensors": b"x", "tokenizer.json": b"{}"}
    refused(
        serving,
        tmp_path,
        f"expected a model for mlc-llm with {CONFIG}, found a checkpoint with config.json; convert it: mlc_llm",
        error=hub.UnavailableError,
    )
    assert serving.names == [CONFIG, "config.json"]


@pytest.mark.parametrize("status", [401, 403])
def test_a_model_that_needs_an_account(
    serving: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    answer: Answer = lambda request, _: send(request, b"", status)  # noqa: E731
    serving.answers[CONFIG] = [answer] * 2
    found = f"found status {status}; "
    refused(serving, tmp_path, f"{found}is the name right? For a private or gated model", error=hub.UnavailableError)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    said = refused(serving, tmp_path, f"{found}HF_TOKEN is sent only by https:", error=hub.UnavailableError)
    assert "hf_secret" not in said


def test_nothing_but_a_models_files_is_asked_for(serving: Hub, tmp_path: Path) -> None:
    serving.files |= {".gitattributes": b"x", ".lfsconfig": b"x", "evil.so": b"x", "tokenizer.py": b"x"}
    config = json.loads(TINY[CONFIG])
    config["tokenizer_files"] = [*config.get("tokenizer_files", ["tokenizer.json"]), "../../evil", "evil.so"]
    serving.files[CONFIG] = json.dumps(config).encode()
    download_cache.get_or_download_model(ADDRESS)
    assert set(serving.names) <= {CONFIG, CACHE, SHARD, *hub.TOKENIZER_FILES}
    assert "evil.so" not in cached(tmp_path)


def test_the_former_name_of_the_weights_list_is_known(serving: Hub, tmp_path: Path) -> None:
    serving.files["ndarray-cache.json"] = serving.files.pop(CACHE)
    download_cache.get_or_download_model(ADDRESS)
    assert cached(tmp_path)[CACHE] == TINY[CACHE]


@pytest.mark.parametrize(
    "name",
    [
        "p.bin#/../../victim",
        "../../victim",
        "/tmp/victim",
        "a/b.bin",
        "..",
        ".bashrc",
        "p.bin?x",
        "p bin",
        "p\n.bin",
        "p\x1b[2J.bin",
        "-rf",
        "",
        "n" * 300,
        CONFIG,
        "TOKENIZER.json",
        "tensor-cache.json",
    ],
    ids=ascii,
)
def test_a_shard_with_another_name_than_a_plain_one_is_refused_before_it_is_asked_for(
    serving: Hub, tmp_path: Path, name: str
) -> None:
    edit_records(serving, lambda record: record.update(dataPath=name))
    refused(serving, tmp_path, ADDRESS, "expected")
    assert set(serving.names) <= {CONFIG, CACHE}


def test_two_shards_of_one_name_are_refused(serving: Hub, tmp_path: Path) -> None:
    cache = json.loads(serving.files[CACHE])
    serving.files[CACHE] = json.dumps({**cache, "records": cache["records"] * 2}).encode()
    refused(serving, tmp_path, "expected one file of each name")


def test_a_shard_that_is_larger_than_listed_is_refused(serving: Hub, tmp_path: Path) -> None:
    serving.files[SHARD] += b"more"
    refused(serving, tmp_path, f"{SHARD}: expected at most {len(TINY[SHARD])} bytes")


def test_a_shard_with_another_hash_is_refused(serving: Hub, tmp_path: Path) -> None:
    serving.files[SHARD] = serving.files[SHARD][:-1] + b"\x01"
    refused(serving, tmp_path, f"{SHARD}: expected", "md5")
    assert serving.names.count(SHARD) == 2
    assert not (partial_folder(tmp_path) / SHARD).exists()


def test_a_shard_that_arrives_damaged_is_asked_for_again(serving: Hub, tmp_path: Path) -> None:
    serving.answers[SHARD] = [lambda request, content: send(request, bytes(len(content)))]
    download_cache.get_or_download_model(ADDRESS)
    assert cached(tmp_path)[SHARD] == TINY[SHARD]
    assert serving.names.count(SHARD) == 2


def test_more_than_fits_is_refused_before_it_is_asked_for(serving: Hub, tmp_path: Path) -> None:
    edit_records(serving, lambda record: record.update(nbytes=1 << 60))
    refused(serving, tmp_path, "expected room for", "make room", error=hub.UnavailableError)
    assert SHARD not in serving.names


def more_than_fits(cache: dict[str, Any]) -> None:
    cache["records"][1]["nbytes"] = 1 << 60


def damaged(cache: dict[str, Any]) -> None:
    cache["records"][1]["md5sum"] = "0" * 32


def outside(cache: dict[str, Any]) -> None:
    cache["records"][1]["records"][0]["byteOffset"] = 1 << 40


@pytest.mark.parametrize(
    ("spoil", "said"),
    [(more_than_fits, "make room"), (damaged, "other.bin: expected"), (outside, "inside"), (None, "a tokenizer")],
)
def test_a_refusal_keeps_the_shards_that_are_right(
    serving: Hub, tmp_path: Path, spoil: Callable[[dict[str, Any]], None] | None, said: str
) -> None:
    """The next download goes on there, once the reason is gone."""
    cache = json.loads(TINY[CACHE])
    tensor = {**cache["records"][0]["records"][0], "name": "other"}
    content = TINY[SHARD][: tensor["nbytes"]]
    record = {**cache["records"][0], "dataPath": "other.bin", "nbytes": len(content), "records": [tensor]}
    record["md5sum"] = hashlib.md5(content).hexdigest()
    tensor["byteOffset"] = 0
    cache["records"].append(record)
    right = json.dumps(cache).encode()
    serving.files |= {"other.bin": content, CACHE: right}
    tokenizers = {name: serving.files.pop(name) for name in TINY if name.startswith("tokenizer") and not spoil}
    if spoil:
        spoil(cache)
        serving.files[CACHE] = json.dumps(cache).encode()
    partial_folder(tmp_path).mkdir(parents=True)
    (partial_folder(tmp_path) / SHARD).write_bytes(TINY[SHARD])
    refused(serving, tmp_path, said)
    serving.files |= {CACHE: right, **tokenizers}
    download_cache.get_or_download_model(ADDRESS)
    assert SHARD not in serving.names
    assert cached(tmp_path)["other.bin"] == content


@pytest.mark.parametrize("name", [CONFIG, CACHE, "tokenizer.json"])
def test_a_document_without_end_is_refused(serving: Hub, tmp_path: Path, name: str) -> None:
    def endless(request: http.server.BaseHTTPRequestHandler, _: bytes) -> None:
        request.send_response(200)
        request.end_headers()
        request.close_connection = True
        while True:
            request.wfile.write(b" " * (1 << 20))

    serving.answers[name] = [endless]
    refused(serving, tmp_path, f"{name}: expected at most {64 << 20} bytes")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (CONFIG, b"["),
        (CONFIG, b"[]"),
        (CONFIG, b"[" * 100_000),
        (CONFIG, b'{"vocab_size": -1}'),
        (CACHE, b"no JSON"),
        (CACHE, b'{"records": [{"dataPath": 1}]}'),
    ],
    ids=repr,
)
def test_a_damaged_document_is_refused(serving: Hub, tmp_path: Path, name: str, content: bytes) -> None:
    serving.files[name] = content
    refused(serving, tmp_path, ADDRESS, name)


def test_a_model_without_a_tokenizer_is_refused(serving: Hub, tmp_path: Path) -> None:
    serving.files = {name: content for name, content in TINY.items() if not name.startswith("tokenizer")}
    refused(serving, tmp_path, "expected a tokenizer")


def test_a_shard_is_resumed(serving: Hub, tmp_path: Path) -> None:
    half = len(TINY[SHARD]) // 2

    def break_off(request: http.server.BaseHTTPRequestHandler, content: bytes) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content[:half])
        request.close_connection = True

    serving.answers[SHARD] = [break_off]
    download_cache.get_or_download_model(ADDRESS)
    assert cached(tmp_path)[SHARD] == TINY[SHARD]
    ranges = [headers.get("Range") for path, headers in serving.requests if path.endswith(SHARD)]
    assert ranges == [None, f"bytes={half}-"]


def test_an_interrupted_download_goes_on_the_next_time(serving: Hub, tmp_path: Path) -> None:
    def fail(request: http.server.BaseHTTPRequestHandler, content: bytes) -> None:
        if request.headers.get("Range"):
            send(request, b"", 503)
            return
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content[:1000])
        request.close_connection = True

    serving.answers[SHARD] = [fail] * hub._TRIES
    refused(serving, tmp_path, f"expected {SHARD}, found status 503; try again", error=hub.UnavailableError)
    serving.requests.clear()
    download_cache.get_or_download_model(ADDRESS)
    assert cached(tmp_path)[SHARD] == TINY[SHARD]
    assert [headers.get("Range") for path, headers in serving.requests if path.endswith(SHARD)] == ["bytes=1000-"]


def busy(status: int, **headers: str) -> Answer:
    """The answer of a hub that has too much to do."""
    return lambda request, _: send(request, b"", status, {name.replace("_", "-"): headers[name] for name in headers})


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_hub_is_asked_again_later_each_time(serving: Hub, tmp_path: Path, status: int) -> None:
    serving.answers[CONFIG] = [busy(status)] * 4
    download_cache.get_or_download_model(ADDRESS)
    assert cached(tmp_path)[SHARD] == TINY[SHARD]
    # Servers that start together spread their requests.
    assert len(serving.waits) == 4 and all(2**n / 2 <= wait <= 2**n for n, wait in enumerate(serving.waits))


def test_a_hub_that_stays_busy_is_left(serving: Hub, tmp_path: Path) -> None:
    serving.answers[CONFIG] = [busy(429)] * 100
    refused(serving, tmp_path, f"expected {CONFIG}, found status 429; try again later", error=hub.UnavailableError)
    assert serving.names == [CONFIG] * 6 and len(serving.waits) == 5


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "120"}, 120),
        ({"Retry-After": "Sun, 06 Nov 1994 08:51:37 GMT", "Date": "Sun, 06 Nov 1994 08:49:37 GMT"}, 120),
        ({"Retry-After": "Sun, 06 Nov 1994 08:49:36 GMT", "Date": "Sun, 06 Nov 1994 08:49:37 GMT"}, 0),
        ({"Retry-After": "Sun, 06 Nov 1994 08:51:37 GMT"}, 0),
        *(({"Retry-After": nonsense}, 0) for nonsense in ("", "-5", "1e9", "nan", "soon", "\u0661", "9" * 400)),
        ({}, 0),
    ],
)
def test_the_wait_that_a_hub_asks_for_is_understood(headers: dict[str, str], seconds: float) -> None:
    assert hub._retry_after(headers) == seconds


def test_a_download_waits_as_long_as_the_hub_asks(serving: Hub) -> None:
    serving.answers[SHARD] = [busy(429, Retry_After="120"), busy(503, Retry_After="7")]
    download_cache.get_or_download_model(ADDRESS)
    first, second = serving.waits
    assert 120 < first <= 121 and 7 < second <= 9


def test_a_hub_that_asks_for_a_very_long_wait_is_left(serving: Hub, tmp_path: Path) -> None:
    serving.answers[CONFIG] = [busy(429, Retry_After="301")]
    refused(serving, tmp_path, "found status 429 and to wait 301 s; try again later", error=hub.UnavailableError)
    assert serving.names == [CONFIG] and not serving.waits


def test_a_wait_ends_when_the_download_fails_elsewhere() -> None:
    stopped = threading.Event()
    stopped.set()
    hub._wait(stopped, 1e6)


@pytest.mark.parametrize("kind", ["other bytes", "a link", "too many bytes", "whole", "no ranges", "another range"])
def test_what_an_earlier_download_left_is_used_only_if_it_is_right(serving: Hub, tmp_path: Path, kind: str) -> None:
    partial = partial_folder(tmp_path)
    partial.mkdir(parents=True)
    (tmp_path / "victim").write_bytes(b"victim")
    (partial / "evil.json").write_bytes(b"x")
    shard = partial / SHARD
    if kind == "a link":
        shard.symlink_to(tmp_path / "victim")
    else:
        content = {"other bytes": b"x" * 9, "too many bytes": bytes(len(TINY[SHARD]) + 1), "whole": TINY[SHARD]}
        shard.write_bytes(content.get(kind, TINY[SHARD][:9]))
    if kind == "no ranges":
        serving.answers[SHARD] = [lambda request, content: send(request, content)]
    elif kind == "another range":
        part = {"Content-Range": f"bytes 1-{len(TINY[SHARD]) - 1}/{len(TINY[SHARD])}"}
        serving.answers[SHARD] = [lambda request, content: send(request, content[1:], 206, part)]
    download_cache.get_or_download_model(ADDRESS)
    assert cached(tmp_path)[SHARD] == TINY[SHARD] and "evil.json" not in cached(tmp_path)
    assert (tmp_path / "victim").read_bytes() == b"victim"
    assert (SHARD in serving.names) == (kind != "whole")


def test_a_hub_that_trickles_is_left(serving: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def trickle(request: http.server.BaseHTTPRequestHandler, content: bytes) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        for _ in range(600):
            request.wfile.write(b"x")
            time.sleep(0.1)

    monkeypatch.setattr(hub, "_SECONDS", 0.5)
    serving.answers[SHARD] = [trickle] * hub._TRIES
    refused(serving, tmp_path, "found less than 1024 bytes per second", error=hub.UnavailableError)


class Timer:
    """Stands in for threading.Timer; the test says when the time is over."""

    made: list[Timer]

    def __init__(self, seconds: float, function: Callable[[], None]) -> None:
        self.seconds, self.over, self.cancelled = seconds, function, False
        self.made.append(self)

    def start(self) -> None:
        pass

    def cancel(self) -> None:
        self.cancelled = True

    @classmethod
    def running(cls) -> Timer:
        """The one that is, once the client has started it: the server may be faster."""
        while not (running := [timer for timer in cls.made if not timer.cancelled]):
            time.sleep(0.01)
        return running[-1]


def test_headers_that_trickle_are_not_waited_for(serving: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def trickle(request: http.server.BaseHTTPRequestHandler, _: bytes) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: x")
        Timer.running().over()
        with contextlib.suppress(ConnectionError):
            assert request.connection.recv(1) == b"", "the download hangs up"
        request.close_connection = True

    monkeypatch.setattr(Timer, "made", [], raising=False)
    monkeypatch.setattr(hub.threading, "Timer", Timer)
    serving.answers[CONFIG] = [trickle]
    download_cache.get_or_download_model(ADDRESS)
    assert cached(tmp_path)[CONFIG] == TINY[CONFIG] and serving.names[:2] == [CONFIG] * 2
    assert all(timer.seconds == 30 and timer.cancelled for timer in Timer.made)
    serving.answers[CONFIG] = [trickle] * hub._TRIES
    monkeypatch.setattr(constants, "MLC_LLM_HOME", tmp_path / "home/other")
    refused(serving, tmp_path / "home/other", f"expected {CONFIG}, found ReadTimeout", error=hub.UnavailableError)


@pytest.mark.parametrize("length", ["-5", "many", "1e3", "\u00b2"])
@pytest.mark.parametrize("name", [CONFIG, SHARD])
def test_a_length_that_is_no_number_is_not_believed(serving: Hub, tmp_path: Path, name: str, length: str) -> None:
    """With a negative one, the connection would be read until its end."""

    def answer(request: http.server.BaseHTTPRequestHandler, content: bytes) -> None:
        send(request, content, headers={"Content-Length": length})
        with contextlib.suppress(ConnectionError):
            request.connection.recv(1)

    serving.answers[name] = [answer] * hub._TRIES
    refused(serving, tmp_path, f"expected {name}, found the Content-Length", error=hub.UnavailableError)


@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://["])
def test_a_redirect_to_another_kind_of_address_is_refused(serving: Hub, tmp_path: Path, to: str) -> None:
    serving.answers[CONFIG] = [lambda request, _: send(request, b"", 302, {"Location": to})]
    refused(serving, tmp_path, "expected redirects to https: only")


def test_encryption_is_not_left_and_the_token_stays_with_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    asked: list[tuple[str, str | None]] = []

    class Redirect:
        is_redirect, status_code = True, 302
        headers = {"Location": "https://cdn.example.org/x"}

        def __enter__(self) -> Redirect:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    def get(_: object, url: str, *, auth: Any, **options: Any) -> Redirect:
        asked.append((url, auth and auth(type("Request", (), {"headers": {}})).headers["Authorization"]))
        answer = Redirect()
        if len(asked) > 1:
            answer.headers = {"Location": "http://cdn.example.org/x"}
        return answer

    monkeypatch.setattr(hub._Session, "get", get)
    with pytest.raises(model_check.ModelError, match="expected redirects to https: only"):
        hub._Repository("owner", "tiny", Path("/nonexistent"))._document(CONFIG)
    assert asked == [
        (f"https://huggingface.co/owner/tiny/resolve/main/{CONFIG}", "Bearer hf_secret"),
        ("https://cdn.example.org/x", None),
    ]


def test_no_token_is_sent_in_the_open(serving: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    download_cache.get_or_download_model(ADDRESS)
    assert not any("Authorization" in headers for _, headers in serving.requests)


def test_a_hub_that_redirects_for_ever_is_left(serving: Hub, tmp_path: Path) -> None:
    answer: Answer = lambda request, _: send(request, b"", 302, {"Location": CONFIG})  # noqa: E731
    serving.answers[CONFIG] = [answer] * 100
    refused(serving, tmp_path, "found more than 5 redirects", error=hub.UnavailableError)


def test_what_comes_with_a_redirect_is_not_read(serving: Hub) -> None:
    sent = [0]

    def endless(request: http.server.BaseHTTPRequestHandler, _: bytes) -> None:
        request.send_response(302)
        request.send_header("Location", CONFIG)
        request.end_headers()
        request.close_connection = True
        with contextlib.suppress(OSError):
            while sent[0] < 1 << 30:
                sent[0] += request.wfile.write(bytes(1 << 20))

    serving.answers[CONFIG] = [endless]
    download_cache.get_or_download_model(ADDRESS)
    assert sent[0] < 32 << 20


def test_a_compressed_answer_is_refused(serving: Hub, tmp_path: Path) -> None:
    answer: Answer = lambda request, content: send(request, content, headers={"Content-Encoding": "gzip"})  # noqa: E731
    serving.answers[CONFIG] = [answer]
    refused(serving, tmp_path, f"{CONFIG}: expected the file as it is")


@pytest.mark.parametrize(
    "address",
    ["HF://owner", "HF://owner/", "HF://a/b/c", "HF://../x", "HF://owner/..", "HF://owner/x?y", "HF://owner/x#y"]
    + [
        "HF://owner/x@",
        "HF://owner/x@..",
        "HF://owner/x@a/../b",
        "HF://owner/x@a//b",
        "HF://owner/x@/a",
        "HF://owner/x@a/",
        "HF://owner/x@a/.git",
        "HF://owner/x@a%2Fb",
        "HF://owner/x@a\n",
        f"HF://owner/x@{'a' * 101}",
        "HF://owner/x//",
        "HF://owner/x@-x",
        "HF://owner/x@a@b",
        "HF://owner/x@a?b",
    ]
    + ["HF://user:pass@host/x", "https://huggingface.co/owner/..", "http://huggingface.co/owner/x", "HF://o/a\nb"],
)
def test_another_address_is_refused(serving: Hub, address: str) -> None:
    with pytest.raises(model_check.ModelError, match="expected HF://OWNER/REPOSITORY"):
        download_cache.download_and_cache_mlc_weights(address)
    assert not serving.requests


def read_only(*_: object, **__: object) -> None:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


class FullDisk:
    """Stands in for a file that is written to a full disk."""

    def __enter__(self) -> FullDisk:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def write(self, _: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("mkdir", "Read-only file system"),
        ("write_bytes", "Read-only file system"),
        ("rename", "Read-only file system"),
        ("open", "No space left on device"),
    ],
)
def test_a_cache_that_cannot_be_written_is_one_line(
    serving: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, found: str
) -> None:
    usual = Path.open

    def open_(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        return FullDisk() if path.name == SHARD and mode == "wb" else usual(path, mode, *arguments, **options)

    with monkeypatch.context() as changed:
        changed.setattr(Path, name, open_ if name == "open" else read_only)
        said = f"{ADDRESS}: expected to store it in {tmp_path}/home/model_weights/hf/owner, found: {found}; make room"
        refused(serving, tmp_path, said, "MLC_LLM_HOME", error=hub.UnavailableError)
    download_cache.get_or_download_model(ADDRESS)
    assert cached(tmp_path)[SHARD] == TINY[SHARD]


@pytest.mark.parametrize("command", [["-m", "mlc_llm", "serve", ADDRESS], ["-c", "import mlc_llm"]])
@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"MLC_LLM_HOME": "{file}/cache"}, "{file}/cache: expected a folder for mlc-llm's cache, found: Not a direct"),
        ({"MLC_LLM_HOME": "{file}"}, "{file}: expected a folder for mlc-llm's cache, found: File exists; set MLC_LL"),
        ({"MLC_JIT_POLICY": "YES"}, "Invalid MLC_JIT_POLICY. It has to be one of"),
    ],
)
def test_a_cache_that_cannot_be_made_is_one_line(
    tmp_path: Path, command: list[str], variables: dict[str, str], said: str
) -> None:
    """Importing mlc-llm makes its cache; only the command ends the process."""
    file = tmp_path / "file"
    file.touch()
    variables = {name: value.format(file=file) for name, value in variables.items()}
    environment = {**child_environment(tmp_path), **variables}
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True)
    *before, last = done.stderr.splitlines()
    assert done.returncode == 1 and said.format(file=file) in last, done.stderr
    if command[0] == "-m":
        assert last.startswith("mlc_llm: ") and not before, done.stderr
    else:
        assert last.startswith("mlc_llm._mlc_bazel.home.HomeError: ")


def test_a_user_without_a_folder_is_told_to_set_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", home)
    with pytest.raises(home_module.HomeError, match="HOME: expected the user's folder, found none; set HOME to"):
        home_module.check()
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    home_module.check()


def test_a_model_that_the_hub_does_not_have(serving: Hub, tmp_path: Path) -> None:
    del serving.files[CONFIG]
    refused(
        serving,
        tmp_path,
        f"/owner/tiny-MLC: expected {CONFIG}",
        "are name and revision right?",
        error=hub.UnavailableError,
    )


def test_a_hub_that_does_not_answer(tmp_path: Path, serving: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    refused(serving, tmp_path, "found ConnectionError", "HF_ENDPOINT", error=hub.UnavailableError)
    monkeypatch.setenv("HF_ENDPOINT", "https://user:secret@host")
    assert "secret" not in refused(serving, tmp_path, "HF_ENDPOINT: expected https://HOST")


def test_the_policy_of_the_cache_is_upstreams(serving: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for policy in ("OFF", "READONLY"):
        monkeypatch.setattr(constants, "MLC_DOWNLOAD_CACHE_POLICY", policy)
        refused(serving, tmp_path, "MLC_DOWNLOAD_CACHE_POLICY")
    assert not serving.requests
    monkeypatch.setattr(constants, "MLC_DOWNLOAD_CACHE_POLICY", "REDO")
    for _ in range(2):
        serving.requests.clear()
        folder = download_cache.get_or_download_model(ADDRESS)
        assert SHARD in serving.names
    shared = tmp_path / "home/shared/hf/owner"
    shared.mkdir(parents=True)
    folder.rename(shared / "tiny-MLC")
    monkeypatch.setattr(constants, "MLC_LLM_READONLY_WEIGHT_CACHE", [tmp_path / "home/shared"])
    assert download_cache.get_or_download_model(ADDRESS) == shared / "tiny-MLC"


def test_a_model_in_the_cache_is_checked_before_it_is_loaded(serving: Hub) -> None:
    folder = download_cache.get_or_download_model(ADDRESS)
    (folder / SHARD).write_bytes(b"x")
    with pytest.raises(model_check.ModelError, match=f"{SHARD}: expected a weight shard"):
        MLCEngine(ADDRESS, model_lib=str(LIBRARY), device="cpu")


def test_two_at_once_download_once(serving: Hub, tmp_path: Path) -> None:
    def slow(request: http.server.BaseHTTPRequestHandler, content: bytes) -> None:
        time.sleep(1)
        send(request, content)

    serving.answers[SHARD] = [slow]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        folders = set(pool.map(download_cache.get_or_download_model, [ADDRESS] * 2))
    assert folders == {tmp_path / "home/model_weights/hf/owner/tiny-MLC"}
    assert serving.names.count(CONFIG) == serving.names.count(SHARD) == 1
    assert cached(tmp_path)[SHARD] == TINY[SHARD]
