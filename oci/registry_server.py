"""A real registry (Debian's docker-registry) on loopback for tests, and a proxy in front of it that logs requests and
injects faults.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import http.server
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

USER, PASSWORD = "tester", "secret"

# An htpasswd line with bcrypt, the only hash that docker-registry accepts.
_HTPASSWD = f"{USER}:$2a$04$0TMIfQw5yybd49Hhj82OcOMZumSkFSMDw16Axt1WoID1nP6xRnfJy\n"

_CONFIGURATION = """\
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {root}}}}}
http: {{addr: "127.0.0.1:{port}", secret: test, relativeurls: true}}
"""

_AUTHENTICATION = """\
auth: {{htpasswd: {{realm: test, path: {htpasswd}}}}}
"""


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@contextlib.contextmanager
def registry(
    program: str, folder: pathlib.Path, authenticated: bool = False, disk_bytes: int | None = None
) -> Iterator[int]:
    """Runs a registry and yields its port.

    Args:
        program: docker-registry.
        folder: an empty folder for the registry alone.
        authenticated: whether it requires USER and PASSWORD.
        disk_bytes: keep images on a separate file system of this size; needs the right to mount.
    """
    port = _free_port()
    root = folder / "images"
    root.mkdir()
    text = _CONFIGURATION.format(root=root, port=port)
    if authenticated:
        (folder / "htpasswd").write_text(_HTPASSWD)
        text += _AUTHENTICATION.format(htpasswd=folder / "htpasswd")
    (folder / "config.yml").write_text(text)
    command = [os.path.abspath(program), "serve", str(folder / "config.yml")]
    if disk_bytes:
        command = [sys.executable, __file__, str(root), str(disk_bytes), *command]
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={"PATH": "/usr/bin:/bin", "PYTHONPATH": os.pathsep.join(sys.path)}
        )
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            if process.poll() is not None:
                raise AssertionError(f"docker-registry: {(folder / 'log').read_text()}")
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()


@dataclasses.dataclass(frozen=True)
class Request:
    """A request that the proxy saw; the body's size is the number of bytes sent when the request ended."""

    method: str
    path: str
    size: int
    status: int


@dataclasses.dataclass
class Fault:
    """What to do with requests that match.

    Args:
        method: e.g. "PUT"; a regular expression.
        path: a regular expression, searched in the path.
        status: answer with this, or "cut" the connection in the middle of the body, or "stall" until the proxy stops.
        times: how many requests; None for all.
        content: what to answer with, in place of the registry's content or an error.
    """

    method: str
    path: str
    status: int | str
    times: int | None = None
    content: bytes | None = None

    def applies(self, method: str, path: str) -> bool:
        if self.times == 0 or not re.fullmatch(self.method, method) or not re.search(self.path, path):
            return False
        if self.times:
            self.times -= 1
        return True


class Proxy:
    """Passes requests to a registry.

    Args:
        upstream: the registry's port.
        faults: the first one that matches a request applies.
    """

    def __init__(self, upstream: int, faults: list[Fault] | None = None) -> None:
        self.upstream = upstream
        self.faults = faults or []
        self.requests: list[Request] = []
        self.stopping = threading.Event()
        self.stalled = threading.Event()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.host = f"127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()

    def sent(self, method: str = ".*", path: str = "") -> list[Request]:
        """The requests that match."""
        return [
            request
            for request in self.requests
            if re.fullmatch(method, request.method) and re.search(path, request.path)
        ]

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one(self) -> None:
                fault = next((fault for fault in proxy.faults if fault.applies(self.command, self.path)), None)
                status = fault.status if fault else None
                if status == "stall":
                    proxy.stalled.set()
                    proxy.stopping.wait()
                length = int(self.headers.get("Content-Length", 0))
                if isinstance(status, str):
                    self._log(len(self.rfile.read(length // 2)), 0)
                    self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True
                    return
                body = (
                    b"".join(self._chunks())
                    if self.headers.get("Transfer-Encoding") == "chunked"
                    else self.rfile.read(length)
                )
                if fault and fault.content is not None and isinstance(status, int):
                    self._answer(status, {"Content-Type": "application/octet-stream"}, fault.content)
                elif status in _ERRORS:
                    headers = {"Content-Type": "application/json"}
                    if status == 401:
                        headers["WWW-Authenticate"] = 'Basic realm="test"'
                    self._answer(status, headers, json.dumps({"errors": [_ERRORS[status]]}).encode())
                elif status:
                    # Not the registry: something before it.
                    self._answer(status, {"Content-Type": "text/html"}, b"<h1>not found</h1>")
                else:
                    self._forward(body)
                self._log(len(body), self.status)

            do_DELETE = do_GET = do_HEAD = do_PATCH = do_POST = do_PUT = handle_one

            def _chunks(self) -> Iterator[bytes]:
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    yield self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()

            def _forward(self, body: bytes) -> None:
                connection = http.client.HTTPConnection("127.0.0.1", proxy.upstream, timeout=600)
                # One by one, because a client may send a header several times.
                connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    if name.lower() not in ("transfer-encoding", "content-length"):
                        connection.putheader(name, value)
                connection.putheader("Content-Length", str(len(body)))
                connection.endheaders(body)
                response = connection.getresponse()
                content = response.read()
                kept = {
                    name: value
                    for name, value in response.getheaders()
                    if name.lower() not in ("transfer-encoding", "connection")
                }
                self._answer(response.status, kept, content)
                connection.close()

            def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
                self.status = status
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if "Content-Length" not in headers:
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            def _log(self, size: int, status: int) -> None:
                proxy.requests.append(Request(self.command, self.path, size, status))

            def log_message(self, *_: object) -> None:
                pass

        return Handler


# OCI distribution specification, "Error codes".
_ERRORS = {
    400: {"code": "DIGEST_INVALID", "message": "provided digest did not match uploaded content"},
    401: {"code": "UNAUTHORIZED", "message": "authentication required"},
    403: {"code": "DENIED", "message": "requested access to the resource is denied"},
    429: {"code": "TOOMANYREQUESTS", "message": "too many requests"},
    500: {"code": "UNKNOWN", "message": "unknown error"},
}


if __name__ == "__main__":
    from oci import enter_root

    enter_root.own_mounts()
    enter_root.mount("disk", sys.argv[1], "tmpfs", options=f"size={sys.argv[2]}")
    os.execv(sys.argv[3], sys.argv[3:])
