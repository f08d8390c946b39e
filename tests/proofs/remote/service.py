"""Starts the service of //tools/remote:up, and a Bazel that builds through it."""

from __future__ import annotations

import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

from release.private.reproduce.second_workspace import SecondWorkspace, digests
from tests.proofs import proof
from tools.remote import up

STARTING = 180  # seconds


class RemoteService:
    """Runs up.py as a process; leaving the context stops everything.

    Args:
        state: its state folder.
        *arguments: further arguments.
    """

    def __init__(self, state: pathlib.Path, *arguments: str) -> None:
        self.state = state
        self.log = state.with_name(state.name + ".log")
        self.command = [sys.executable, up.__file__, f"--state={state}", "--port=0", *arguments]

    def __enter__(self) -> RemoteService:
        self.log.write_bytes(b"")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=log, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
            )
        began = time.monotonic()
        while not (found := re.search(r"--remote_executor=grpc://\S+", self.said())):
            if self.process.poll() is not None or time.monotonic() - began > STARTING:
                raise AssertionError("the service does not start:\n" + self.said())
            time.sleep(0.2)
        self.flags = ["--config=remote", found[0], "--disk_cache="]
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait()
        if failure:
            print(f"The service exited with {code}; it said:\n{self.said()[-10_000:]}", flush=True)

    def said(self) -> str:
        return self.log.read_text()

    def pid(self, last: str) -> int:
        """The process that up.py started with this last argument."""
        for folder in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                arguments = (folder / "cmdline").read_text().rstrip("\0").split("\0")
            except OSError:  # It has ended.
                continue
            if parent == self.process.pid and arguments[-1] == last:
                return int(folder.name)
        raise AssertionError(f"up.py has started nothing with {last}")

    def stored(self) -> list[pathlib.Path]:
        """The files of all stored blobs."""
        return list((self.state / "storage/cas/objects").glob("??/*"))


class Build:
    """Builds targets in a second workspace through a service.

    Args:
        workspace: the second workspace.
        artifacts: outputs, as paths below bazel-bin.
        targets: the targets that make them.
    """

    def __init__(self, workspace: SecondWorkspace, artifacts: list[str], targets: list[str]) -> None:
        self.workspace = workspace
        self.artifacts = artifacts
        self.targets = targets
        self.events = workspace.place / "events.json"

    def command(self, service: RemoteService, *flags: str) -> list[str]:
        return ["build", *service.flags, *proof.QUIET, f"--build_event_json_file={self.events}", *flags, *self.targets]

    def run(self, service: RemoteService, *flags: str, clean: bool = True) -> None:
        """Builds.

        Raises:
            subprocess.CalledProcessError: the build fails.
        """
        if clean:
            self.workspace.bazel("clean")
        self.workspace.bazel(*self.command(service, *flags))

    def runners(self) -> dict[str, int]:
        """How the last build ran its actions: "remote", "remote cache hit", "internal" or otherwise → count."""
        return proof.runners(self.events)

    def digests(self) -> dict[str, str]:
        """The digests of the artifacts."""
        return digests([proof.bazel_bin(self.workspace) / artifact for artifact in self.artifacts])


def place() -> tempfile.TemporaryDirectory[str]:
    """A folder for everything that a test writes."""
    return tempfile.TemporaryDirectory(dir=proof.place(), ignore_cleanup_errors=True)
