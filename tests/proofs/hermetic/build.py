"""Builds everything from nothing in a sandbox that has only the files each action declared, and compares the bytes with
those of this build.

Besides an action's inputs that sandbox has the kernel's /dev and /proc, an empty /tmp, and /bin/sh: a static shell from
the locks instead of the machine's. If the bytes are equal, it does not matter which shell a machine has. `//...` is
everything published, everything tests need, and the tests of the gate.
"""

from __future__ import annotations

import json
import pathlib
import shutil
import socket
import sys
import time
from typing import Any

from release.private.reproduce.second_workspace import SecondWorkspace, differences, digests
from tests.proofs import proof
from tests.proofs.hermetic.odd_environment import ODD

OPTIONS = ["--disk_cache=", *proof.QUIET]

# Files that Bazel adds to the sandbox: linux-sandbox's statistics, and a placeholder for forbidden files.
BAZELS = {"/stats.out", "/tmp/empty_file"}

PROBE = """\
load("@bazel_skylib//rules:run_binary.bzl", "run_binary")
load("//tests:defs.bzl", "collect_gate")

run_binary(
    name = "probe",
    testonly = True,
    outs = ["seen.json"],
    args = ["$(execpath seen.json)"] + {arguments},
    tool = "//tests/proofs/hermetic:look_around",
)

collect_gate()
"""


class Build:
    """Builds a second workspace in the ordinary or the hermetic sandbox.

    Args:
        second: the workspace.
        shell: a static program that is a POSIX shell when named sh.
    """

    def __init__(self, second: SecondWorkspace, shell: pathlib.Path) -> None:
        self.second = second
        self.runs = 0
        copy = shutil.copy(shell.resolve(), second.place / "sh")
        self.hermetic = [
            "--experimental_use_hermetic_linux_sandbox",
            "--sandbox_add_mount_pair=/proc",
            f"--sandbox_add_mount_pair={copy}:/bin/sh",
            # "local" is for actions that ask for it; main() counts them.
            "--spawn_strategy=linux-sandbox,local",
        ]

    def run(self, *arguments: str) -> dict[str, int]:
        """Builds; returns how Bazel ran the actions (`proof.runners`)."""
        events = self.second.place / "events.json"
        self.second.bazel("build", *OPTIONS, f"--build_event_json_file={events}", *arguments)
        return proof.runners(events)

    def look_around(self, port: int, ask: list[str], options: list[str]) -> dict[str, Any]:
        """What an action sees (look_around.py) with these options."""
        self.runs += 1
        folder = self.second.root / "tests/proofs/hermetic/probe"
        folder.mkdir(exist_ok=True)
        arguments = [f"--run={self.runs}", f"--port={port}", *(f"--ask={path}" for path in ask)]
        (folder / "BUILD.bazel").write_text(PROBE.format(arguments=json.dumps(arguments)))
        self.run(*options, "//tests/proofs/hermetic/probe")
        return json.loads((proof.bazel_bin(self.second) / "tests/proofs/hermetic/probe/seen.json").read_text())


def differs(what: str, expected: object, found: object) -> str | None:
    """A line that says so, if `found` is not what was expected."""
    return None if expected == found else f"{what}: expected {expected!r}, found {found!r}"


def look(build: Build) -> list[str | None]:
    """What actions see of files, environment and network. Each question is first asked where the answer is yes, so
    that a no means something.
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
    parser = proof.parser(__doc__, artifacts=True)
    parser.add_argument(
        "--shell", type=pathlib.Path, required=True, help="a static program that is a POSIX shell when named sh"
    )
    parser.add_argument("--targets", nargs="+", default=["//..."], help="what to build (default: everything)")
    arguments = parser.parse_args()

    first = digests([pathlib.Path(artifact) for artifact in arguments.artifacts])
    with SecondWorkspace(arguments.workspace, proof.place()) as second:
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
        outside = {name: count for name, count in ran.items() if name not in ("internal", "linux-sandbox", "local")}
        found.append(differs("actions run in any other way", {}, outside))

        binaries = proof.bazel_bin(second)
        different = differences(
            first, digests([binaries / artifact for artifact in arguments.artifacts]), "the hermetic one"
        )
        print(f"{len(first)} files compared with this build's, {len(different)} differ", flush=True)
        found += different

        second.environment |= ODD
        odd = build.run(*build.hermetic, *arguments.targets)
        print(f"with {len(ODD)} variables set, once more; actions: {odd}", flush=True)
        found.append(
            differs(
                "actions run again because of the environment",
                {},
                {name: count for name, count in odd.items() if name != "internal"},
            )
        )
    print("\n".join(filter(None, found)))
    return 0 if first and not any(found) else 1


if __name__ == "__main__":
    sys.exit(main())
