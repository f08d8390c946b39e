"""Promise: the rules_oci stand-in's tools write the same bytes everywhere, refuse what they cannot honour, and push in a safe order."""

from __future__ import annotations

import base64
import gzip
import hashlib
import http.server
import importlib.util
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import threading
import unittest
import urllib.parse
from pathlib import Path
from types import ModuleType


def runfile(variable: str) -> Path:
    """The file that the BUILD file names in an environment variable."""
    return Path(os.environ["TEST_SRCDIR"], os.environ[variable])


def load(variable: str) -> ModuleType:
    """Imports a tool from its path."""
    specification = importlib.util.spec_from_file_location(variable.lower(), runfile(variable))
    assert specification and specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


ARCHIVE, DESCRIPTOR, LAYOUT, PUSH = map(load, ("ARCHIVE", "DESCRIPTOR", "LAYOUT", "PUSH"))
SPEC = {
    "base": None,
    "files": {},
    "label": "//:image",
    "layers": [["layer.tar", "layer.json"]],
    "platform": {"os": "linux", "architecture": "amd64"},
    "values": {"env": "PATH=/bin", "cmd": "a\nb%5Cnc", "labels": "k=v"},
}


class Case(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory(dir=os.environ["TEST_TMPDIR"])
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)

    def image(self, folder: Path, **changes: object) -> Path:
        """Writes an image with one small layer; returns its layout."""
        folder.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w"):
            pass
        (folder / "layer.tar").write_bytes(content.getvalue())
        content.seek(0)
        (folder / "layer.json").write_text(json.dumps(DESCRIPTOR.describe(content, "//:layer")))
        layers = [[str(folder / name) for name in pair] for pair in SPEC["layers"]]
        LAYOUT.write_image({**SPEC, "layers": layers, **changes}, folder / "layout")
        return folder / "layout"


class DescriptorTest(Case):
    def test_gzip_of_several_members_is_described(self) -> None:
        content = os.urandom(3_000_000)
        packed = gzip.compress(content[:1000]) + gzip.compress(content[1000:])
        description = DESCRIPTOR.describe(io.BytesIO(packed), "//:layer")
        self.assertEqual(description["diff_id"], f"sha256:{hashlib.sha256(content).hexdigest()}")
        self.assertEqual(description["descriptor"]["digest"], f"sha256:{hashlib.sha256(packed).hexdigest()}")
        self.assertEqual(description["descriptor"]["size"], len(packed))
        self.assertTrue(description["descriptor"]["mediaType"].endswith("+gzip"))

    def test_zstd_and_damaged_layers_are_refused(self) -> None:
        packed = gzip.compress(os.urandom(100_000))
        for content, message in [
            (b"\x28\xb5\x2f\xfd....", "zstd need --config=upstream"),
            (packed[:-10], "ends early"),
            (packed[:1000] + bytes(100) + packed[1100:], "found damage"),
        ]:
            with self.assertRaisesRegex(DESCRIPTOR.LayerError, message):
                DESCRIPTOR.describe(io.BytesIO(content), "//:layer")


class LayoutTest(Case):
    def test_bytes_depend_on_content_alone(self) -> None:
        trees = []
        for number, (umask, zone) in enumerate([(0o022, "UTC"), (0o077, "Asia/Tokyo")]):
            folder = self.folder / str(number)
            self.image(folder / "inputs")
            for name in ("layer.tar", "layer.json"):
                (folder / "inputs" / name).rename(folder / name)
                os.utime(folder / name, (number, number))
            (folder / "spec.json").write_text(json.dumps(dict(SPEC if number else reversed(SPEC.items()))))
            command = [sys.executable, "-I", "-B", runfile("LAYOUT").resolve(), "image", "--spec=spec.json", "--output=out", "--digest=digest"]
            subprocess.run(command, check=True, cwd=folder, env={"TZ": zone}, umask=umask)
            files = {str(path.relative_to(folder / "out")): path.read_bytes() for path in (folder / "out").rglob("*") if path.is_file()}
            trees.append({**files, "digest": (folder / "digest").read_bytes()})
        self.assertEqual(trees[0], trees[1])

    def test_archive_has_no_time_and_no_owner(self) -> None:
        output = io.BytesIO()
        ARCHIVE.write_archive(self.image(self.folder), "docker", ["a/b:c"], output)
        output.seek(0)
        with tarfile.open(fileobj=output) as archive:
            members = archive.getmembers()
            self.assertEqual({(member.mtime, member.uid, member.gid, member.uname) for member in members}, {(0, 0, 0, "")})
            (entry,) = json.load(archive.extractfile("manifest.json"))  # type: ignore[arg-type]
        self.assertEqual(entry["RepoTags"], ["a/b:c"])
        self.assertEqual({entry["Config"], *entry["Layers"], "manifest.json"}, {member.name for member in members})

    def test_archive_of_the_other_kind_is_refused(self) -> None:
        with self.assertRaisesRegex(ValueError, 'format = "oci" takes an oci_image_index'):
            ARCHIVE.write_archive(self.image(self.folder), "oci", [], io.BytesIO())

    def test_values_without_meaning_are_refused(self) -> None:
        for values, message in [
            ({"env": "PATH=$NOWHERE/bin"}, "env: PATH=.NOWHERE/bin needs NOWHERE, which neither"),
            ({"labels": "novalue"}, "labels: expected KEY=VALUE, found 'novalue'"),
            ({"created": "1970-01-01T00:00:00Z\n"}, "created: expected a time .* and no newline"),
        ]:
            with self.assertRaisesRegex(LAYOUT.ImageError, message):
                self.image(self.folder, values=values)

    def test_newline_inside_an_argument_is_kept(self) -> None:
        layout = LAYOUT.Layout(self.image(self.folder))
        config = layout.read(layout.read(layout.single()["digest"])["config"]["digest"])
        self.assertEqual(config["config"]["Cmd"], ["a", "b\nc"])


