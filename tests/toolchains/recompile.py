"""Runs a compile action of an action report again, in another folder."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.toolchains import runfiles


def action(report: str, mnemonic: str, source: str) -> dict:
    """The action that compiles a source, from the report of an `action_report`."""
    actions = [json.loads(line) for line in (runfiles.HERE / report).read_text().splitlines() if line]
    return next(each for each in actions if each["mnemonic"] == mnemonic and source in each["arguments"])


def compile_in(
    folder: Path, action: dict, files: tuple[str, ...], repositories: tuple[Path, ...], extra: list[str]
) -> bytes:
    """Runs the action in a folder laid out like Bazel's; returns the object.

    Args:
        folder: a new or empty folder.
        action: from `action`.
        files: the files of this package that the action reads.
        repositories: the repositories with its tools.
        extra: more arguments.
    """
    output = folder / action["arguments"][action["arguments"].index("-o") + 1]
    output.parent.mkdir(parents=True)
    (folder / "external").mkdir()
    for repository in repositories:
        (folder / "external" / repository.name).symlink_to(repository)
    (folder / "tests/toolchains").mkdir(parents=True)
    for name in files:
        # The folders' files have different times, which must not affect the object.
        (folder / "tests/toolchains" / name).write_bytes((runfiles.HERE / name).read_bytes())
    done = subprocess.run(
        [*action["arguments"], *extra],
        cwd=folder,
        env={"PWD": "/proc/self/cwd", **action["environment"]},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return output.read_bytes()
