"""A release to push: a small image and an index of two, with documents, a gate's stamp and a key; and the command."""

from __future__ import annotations

import json
import os
import pathlib
import random
import subprocess
import sys

from oci import layout as oci_layout
from release.private import push, stamp
from tests.oci import layouts

TOOLS = {name: os.path.abspath(os.environ[name.upper()]) for name in ("cosign", "oras", "skopeo")}
REGISTRY = os.environ["REGISTRY"]

DOCUMENTS = {
    "application/spdx+json": "image.spdx.json",
    "application/vnd.cyclonedx+json": "image.cdx.json",
    "application/vnd.in-toto+json": "provenance.json",
}
# Of the index and of an image in it.
OTHER_DOCUMENTS = {
    ("other", "application/vnd.in-toto+json"): "other.provenance.json",
    ("other_amd64", "application/vnd.in-toto+json"): "other.provenance.json",
    ("other_arm64", "application/vnd.in-toto+json"): "other.provenance.json",
    ("other_arm64", "application/spdx+json"): "other_arm64.spdx.json",
}
# Bytes.
LARGE = 4_000_000
KEY_PASSWORD = "of the key"


def write_image(
    layout: pathlib.Path, seed: int, revision: str = "unstamped", version: str = "1.2.3", architecture: str = "amd64"
) -> str:
    """Writes a small image and returns its digest.

    Its two layers do not compress; the second is large enough to be cut in the middle.
    """
    noise = random.Random(seed)
    layouts.write_layout(
        layout,
        [{"noise": noise.randbytes(size)} for size in (1_000, LARGE)],
        labels={"revision": revision, "version": version},
        architecture=architecture,
    )
    return stamp.image_digest(layout)


class Release:
    """An image, an index, their documents, a gate's stamp and a key, and the command that pushes them."""

    def __init__(self, folder: pathlib.Path, revision: str = "unstamped", version: str = "1.2.3") -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.version = version
        self.home = folder / "home"
        self.home.mkdir()
        self.layouts = {name: folder / name for name in ("small", "other")}
        write_image(self.layouts["small"], 0, revision, version)
        both = {each: folder / f"other_{each}" for each in ("amd64", "arm64")}
        for seed, (each, layout) in enumerate(both.items()):
            write_image(layout, seed + 1, revision, version, each)
        layouts.write_index(self.layouts["other"], both.values())
        self.digests = {
            each: digest
            for name, layout in self.layouts.items()
            for each, digest in oci_layout.named_digests(name, layout).items()
        }
        for name in (*DOCUMENTS.values(), *OTHER_DOCUMENTS.values()):
            (folder / name).write_text(json.dumps({"name": name}))
        self.documents = {("small", kind): name for kind, name in DOCUMENTS.items()} | OTHER_DOCUMENTS
        self.gate = folder / "gate.json"
        self.gate.write_text(
            json.dumps(
                {"artifacts": {name: stamp.describe(layout) for name, layout in self.layouts.items()}, "tests": []}
            )
        )
        self.settings = folder / "settings.json"
        self.settings.write_text('{"image_repository": ""}')
        self.key, self.public_key = self._key("cosign")

    def _key(self, name: str) -> tuple[pathlib.Path, pathlib.Path]:
        self.tool("cosign", "generate-key-pair", "--output-key-prefix", str(self.folder / name))
        return self.folder / f"{name}.key", self.folder / f"{name}.pub"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "HOME": str(self.home),
            "PATH": "/usr/bin:/bin",
            "COSIGN_PASSWORD": KEY_PASSWORD,
            "PYTHONPATH": os.pathsep.join(sys.path),
        }

    def command(self, *arguments: str) -> list[str]:
        fixed = [f"--layout={name}={layout}" for name, layout in self.layouts.items()]
        fixed += [f"--document={of}={kind}={self.folder / name}" for (of, kind), name in self.documents.items()]
        fixed += [f"--gate={self.gate}", f"--settings={self.settings}", f"--version={self.version}"]
        fixed += [f"--oras={TOOLS['oras']}", f"--cosign={TOOLS['cosign']}"]
        return [sys.executable, push.__file__, *fixed, *arguments]

    def push(self, *arguments: str, signed: bool = True, **environment: str) -> subprocess.CompletedProcess:
        keys = ["--key", str(self.key)] if signed else []
        return subprocess.run(
            self.command(*arguments, *keys), env={**self.environment, **environment}, capture_output=True, text=True
        )

    def check(self, *arguments: str, signed: bool = True, **environment: str) -> subprocess.CompletedProcess:
        """What tools/bazel runs before the tests."""
        command = [each for each in self.command(*arguments) if not each.startswith(("--gate=", "--document="))]
        keys = ["--key", str(self.key)] if signed else []
        return subprocess.run(
            [*command, *keys], env={**self.environment, **environment}, capture_output=True, text=True
        )

    def tool(self, name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [TOOLS[name], *arguments], env={**self.environment, **environment}, capture_output=True, text=True
        )

    def verify(self, reference: str, public_key: pathlib.Path | None = None) -> subprocess.CompletedProcess:
        return self.tool(
            "cosign", "verify", "--key", str(public_key or self.public_key), "--insecure-ignore-tlog=true", reference
        )

    def referrers(self, reference: str) -> dict[str, str]:
        """Type → digest of what is attached."""
        listed = self.tool("oras", "discover", "--plain-http", "--format", "json", reference)
        return {entry["artifactType"]: entry["digest"] for entry in json.loads(listed.stdout)["manifests"]}

    def tags(self, repository: str) -> set[str]:
        """The tags that people see: not those that stand in for lists of referrers and signatures."""
        listed = self.tool("oras", "repo", "tags", "--plain-http", repository)
        return {tag for tag in listed.stdout.split() if not tag.startswith("sha256-")}


def one_line(done: subprocess.CompletedProcess) -> str:
    """The last line of what a failed command says, once it is known that it failed in the expected way."""
    assert done.returncode in (1, 2, 130), done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stderr.splitlines()[-1]
