"""Part `cold_start`: from an empty store of images to the first token of an answer, step by step, with podman.

Each image is served by a registry on loopback, with its layers compressed in each way, as fast as it goes and through a
link of 1 Gbit/s. llama.cpp's server gets an image made the same way.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import http.client
import json
import os
import platform
import shlex
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import commands
import report

from oci.layer import TAR, Layer
from oci.layout import CONFIG, Image
from oci.layout_writer import LayoutWriter, write_plain
from oci.registry_server import registry

NEEDS = "//wheels/mlc_llm"
NO_PODMAN = "Not measured: podman does not run here; give `--podman` (README.md)."

MODELS = {
    "SmolLM2, 4 bits": "//bench:smollm2_4bit_image",
    "SmolLM2, 32 bits": "//images:smollm2",
    "1 GB of random weights": "//bench:gigabyte_image",
}
"""Model → an image that serves it."""

GGUF = "@model_smollm2_gguf//:files"
LLAMA = "SmolLM2, 4 bits, llama.cpp"

COMPRESSIONS = {
    "gzip": ["--dest-compress-format", "gzip"],
    "zstd": ["--dest-compress-format", "zstd"],
    "none": ["--preserve-digests"],
}
"""Compression of layers → skopeo's options that give a registry such layers, from plain ones.

zstd:chunked is left out: skopeo 1.9.3, which the build has, fails to write it ("short write"). An empty store has no
file that a pull could leave out.
"""

GIGABIT = 125_000_000
"""Bytes per second."""

BLOCK = 1 << 18
"""Bytes that the link passes on at once."""

LIMIT = 300
"""Seconds for a step."""

_LOOK = 200
"""Requests between two looks whether the container still runs."""

_TOOLS = {
    "docker-registry": "@debian_container_tools//:docker-registry",
    "skopeo": "@debian_container_tools//:skopeo",
}


@dataclasses.dataclass(frozen=True)
class Start:
    """One start, in seconds from the one before.

    Attributes:
        pull: the image is in the store.
        container: `podman run` has returned.
        ready: the server says that it is ready.
        first: the first piece of an answer.
    """

    pull: float
    container: float
    ready: float
    first: float

    @property
    def started(self) -> float:
        """From the container's start to the first piece."""
        return self.container + self.ready + self.first

    @property
    def total(self) -> float:
        return self.pull + self.started


class Link:
    """Passes connections on to a port of loopback, and answers at this rate, all connections together.

    Args:
        port: where the registry listens.
        rate: bytes per second.
    """

    def __init__(self, port: int, rate: int) -> None:
        self._port, self._rate = port, rate
        self._lock, self._free = threading.Lock(), 0.0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]

    def __enter__(self) -> Link:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # Ends the wait in `_accept`.
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                try:
                    server = socket.create_connection(("127.0.0.1", self._port))
                except OSError:
                    client.close()
                    continue
                threading.Thread(target=self._pass, args=(client, server, False), daemon=True).start()
                threading.Thread(target=self._pass, args=(server, client, True), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, shaped: bool) -> None:
        block = memoryview(bytearray(BLOCK))
        with contextlib.suppress(OSError):
            while count := source.recv_into(block):
                if shaped:
                    self._wait(count)
                target.sendall(block[:count])
            target.shutdown(socket.SHUT_WR)

    def _wait(self, count: int) -> None:
        """Returns when the link has carried this many bytes more."""
        with self._lock:
            now = time.monotonic()
            self._free = max(self._free, now) + count / self._rate
            wait = self._free - now
        time.sleep(wait)


