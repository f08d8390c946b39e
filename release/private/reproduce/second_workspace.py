"""A copy of the workspace with its own output base, for tests that run Bazel themselves; compares outputs."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
from typing import Any

from fetch.hashes import file_sha256

# Variables that name the launcher's and Bazel's download folders (`env_inherit` of targets that use this), the place of
# git sources, and whether the build has CUDA (`env` of the targets that repeat it: VARIABLES of
# @git_sources//:sources.bzl and MLC_CUDA).
KEPT = ("HOME", "MLC_BAZEL_CACHE", "MLC_CUDA", "MLC_FETCH_SOURCES", "MLC_PROFILE", "MLC_SOURCES", "XDG_CACHE_HOME")


class SecondWorkspace:
    """Copies the sources. On exit it stops its Bazel and makes everything in it removable.

    Args:
        workspace: the root of the first.
        place: folder for the copy and everything that is built in it.
        revision: a commit to check out, instead of copying the files as they are.
        environment: variables in addition to the inherited ones.

    Attributes:
        prefix: prefix of each command: a program that starts another one.
        startup: Bazel's startup options, in addition to the output base.
    """

    def __init__(
        self, workspace: pathlib.Path, place: pathlib.Path, revision: str | None = None, **environment: str
    ) -> None:
        self.place = place
        self.prefix: list[str] = []
        self.startup: list[str] = []
        self.root = place / "elsewhere" / "sources"
        if revision:
            subprocess.run(["git", "clone", "--quiet", "--no-checkout", str(workspace), str(self.root)], check=True)
            subprocess.run(["git", "-C", str(self.root), "checkout", "--quiet", "--detach", revision], check=True)
        else:
            ignored = shutil.ignore_patterns("bazel-*", ".git", "user.bazelrc", "__pycache__")
            shutil.copytree(workspace, self.root, symlinks=True, ignore=ignored)
        inherited = {name: value for name, value in os.environ.items() if name in KEPT}
        self.environment = {**inherited, "PATH": "/usr/local/bin:/usr/bin:/bin", **environment}

    def __enter__(self) -> SecondWorkspace:
        return self

    def __exit__(self, *_: object) -> None:
        self.bazel("shutdown", check=False)
        subprocess.run(["chmod", "-R", "u+w", str(self.place)], check=False)

    def bazel(self, *arguments: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        """Runs tools/bazel and captures its standard output; its messages go to the test's log.

        `options` are subprocess.run's and override both.
        """
        command = [
            *self.prefix,
            str(self.root / "tools/bazel"),
            f"--output_base={self.place / 'base'}",
            *self.startup,
            *arguments,
        ]
        options = {"stdout": subprocess.PIPE} | options
        return subprocess.run(command, cwd=self.root, env=self.environment, text=True, check=check, **options)


def digests(artifacts: list[pathlib.Path]) -> dict[str, str]:
    """sha256 of every file: its name below the folder around the artifact's → hex digest.

    Args:
        artifacts: files, or folders of files; some differ only in the folder that they are in.
    """
    found: dict[str, str] = {}
    for artifact in artifacts:
        for file in sorted(artifact.rglob("*")) if artifact.is_dir() else [artifact]:
            if file.is_file():
                name = file.relative_to(artifact.parent.parent).as_posix()
                assert name not in found, name
                found[name] = file_sha256(file)
    return found


def differences(here: dict[str, str], there: dict[str, str], other: str) -> list[str]:
    """One line for each file that differs or that only one build has; `other` describes the second build."""
    return [
        f"{name}: {here.get(name, 'missing')} in this build, {there.get(name, 'missing')} in {other}"
        for name in sorted(here.keys() | there.keys())
        if here.get(name) != there.get(name)
    ]
