"""Builds everything a second time, as another machine would, and compares the bytes with those of this build.

The second build has a copy of the sources in another folder, an output base and a disk cache of its own, another umask, time zone,
locale and number of jobs.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import pathlib
import sys
import time

from tests.private.second_workspace import SecondWorkspace

TARGETS = ["//wheels/...", "//images/...", "//models/..."]


def digests(artifacts: list[pathlib.Path]) -> dict[str, str]:
    """sha256 of every file: name below the artifact's folder → hex digest. An artifact is a file, or a folder of files."""
    found = {}
    for artifact in artifacts:
        for file in sorted(artifact.rglob("*")) if artifact.is_dir() else [artifact]:
            if file.is_file():
                with file.open("rb") as content:
                    found[file.relative_to(artifact.parent).as_posix()] = hashlib.file_digest(content, "sha256").hexdigest()
    return found


def differences(first: dict[str, str], second: dict[str, str]) -> list[str]:
    """One line for each file that only one build made, or that differs."""
    return [
        f"{name}: {first.get(name, 'missing')} in the first build, {second.get(name, 'missing')} in the second"
        for name in sorted(first.keys() | second.keys())
        if first.get(name) != second.get(name)
    ]


def build_again(workspace: pathlib.Path, place: pathlib.Path, outputs: list[str]) -> dict[str, str]:
    """Builds TARGETS from a copy of the workspace below `place`; returns the digests of the outputs (paths below bazel-bin given)."""
    with SecondWorkspace(workspace, place, TZ="Pacific/Auckland", LC_ALL="C") as second:
        options = ["--disk_cache=", "--jobs=3", "--color=no", "--curses=no", "--show_progress_rate_limit=30"]
        second.bazel("build", *options, *TARGETS, umask=0o077)
        binaries = pathlib.Path(second.bazel("info", "--color=no", "bazel-bin").stdout.strip())
        return digests([binaries / output for output in outputs])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workspace_file", type=pathlib.Path, required=True, help="a file at the workspace's root")
    parser.add_argument("--artifacts", nargs="+", required=True, help="outputs of the first build, as paths below bazel-bin")
    arguments = parser.parse_args()

    place = pathlib.Path(os.environ["TEST_TMPDIR"])
    began = time.monotonic()
    first = digests([pathlib.Path(artifact) for artifact in arguments.artifacts])
    second = build_again(arguments.workspace_file.resolve().parent, place, arguments.artifacts)
    different = differences(first, second)
    print(f"{len(first)} files compared, {len(different)} differ; the second build took {time.monotonic() - began:.0f} s")
    print("\n".join(different))
    return 0 if first and not different else 1


if __name__ == "__main__":
    sys.exit(main())