def llama_image(root: Path, model: Path, folder: Path) -> None:
    """Writes an image of llama.cpp's server, without compressing its layers.

    Args:
        root: a root file system with /usr/bin/llama-server.
        model: a GGUF file.
        folder: the layout.
    """
    system, weights = Layer(), Layer()
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            system.add_symlink(name, str(path.readlink()), "llama.cpp")
        elif path.is_dir():
            system.add_directory(name, "llama.cpp")
        elif path.is_file():
            system.add_file(name, path, "llama.cpp", mode=path.stat().st_mode & 0o777)
    for name in ("bin", "lib", "lib64", "sbin"):
        # Where installed packages would have merged /usr; the program's loader is in /lib64.
        if name not in system and (root / "usr" / name).is_dir():
            system.add_symlink(name, f"usr/{name}", "llama.cpp")
    weights.add_file("model.gguf", model, "the model")
    writer = LayoutWriter(folder)
    layers = [writer.add(layer.write_tar, TAR) for layer in (system, weights)]
    config = {
        "architecture": {"aarch64": "arm64", "x86_64": "amd64"}[platform.machine()],
        "os": "linux",
        "config": {"Entrypoint": ["/usr/bin/llama-server"], "Cmd": ["-m", "/model.gguf"], "User": "1000:1000"},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]},
    }
    writer.finish(writer.add_json(config, CONFIG), layers)


