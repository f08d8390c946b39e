"""A service of //tools/remote:up, and a Bazel that builds through it, for tests."""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

from release.private.reproduce.second_workspace import SecondWorkspace, digests
from tools.remote import up

STARTING = 180  # seconds


class RemoteService:
    """up.py as a process of its own; leaving it stops everything.

    Args:
        state: its state folder.
        *arguments: further ones.
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

    def __exit__(self, *_) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()

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
    """What a second workspace builds, by a service or without.

    Args:
        workspace: the second one.
        artifacts: outputs, as paths below bazel-bin.
        targets: what makes them.
    """

    def __init__(self, workspace: SecondWorkspace, artifacts: list[str], targets: list[str]) -> None:
        self.workspace = workspace
        self.artifacts = artifacts
        self.targets = targets
        self.events = workspace.place / "events.json"

    def command(self, service: RemoteService, *flags: str) -> list[str]:
        quiet = ["--color=no", "--curses=no", "--show_progress_rate_limit=30"]
        return ["build", *service.flags, *quiet, f"--build_event_json_file={self.events}", *flags, *self.targets]

    def run(self, service: RemoteService, *flags: str, clean: bool = True) -> None:
        """Builds; an assertion says if it fails."""
        if clean:
            self.workspace.bazel("clean")
        self.workspace.bazel(*self.command(service, *flags))

    def runners(self) -> dict[str, int]:
        """How many actions of the last build ran where, as Bazel counts them: "remote", "remote cache hit", "internal",
        and what else there was.
        """
        for line in self.events.read_text().splitlines():
            event = json.loads(line)
            if "buildMetrics" in event:
                counts = event["buildMetrics"]["actionSummary"]["runnerCount"]
                return {each["name"]: each["count"] for each in counts if each["name"] != "total"}
        raise AssertionError("Bazel wrote no metrics")

    def digests(self) -> dict[str, str]:
        binaries = pathlib.Path(self.workspace.bazel("info", "--color=no", "bazel-bin").stdout.strip())
        return digests([binaries / artifact for artifact in self.artifacts])


def arguments(about: str | None) -> argparse.Namespace:
    """What the BUILD file passes."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--workspace_file", type=pathlib.Path, required=True, help="a file at the workspace's root")
    parser.add_argument(
        "--artifacts", nargs="+", required=True, help="outputs of the local build, as paths below bazel-bin"
    )
    return parser.parse_args()


def place() -> tempfile.TemporaryDirectory:
    """A folder for all that a test makes."""
    return tempfile.TemporaryDirectory(dir=os.environ["TEST_TMPDIR"], ignore_cleanup_errors=True)
