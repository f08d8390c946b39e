"""A Debian mirror, an index of Python packages, registries of crates and jars on loopback, one small file each."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import tarfile
import threading
import zipfile

from tests.private.deb import deb as debian_package

DEB = "pool/main/s/small/small_1-1_all.deb"
WHEEL = "installer-1.1.0-py3-none-any.whl"
SDIST = "sentencepiece-0.2.0.tar.gz"
CRATE = "itoa/1.0.15/download"
JAR = "org/bytedeco/cpython/0/cpython-0-linux-x86_64.jar"

# Files of the package, which also stands in for headers, Maven and Rust. Nothing runs them.
FILES = (
    "lib64/ld-linux-x86-64.so.2",
    "usr/bin/cargo",
    "usr/bin/rustc",
    "usr/include/small.h",
    "usr/share/java/maven3-model-builder.jar",
    "usr/share/doc/small/copyright",
)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def flipped(data: bytes, at: int | None = None) -> bytes:
    """The data with one bit flipped, in the middle unless `at` says where."""
    place = len(data) // 2 if at is None else at
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def tar_of(files: dict[str, str]) -> bytes:
    """A .tar.gz: path → text."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    return packed.getvalue()


def deb() -> bytes:
    """A Debian package with FILES."""
    return debian_package(
        {
            "control.tar.gz": tar_of({"./control": "Package: small\nVersion: 1-1\nArchitecture: all\n"}),
            "data.tar.gz": tar_of({f"./{name}": "small\n" for name in FILES}),
        }
    )


def wheel() -> bytes:
    """A wheel of the distribution installer, complete enough to unpack (binary distribution format)."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("installer/__init__.py", "VALUE = 1\n")
        archive.writestr(
            "installer-1.1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: installer\nVersion: 1.1.0\n"
        )
        archive.writestr(
            "installer-1.1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("installer-1.1.0.dist-info/RECORD", "")
    return packed.getvalue()


def jar() -> bytes:
    """A jar with a file for each of the patterns in toolchains/python/python.MODULE.bazel."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in ("bin/python3.12", "include/python3.12/Python.h", "lib/python3.12/os.py", "libpython3.12.so.1.0"):
            archive.writestr(f"org/bytedeco/cpython/linux-x86_64/{name}", "small\n")
    return packed.getvalue()


class Server:
    """Serves `files`, path → bytes, on loopback, and 404 for any other path; `index` adds a page of PEP 691."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        ours = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.lstrip("/")
                ours.asked.append(path)
                data = ours.files.get(path)
                self.send_response(200 if data is not None else 404)
                self.send_header("Content-Length", str(len(data or b"")))
                self.send_header(
                    "Content-Type",
                    "application/vnd.pypi.simple.v1+json" if path.startswith("simple/") else "application/octet-stream",
                )
                self.end_headers()
                self.wfile.write(data or b"")

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def index(self, project: str, filename: str, data: bytes) -> None:
        """Serves a file, and lists it with the hash of its bytes."""
        page = {
            "meta": {"api-version": "1.0"},
            "name": project,
            "files": [
                {"filename": filename, "url": f"{self.url}/files/{filename}", "hashes": {"sha256": sha256(data)}}
            ],
        }
        self.files[f"simple/{project}/"] = json.dumps(page).encode()
        self.files[f"files/{filename}"] = data

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
