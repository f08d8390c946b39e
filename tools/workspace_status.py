#!/usr/bin/env python3
"""Prints the workspace status of a release build (--config=release): the commit, the builder and the Bazel that runs.

Bazel runs this in the workspace root. Each line is a key and a value (--workspace_status_command in Bazel's manual).
"""

import os
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from release import builder, checkout
from tools.launcher import installed

_SHOWN = 20


def _bazel_locked() -> str:
    """Whether the running Bazel was installed from what locks/bazel.lock.json pins: "yes" or "no"."""
    base = builder.install_base(os.getppid())
    folder = base and installed.folder_of(base)
    return "yes" if folder and installed.is_locked(folder, ".") else "no"


def main() -> int:
    try:
        # In a copy of the sources inside another repository, git would report that repository.
        top = checkout.root(".")
        if top != os.path.realpath("."):
            print(
                f"workspace_status: expected a git checkout, found a folder in the checkout {top}. Build a release in a"
                " clone.",
                file=sys.stderr,
            )
            return 1
        changed = checkout.differences(".")
        if changed:
            listed = "\n".join(changed[:_SHOWN]) + (f"\nand {len(changed) - _SHOWN} more" * (len(changed) > _SHOWN))
            print(
                f"workspace_status: a release is built from a commit, but these files differ from it:\n{listed}\n"
                "Commit or revert them, or build in a fresh clone.",
                file=sys.stderr,
            )
            return 1
        revision = checkout.head(".")
        lines = {
            "STABLE_REVISION": revision,
            "STABLE_BUILDER_ID": builder.identity(os.environ, revision),
            "STABLE_BAZEL": builder.bazel(os.getppid()),
            "STABLE_BAZEL_LOCKED": _bazel_locked(),
        }
    except (OSError, checkout.NoCheckout) as error:
        print(
            f"workspace_status: cannot determine the commit: {error}. Build a release in a git checkout.",
            file=sys.stderr,
        )
        return 1
    except builder.BuilderError as error:
        print(f"workspace_status: {error}. To build without one: unset ACTIONS_ID_TOKEN_REQUEST_URL", file=sys.stderr)
        return 1
    print("".join(f"{name} {value}\n" for name, value in lines.items()), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
