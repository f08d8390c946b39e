"""Builds everything, from nothing, in a sandbox that has no file but what each action declared, and compares the bytes
with those of this build.

Beside an action's inputs that sandbox has the kernel's /dev and /proc, an empty /tmp, and one file, /bin/sh: not the
machine's, but a static one out of the
locks. Equal bytes so say that it does not matter whose shell a machine has. `//...` is all that is published, all that
tests need, and the tests of the gate.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import shutil
import socket
import sys
import time
from typing import Any

from release.private.reproduce.second_workspace import SecondWorkspace, digests
from tests.proofs.hermetic.odd_environment import ODD

OPTIONS = ["--disk_cache=", "--color=no", "--curses=no", "--show_progress_rate_limit=30"]

# What else lies in the sandbox: where linux-sandbox writes how much time and memory an action took, and what it shows
# in place of a forbidden file.
BAZELS = {"/stats.out", "/tmp/empty_file"}

PROBE = """\
load("@bazel_skylib//rules:run_binary.bzl", "run_binary")

run_binary(
    name = "probe",
    testonly = True,
    outs = ["seen.json"],
    args = ["$(execpath seen.json)"] + {arguments},
    tool = "//tests/proofs/hermetic:look_around",
)
"""


class Build:
    """Builds in a second workspace, in the ordinary or in the hermetic sandbox.

    Args:
        second: the workspace.
        shell: a static program that is a POSIX shell under the name sh.
    """

    def __init__(self, second: SecondWorkspace, shell: pathlib.Path) -> None:
        self.second = second
        self.runs = 0
        copy = shutil.copy(shell.resolve(), second.place / "sh")
        self.hermetic = [
            "--experimental_use_hermetic_linux_sandbox",
            "--sandbox_add_mount_pair=/proc",
            f"--sandbox_add_mount_pair={copy}:/bin/sh",
            # Local: only what asks for it, counted below.
            "--spawn_strategy=linux-sandbox,local",
        ]

    def run(self, *arguments: str) -> dict[str, int]:
        """Builds; returns how many actions were run in which way, as Bazel counts them: {"total": 700, "internal": 300,
        "linux-sandbox": 395, "local": 5}.
        """
        events = self.second.place / "events.json"
        self.second.bazel("build", *OPTIONS, f"--build_event_json_file={events}", *arguments)
        for line in events.read_text().splitlines():
            metrics = json.loads(line).get("buildMetrics")
            if metrics:
                return {each["name"]: each.get("count", 0) for each in metrics["actionSummary"].get("runnerCount", [])}
        raise ValueError(f"{events}: expected an event buildMetrics, found none")

    def outputs(self) -> pathlib.Path:
        """The folder bazel-bin."""
        return pathlib.Path(self.second.bazel("info", "--color=no", "bazel-bin").stdout.strip())

    def look_around(self, port: int, ask: list[str], options: list[str]) -> dict[str, Any]:
        """What an action sees (look_around.py) under these options."""
        self.runs += 1
        folder = self.second.root / "tests/proofs/hermetic/probe"
        folder.mkdir(exist_ok=True)
        arguments = [f"--run={self.runs}", f"--port={port}", *(f"--ask={path}" for path in ask)]
        (folder / "BUILD.bazel").write_text(PROBE.format(arguments=json.dumps(arguments)))
        self.run(*options, "//tests/proofs/hermetic/probe")
        return json.loads((self.outputs() / "tests/proofs/hermetic/probe/seen.json").read_text())


def differs(what: str, expected: object, found: object) -> str | None:
    """A line that says so, if it does."""
    return None if expected == found else f"{what}: expected {expected!r}, found {found!r}"


def look(build: Build) -> list[str | None]:
    """What actions see of files, environment and network; first where they do see it, so that the question is known to
    be a good one.
    """
    ask = [
        "/etc/passwd",
        "/usr/bin/env",
        str(build.second.root / "MODULE.bazel"),
        str(build.second.place / "base/command.log"),
    ]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        open_ = build.look_around(port, ask, ["--sandbox_default_allow_network=true"])
        ordinary = build.look_around(port, ask, [])
        build.second.environment |= ODD
        hermetic = build.look_around(port, ask, build.hermetic)
        for name in ODD:
            del build.second.environment[name]
    return [
        differs("with network allowed an action reaches a server on this machine", True, open_["reaches"]),
        differs("an action reaches a server on this machine", False, ordinary["reaches"]),
        differs("an action's network interfaces", ["lo"], ordinary["interfaces"]),
        differs("the machine's files in the ordinary sandbox", ask, ordinary["there"]),
        differs("the machine's files in the hermetic sandbox", [], hermetic["there"]),
        differs("an action reaches a server on this machine, from the hermetic sandbox", False, hermetic["reaches"]),
        differs(
            "all files that an action did not declare", ["/bin/sh"], sorted(set(hermetic["files"] or ["?"]) - BAZELS)
        ),
        differs(
            "variables of an odd environment that an action sees",
            [],
            sorted(hermetic["environment"].items() & ODD.items()),
        ),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace_file", type=pathlib.Path, required=True, help="a file at the workspace's root")
    parser.add_argument(
        "--shell", type=pathlib.Path, required=True, help="a static program that is a POSIX shell under the name sh"
    )
    parser.add_argument(
        "--artifacts", nargs="+", required=True, help="outputs of the first build, as paths below bazel-bin"
    )
    parser.add_argument("--targets", nargs="+", default=["//..."], help="what to build (default: everything)")
    arguments = parser.parse_args()

    first = digests([pathlib.Path(artifact) for artifact in arguments.artifacts])
    with SecondWorkspace(arguments.workspace_file.resolve().parent, pathlib.Path(os.environ["TEST_TMPDIR"])) as second:
        build = Build(second, arguments.shell)
        found = look(build)
        print(
            f"what an action sees: {len(found)} questions, {len(list(filter(None, found)))} with another answer than"
            " expected",
            flush=True,
        )

        began = time.monotonic()
        ran = build.run(*build.hermetic, *arguments.targets)
        print(f"{time.monotonic() - began:.0f} s in the hermetic sandbox; actions: {ran}", flush=True)
        outside = {
            name: count for name, count in ran.items() if name not in ("total", "internal", "linux-sandbox", "local")
        }
        found.append(differs("actions run in yet another way", {}, outside))

        again = digests([build.outputs() / artifact for artifact in arguments.artifacts])
        different = [name for name in sorted(first.keys() | again.keys()) if first.get(name) != again.get(name)]
        print(f"{len(first)} files compared with this build's, {len(different)} differ", flush=True)
        found += [
            f"{name}: {first.get(name, 'missing')} in this build, {again.get(name, 'missing')} in the hermetic one"
            for name in different
        ]

        second.environment |= ODD
        odd = build.run(*build.hermetic, *arguments.targets)
        print(f"with {len(ODD)} variables set, once more; actions: {odd}", flush=True)
        found.append(
            differs(
                "actions run again because of the environment",
                {},
                {name: odd[name] for name in odd if name not in ("total", "internal")},
            )
        )
    print("\n".join(filter(None, found)))
    return 0 if first and not any(found) else 1


if __name__ == "__main__":
    sys.exit(main())