class FakeRegistry(http.server.BaseHTTPRequestHandler):
    """As much of a registry as a push needs, with tokens; remembers what was asked of it."""

    protocol_version = "HTTP/1.1"
    blobs: dict[str, bytes]
    manifests: list[tuple[str, str, bytes]]
    log: list[str]

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urllib.parse.urlsplit(self.path)
        host = self.headers["Host"]
        if url.path == "/token":
            query = dict(urllib.parse.parse_qsl(url.query))
            if self.headers["Authorization"] != "Basic " + base64.b64encode(b"me:secret").decode():
                return self.answer(401, body=b"who are you?")
            return self.answer(200, body=json.dumps({"token": f"for {query['scope']}"}).encode())
        if self.headers["Authorization"] != "Bearer for repository:team/app:pull,push":
            challenge = f'Bearer realm="http://{host}/token",service="test",scope="repository:team/app:pull,push"'
            return self.answer(401, {"WWW-Authenticate": challenge})
        name = url.path.rpartition("/")[2]
        self.log.append(f"{self.command} {url.path}")
        if self.command == "HEAD":
            return self.answer(200 if name in self.blobs else 404)
        if self.command == "POST":
            return self.answer(202, {"Location": "/v2/team/app/blobs/uploads/1?state=x"})
        if "/manifests/" in url.path:
            if name == "forbidden":
                return self.answer(403, body=b"this tag is not to be moved")
            self.manifests.append((name, self.headers["Content-Type"], body))
            return self.answer(201)
        digest = dict(urllib.parse.parse_qsl(url.query))["digest"]
        good = digest == f"sha256:{hashlib.sha256(body).hexdigest()}"
        if good:
            self.blobs[digest] = body
        return self.answer(201 if good else 400)

    do_GET = do_HEAD = do_POST = do_PUT = handle_any


class PushTest(Case):
    def setUp(self) -> None:
        super().setUp()
        self.handler = type("Handler", (FakeRegistry,), {"blobs": {}, "manifests": [], "log": []})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self.handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        self.host = f"127.0.0.1:{server.server_port}"
        self.login("me:secret")

    def login(self, user: str) -> None:
        """Writes the file that `podman login` writes."""
        entry = {"auths": {self.host: {"auth": base64.b64encode(user.encode()).decode()}}}
        (self.folder / "auth.json").write_text(json.dumps(entry))

    def push(self, layout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs the tool as `bazel run` does."""
        command = [sys.executable, "-I", "-B", runfile("PUSH").resolve(), f"--layout={layout}", *arguments]
        return subprocess.run(command, env={"REGISTRY_AUTH_FILE": str(self.folder / "auth.json")}, capture_output=True, text=True)

    def test_tags_come_last_and_blobs_are_sent_once(self) -> None:
        layout = self.image(self.folder)
        digest = LAYOUT.Layout(layout).single()["digest"]
        done = self.push(layout, "--repository", f"{self.host}/team/app", "-t", "one", "--tag=two")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stdout.splitlines(), [f"{self.host}/team/app@{digest}", f"{self.host}/team/app:one", f"{self.host}/team/app:two"])
        self.assertEqual([name for name, _, _ in self.handler.manifests], [digest, "one", "two"])
        manifest = json.loads(self.handler.manifests[0][2])
        self.assertEqual({manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])}, set(self.handler.blobs))
        puts = [number for number, line in enumerate(self.handler.log) if line.startswith("PUT /v2/team/app/manifests/")]
        self.assertEqual(puts, list(range(len(self.handler.log) - 3, len(self.handler.log))), "manifests follow every blob")
        self.handler.log.clear()
        self.assertEqual(self.push(layout, "--repository", f"{self.host}/team/app").returncode, 0)
        self.assertFalse([line for line in self.handler.log if line.startswith("POST")], "nothing is sent twice")

    def test_index_is_pushed_after_its_images(self) -> None:
        image = self.image(self.folder)
        LAYOUT.write_index({"images": [str(image)]}, self.folder / "index")
        done = self.push(self.folder / "index", "-r", f"{self.host}/team/app")
        self.assertEqual(done.returncode, 0, done.stderr)
        expected = [LAYOUT.Layout(layout).single() for layout in (image, self.folder / "index")]
        self.assertEqual([(name, kind) for name, kind, _ in self.handler.manifests], [(each["digest"], each["mediaType"]) for each in expected])

    def test_refusals_name_the_registry_s_reason(self) -> None:
        layout = self.image(self.folder)
        done = self.push(layout, "-r", f"{self.host}/team/app", "-t", "forbidden")
        self.assertEqual(done.returncode, 1)
        self.assertIn("putting the manifest forbidden: expected 201, found 403 Forbidden this tag is not to be moved", done.stderr)
        self.login("me:wrong")
        done = self.push(layout, "-r", f"{self.host}/team/app")
        self.assertEqual(done.returncode, 1)
        self.assertIn(f"no token for team/app: 401 Unauthorized who are you?; log in with `podman login {self.host}`", done.stderr)
        for repository, message in ("127.0.0.1:1/x:tag", "without tag or digest"), ("127.0.0.1:1/x", "refused"):
            self.assertIn(message, self.push(layout, "-r", repository).stderr)
        self.assertIn("no repository: pass --repository", self.push(layout).stderr)


if __name__ == "__main__":
    unittest.main()
