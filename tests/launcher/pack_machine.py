"""A machine with packs: small locks, what they pin, and the launcher with every server out of reach."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fake_machine import FakeMachine, sha256

from tools import pack
from tools.launcher import pack_format

# Contents of the locked files. Only the later lock has NEW_DEB.
DEB, NEW_DEB, WHEEL, SDIST, CRATE, MODEL, SOURCE = (
    b"a deb" * 999,
    b"a newer deb" * 99,
    b"a wheel" * 99,
    b"an sdist",
    b"a crate",
    b"weights" * 99,
    b"a tar of git",
)


def locks(deb: bytes = DEB, version: str = "1-1", more_wheels: Sequence[tuple[str, str]] = ()) -> dict[str, str]:
    """Returns the locks that pin these files, by name."""
    hashes = {
        name: sha256(data)
        for name, data in {"wheel": WHEEL, "sdist": SDIST, "crate": CRATE, "model": MODEL, "source": SOURCE}.items()
    }
    lines = [
        f"my-wheel==2.0 \\\n    --hash=sha256:{hashes['wheel']}\n",
        *(f"{name}==1 \\\n    --hash=sha256:{digest}\n" for name, digest in more_wheels),
    ]
    sources = {
        "archive": {
            "registry": "pypi",
            "version": "3",
            "file": "archive-3.tar.gz",
            "size": len(SDIST),
            "sha256": hashes["sdist"],
        },
        "repository": {
            "registry": "git",
            "repository": "https://example.org/r",
            "commit": "c" * 40,
            "paths": ["a"],
            "sha256": hashes["source"],
        },
    }
    return {
        "debian.lock.json": json.dumps(
            {"sets": {"cc": ["bookworm/x"]}, "packages": {"bookworm/x": {"version": version, "sha256": sha256(deb)}}}
        ),
        "clients.lock.txt": "",
        "pythons.lock.json": '{"pythons": {}}',
        "requirements.lock.txt": "".join(lines),
        "requirements_arm64.lock.txt": "",
        "crates.lock.json": json.dumps(
            {"sets": {}, "crates": {"1/itoa": {"name": "itoa", "version": "1.0.15", "sha256": hashes["crate"]}}}
        ),
        "models.lock.json": json.dumps(
            {
                "models": {
                    "small": {
                        "registry": "hub",
                        "commit": "d" * 40,
                        "files": {"model.safetensors": {"sha256": hashes["model"], "size": len(MODEL)}},
                    }
                }
            }
        ),
        "sources.lock.json": json.dumps({"sources": sources}),
    }


class PackMachine(FakeMachine):
    """A machine with locks and paths for packs of what they pin."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.folder_of_files = self.folder / "files"
        self.folder_of_files.mkdir()
        self.lock()
        self.pack = self.folder / "one.pack"
        self.new = self.folder / "two.pack"
        # The digests that the authors of the packs told the user.
        self.digests: list[str] = []
        self.sockets = self.folder / "sockets"

    def lock(self, **how: Any) -> None:
        self.locks = locks(**how)
        for name, text in self.locks.items():
            (self.root / "locks" / name).write_text(text)

    def content(
        self, deb: bytes = DEB, version: str = "1-1", cuda: bool = False, left_out: Sequence[str] = ()
    ) -> pack.Content:
        """Returns what //tools:pack would collect for the current locks."""
        files: dict[str, Path] = {}
        blobs: list[pack_format.Blob] = []
        bazel: dict[str, Any] = {"bazel": self.VERSION, "packages": {}, "wheels": {}}

        def add(data: bytes, kind: str, name: str, version: str, file: str) -> str:
            digest = sha256(data)
            files[digest] = self.folder_of_files / digest
            files[digest].write_bytes(data)
            blobs.append(pack_format.Blob(digest, len(data), kind, name, version, file))
            return digest

        for name, data in self.packages.items():
            of = "7.7.1+ds-8+b1" if name == "bazel-bootstrap" else "2.40"
            bazel["packages"][name] = {
                "version": of,
                "sha256": add(data, "bazel", name, of, name + ".deb"),
                "suite": "forky",
            }
        for project, filename, *_ in self.pins:
            bazel["wheels"][filename] = {
                "sha256": add(self.server.files[f"/files/{filename}"], "bazel", project, "1", filename)
            }
        add(deb, "deb", "bookworm/x", version, "x.deb")
        add(WHEEL, "wheel", "my-wheel", "2.0", "my_wheel-2.0-py3-none-any.whl")
        add(SDIST, "sdist", "archive", "3", "archive-3.tar.gz")
        add(CRATE, "crate", "itoa", "1.0.15", "itoa-1.0.15.crate")
        add(MODEL, "model", "small", "d" * 40, "model.safetensors")
        add(SOURCE, "git", "repository", "c" * 40, "repository.tar")
        about = {
            "format": pack_format.FORMAT,
            "profile": "registries",
            "cuda": cuda,
            "sources": True,
            "locks": {name: sha256(text.encode()) for name, text in self.locks.items()},
            "left_out": sorted(left_out),
            "bazel": bazel,
            "base": None,
            "from_base": [],
        }
        return pack.Content(sorted(blobs, key=lambda blob: blob.sha256), files, about)

    def write(self, path: Path | None = None, **how: Any) -> Path:
        return self.write_content(self.content(**how), path or self.pack)

    def write_content(self, content: pack.Content, path: Path) -> Path:
        pack.write(content, path)
        self.digests.append(pack.digest(content))
        return path

    def start_with(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        """Runs the launcher with every server unreachable."""
        away = {
            "MLC_DEBIAN_MIRROR": "http://127.0.0.1:1/debian",
            "PIP_INDEX_URL": "http://127.0.0.1:1/simple",
            "MLC_PROFILE": "",
            "MLC_AIRGAP_DIGEST": " ".join(self.digests),
        }
        fake = {"upstream": {"upstream": self.server.url + "/asked"}, "sockets": str(self.sockets)}
        done = self.run_launcher(*arguments, fake=fake, **{**away, **environment})
        assert self.sockets.read_text() == ""
        return done

    def built(self, *arguments: str, **environment: str) -> tuple[list[str], str]:
        """Returns Bazel's arguments and the launcher's messages."""
        done = self.start_with(*arguments, **environment)
        assert done.returncode == 0, done.stderr
        assert self.server.requests == []
        return [line.split(" ", 1)[1] for line in done.stdout.splitlines() if line.startswith("argument ")], done.stderr

    def refused(self, *parts: str, arguments: Sequence[str] = (), **environment: str) -> str:
        """Asserts that the launcher fails with all of these parts in its message and does not start Bazel."""
        done = self.start_with(*(arguments or [f"--airgap={self.pack}", "build", "//x"]), **environment)
        assert (done.returncode, done.stdout) == (1, ""), done.stderr
        for part in parts:
            assert part in done.stderr
        assert "Traceback" not in done.stderr
        assert self.server.requests == []
        return done.stderr

    def value(self, arguments: list[str], start: str) -> str:
        (found,) = [argument[len(start) :] for argument in arguments if argument.startswith(start)]
        return found