def _answers(port: int, path: str) -> bool:
    """Whether a server on loopback answers a request with status 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", path)
        return connection.getresponse().status == 200
    return False


def first_piece(port: int) -> bytes:
    """Asks a question, and returns the first event of the answer that has text.

    Raises:
        SystemExit: there is none.
    """
    question = {"messages": [{"role": "user", "content": "What is the capital of France?"}]}
    body = {"max_tokens": 8, "stream": True, "temperature": 0, **question}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)
    said = b""
    with contextlib.closing(connection):
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        for line in answer:
            said += line
            if answer.status == 200 and line.startswith(b"data: {"):
                choices = json.loads(line[len(b"data: ") :]).get("choices")
                if choices and choices[0]["delta"].get("content"):
                    return line
    raise SystemExit(f"bench: expected an answer in pieces, found status {answer.status}: {said!r:.1000}")


def _until_ready(podman: list[str], name: str, port: int, path: str) -> None:
    """Returns when a container's server is ready.

    Raises:
        SystemExit: the container has ended, or is not ready in time; the message has its log.
    """
    ends, looks = time.monotonic() + LIMIT, 0
    while not _answers(port, path):
        looks += 1
        time.sleep(0.005)
        running = "true"
        if looks % _LOOK == 0:
            running = commands.output([*podman, "inspect", "--format", "{{.State.Running}}", name]).strip()
        if running != "true" or time.monotonic() > ends:
            log = subprocess.run([*podman, "logs", name], capture_output=True, text=True)
            raise SystemExit(f"bench: expected {path} to answer 200, found none:\n{(log.stdout + log.stderr)[-2000:]}")


@contextlib.contextmanager
def store(podman: list[str], folder: Path) -> Iterator[list[str]]:
    """An empty store of podman's; yields the start of its command line, and removes the store."""
    command = [*podman, f"--root={folder / 'store'}", f"--runroot={folder / 'run'}"]
    try:
        yield command
    finally:
        ended = subprocess.run([*command, "rm", "--all", "--force", "--time=0"], capture_output=True, text=True)
        subprocess.run([*command, "rmi", "--all", "--force"], capture_output=True)
        if os.geteuid():
            # Other users of podman's namespace own some of its files.
            subprocess.run([*podman, "unshare", "rm", "-rf", folder], capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            raise SystemExit(f"bench: expected podman to leave nothing in {folder}: {ended.stderr[-1000:]}")


def start(podman: list[str], reference: str, arguments: list[str], ready: str) -> Start:
    """Pulls an image into an empty store, starts its server, and asks it.

    Args:
        podman: the start of its command line.
        reference: the image, in a registry without TLS.
        arguments: the container's; the port comes after them.
        ready: path that answers 200 once the server is ready.

    Raises:
        SystemExit: a step fails.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    times = [time.perf_counter()]
    commands.output([*podman, "pull", "--quiet", "--tls-verify=false", reference], timeout=LIMIT)
    times.append(time.perf_counter())
    options = ["--detach", "--network=host", "--pull=never"]
    command = [*podman, "run", *options, reference, *arguments, f"--port={port}"]
    name = commands.output(command, timeout=LIMIT).strip()
    times.append(time.perf_counter())
    _until_ready(podman, name, port, ready)
    times.append(time.perf_counter())
    first_piece(port)
    times.append(time.perf_counter())
    return Start(*(later - earlier for earlier, later in zip(times, times[1:])))


def measure(workspace: commands.Bazel, options: argparse.Namespace) -> tuple[str, str]:
    """This part's table, and the versions of what was measured."""
    if not workspace.compatible(NEEDS):
        return commands.NO_SOURCES, "without mlc-llm"
    podman = shlex.split(options.podman)
    try:
        subprocess.run([*podman, "info"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return NO_PODMAN, "without podman"
    commands.say("building the images")
    tools = {name: workspace.file(target) for name, target in _TOOLS.items()}
    layouts = {name: workspace.file(target) for name, target in MODELS.items()}
    rows = []
    with commands.scratch() as scratch:
        plain: dict[str, Path] = {}
        for name, layout in layouts.items():
            plain[name] = scratch / f"layout{len(plain)}"
            write_plain(Image(layout), plain[name])
        if options.llama_root:
            plain[LLAMA] = scratch / "llama"
            llama_image(options.llama_root, workspace.file(GGUF), plain[LLAMA])
        for name, layout in plain.items():
            for compression in COMPRESSIONS:
                commands.say(f"starting {name}, layers compressed with {compression}")
                rows.append(_row(podman, tools, name, layout, compression, options.cold_start_runs, scratch))
            shutil.rmtree(layout)
    head = [
        "image, compression of its layers",
        "size",
        "pull",
        "container",
        "ready",
        "first token",
        "in all",
        "of that from start",
        "in all at 1 Gbit/s",
    ]
    versions = commands.output([*podman, "--version"]).strip()
    if options.llama_root:
        versions += f"; llama.cpp of {options.llama_root.name}"
    return report.table(head, rows), f"{versions}; medians of {options.cold_start_runs}"


def _row(
    podman: list[str],
    tools: dict[str, Path],
    name: str,
    layout: Path,
    compression: str,
    runs: int,
    scratch: Path,
) -> list[str]:
    """Starts an image several times, as fast as it goes and through the link, in turns."""
    command = Image(layout).config["config"]["Cmd"]
    if name == LLAMA:
        arguments, ready = command, "/health"
    else:
        arguments, ready = [*command, "--host=127.0.0.1"], "/health/ready"
    folder = scratch / "registry"
    folder.mkdir()
    times: dict[bool, list[Start]] = {False: [], True: []}
    with registry(str(tools["docker-registry"]), folder) as port, Link(port, GIGABIT) as link:
        copy = [tools["skopeo"], "--insecure-policy", "--tmpdir", scratch, "copy", "--dest-tls-verify=false"]
        copy += COMPRESSIONS[compression]
        commands.output([*copy, f"oci:{layout}", f"docker://127.0.0.1:{port}/bench:latest"])
        inspected = [tools["skopeo"], "inspect", "--raw", "--tls-verify=false"]
        manifest = json.loads(commands.output([*inspected, f"docker://127.0.0.1:{port}/bench:latest"]))
        for run in range(runs):
            for shaped in times:
                reference = f"127.0.0.1:{link.port if shaped else port}/bench:latest"
                with store(podman, scratch / f"podman{run}{shaped:d}") as emptied:
                    times[shaped].append(start(emptied, reference, arguments, ready))
    shutil.rmtree(folder)
    steps = [median(getattr(each, step) for each in times[False]) for step in ("pull", "container", "ready", "first")]
    return [
        f"{name}, {compression}",
        report.size(sum(layer["size"] for layer in manifest["layers"])),
        *(report.duration(step) for step in steps),
        report.duration(median(each.total for each in times[False])),
        report.duration(median(each.started for each in times[False])),
        report.duration(median(each.total for each in times[True])),
    ]
