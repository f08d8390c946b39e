#!/usr/bin/env python3
"""The workspace status of a release build (--config=release): the commit that it is made of, and who builds.

Bazel runs it at the workspace's root; each line is a key and a value (Bazel's user manual, --workspace_status_command).
"""

import os
import subprocess
import sys


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def main() -> int:
    try:
        # In a copy of the sources in a folder of another repository git would answer for that one.
        top = git("rev-parse", "--show-toplevel")
        if os.path.realpath(top) != os.path.realpath("."):
            print(
                f"workspace_status: expected a git checkout, found a folder in that of {top}. A release is built in a"
                " clone.",
                file=sys.stderr,
            )
            return 1
        changed = git("status", "--porcelain")
        if changed:
            print(
                f"workspace_status: a release is made of a commit, and these files differ from it:\n{changed}\nCommit"
                " or undo them.",
                file=sys.stderr,
            )
            return 1
        print("STABLE_REVISION", git("rev-parse", "HEAD"))
        server, workflow = os.environ.get("GITHUB_SERVER_URL"), os.environ.get("GITHUB_WORKFLOW_REF")
        # SLSA 1.0, builder.id: the workflow that runs, else a workstation, which vouches for nothing.
        print("STABLE_BUILDER_ID", f"{server}/{workflow}" if server and workflow else "urn:mlc-bazel:workstation")
    except (OSError, subprocess.CalledProcessError) as error:
        print(
            f"workspace_status: no commit is known here: {error}. A release is built in a git checkout.",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
