"""Builds everything a second time, as another machine would, and compares the bytes with those of this build.

The second build has a copy of the sources in another folder, an output base and a disk cache of its own, another umask, time zone,
locale and number of jobs.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import time

TARGETS = ["//wheels/...", "//images/..."]


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


def build_again(workspace: pathlib.Path, place: pathlib.Path, outputs: list[str]) -> list[pathlib.Path]:
    """Builds TARGETS from a copy of the workspace below `place`; returns where the outputs are (paths below bazel-bin given)."""
    copy = place / "elsewhere" / "sources"
    shutil.copytree(workspace, copy, symlinks=True, ignore=shutil.ignore_patterns("bazel-*", ".git", "user.bazelrc", "__pycache__"))
    environment = {
        name: value
        for name, value in os.environ.items()
        if name in ("HOME", "MLC_BAZEL_CACHE", "MLC_PROFILE", "XDG_CACHE_HOME")
    } | {"PATH": "/usr/local/bin:/usr/bin:/bin", "TZ": "Pacific/Auckland", "LC_ALL": "C"}
    bazel = [str(copy / "tools/bazel"), f"--output_base={place / 'base'}"]

    def run(*arguments: str) -> str:
        done = subprocess.run(
            bazel + list(arguments), cwd=copy, env=environment, umask=0o077, stdout=subprocess.PIPE, text=True, check=True
        )
        return done.stdout.strip()

    try:
        run("build", "--disk_cache=", "--jobs=3", "--color=no", "--curses=no", "--show_progress_rate_limit=30", *TARGETS)
        binaries = pathlib.Path(run("info", "--color=no", "bazel-bin"))
    finally:
        run("shutdown")
    return [binaries / output for output in outputs]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workspace_file", type=pathlib.Path, required=True, help="a file at the workspace's root")
    parser.add_argument("--artifacts", nargs="+", required=True, help="outputs of the first build, as paths below bazel-bin")
    arguments = parser.parse_args()

    place = pathlib.Path(os.environ["TEST_TMPDIR"])
    began = time.monotonic()
    first = digests([pathlib.Path(artifact) for artifact in arguments.artifacts])
    try:
        again = build_again(arguments.workspace_file.resolve().parent, place, arguments.artifacts)
        second = digests(again)
    finally:
        subprocess.run(["chmod", "-R", "u+w", str(place)], check=False)
    different = differences(first, second)
    print(f"{len(first)} files compared, {len(different)} differ; the second build took {time.monotonic() - began:.0f} s")
    print("\n".join(different))
    return 0 if first and not different else 1


if __name__ == "__main__":
    sys.exit(main())
