#!/usr/bin/env python3
"""Prints the workspace status of a release build (--config=release): the commit and the builder.

Bazel runs this in the workspace root. Each line is a key and a value (--workspace_status_command in Bazel's manual).
"""

import os
import subprocess
import sys


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def main() -> int:
    try:
        # In a copy of the sources inside another repository, git would report that repository.
        top = git("rev-parse", "--show-toplevel")
        if os.path.realpath(top) != os.path.realpath("."):
            print(
                f"workspace_status: expected a git checkout, found a folder in the checkout {top}. Build a release in a"
                " clone.",
                file=sys.stderr,
            )
            return 1
        changed = git("status", "--porcelain")
        if changed:
            print(
                f"workspace_status: a release is built from a commit, but these files differ from it:\n{changed}\n"
                "Commit or revert them.",
                file=sys.stderr,
            )
            return 1
        print("STABLE_REVISION", git("rev-parse", "HEAD"))
        server, workflow = os.environ.get("GITHUB_SERVER_URL"), os.environ.get("GITHUB_WORKFLOW_REF")
        # SLSA 1.0, builder.id: the running workflow, else a workstation, which attests nothing.
        print("STABLE_BUILDER_ID", f"{server}/{workflow}" if server and workflow else "urn:mlc-bazel:workstation")
    except (OSError, subprocess.CalledProcessError) as error:
        print(
            f"workspace_status: cannot determine the commit: {error}. Build a release in a git checkout.",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
