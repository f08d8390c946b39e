"""Small git repositories that stand in for those of locks/sources.lock.json."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import subprocess

from fetch.git import checkout

# By path: tests find nothing on PATH.
GIT = "/usr/bin/git"
PATH = "/usr/bin:/bin"
PATHS = ("LICENSE", "cpp")
CONTENT = {
    "LICENSE": "Apache License, Version 2.0\n",
    "cpp/deep/er.h": "#pragma once\n",
    "cpp/engine.cc": "int engine;\n",
    "other/file": "other\n",
}


def git(folder: pathlib.Path, *arguments: str) -> str:
    """Runs git as somebody, on settings of nobody; returns what it printed."""
    people = {f"GIT_{who}_{what}": "t@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    dates = {f"GIT_{who}_DATE": "2000-01-01T00:00:00Z" for who in ("AUTHOR", "COMMITTER")}
    environment = {"PATH": PATH, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", **people, **dates}
    return subprocess.run(
        [GIT, "-C", str(folder), *arguments], env=environment, check=True, capture_output=True, text=True
    ).stdout.strip()


@dataclasses.dataclass(frozen=True)
class Repository:
    """A checkout with one commit of `CONTENT`, which is its own upstream."""

    folder: pathlib.Path

    @classmethod
    def make(cls, folder: pathlib.Path) -> Repository:
        for name, text in CONTENT.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        (folder / "cpp/engine.cc").chmod(0o755)
        git(folder, "init", "--quiet", "--initial-branch=main")
        git(folder, "add", ".")
        git(folder, "commit", "--quiet", "--message=one")
        return cls(folder)

    @property
    def commit(self) -> str:
        return git(self.folder, "rev-parse", "HEAD")

    def entry(self) -> dict[str, object]:
        """Its entry in the lock, at the commit that it is at now."""
        entry = {"registry": "git", "repository": f"file://{self.folder}", "commit": self.commit, "paths": list(PATHS)}
        source = checkout.from_entry(self.folder.name, entry)
        return {**entry, "sha256": checkout.sha256(checkout.archive(source, self.folder))}

    def move_on(self) -> str:
        """Makes another commit; returns its id."""
        git(self.folder, "commit", "--quiet", "--allow-empty", "--message=two")
        return self.commit
