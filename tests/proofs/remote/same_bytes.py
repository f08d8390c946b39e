"""A clean build on workers has the digests of the local build, and runs nothing locally."""

from __future__ import annotations

import pathlib
import sys
import time

from release.private.reproduce.second_workspace import SecondWorkspace, differences, digests
from tests.proofs import proof
from tests.proofs.remote import service

TARGETS = ["//wheels/...", "//images/..."]
REMOTE = {"internal", "remote", "remote cache hit"}


def main() -> int:
    options = proof.parser(__doc__, artifacts=True).parse_args()
    here = digests([pathlib.Path(artifact) for artifact in options.artifacts])
    with service.place() as place:
        folder = pathlib.Path(place)
        with (
            SecondWorkspace(options.workspace, folder) as second,
            service.RemoteService(folder / "state") as remote,
        ):
            build = service.Build(second, options.artifacts, TARGETS)
            began = time.monotonic()
            build.run(remote, clean=False)
            cold, runners, there = time.monotonic() - began, build.runners(), build.digests()
            second.bazel("clean")
            began = time.monotonic()
            build.run(remote)
            cached, again, same = time.monotonic() - began, build.runners(), build.digests()
    print(f"cold: {cold:.0f} s, {runners}; from the cache: {cached:.0f} s, {again}; {len(here)} files compared")
    errors = differences(here, there, "the one on workers") + differences(here, same, "the one from the cache")
    errors += [
        f"{count} actions ran as {name!r}, expected none" for name, count in runners.items() if name not in REMOTE
    ]
    errors += [
        f"{count} actions ran as {name!r} although the cache had all results"
        for name, count in again.items()
        if name not in REMOTE - {"remote"}
    ]
    if not runners.get("remote"):
        errors.append("no action ran on workers")
    print("\n".join(errors))
    return 1 if errors or not here else 0


if __name__ == "__main__":
    sys.exit(main())
