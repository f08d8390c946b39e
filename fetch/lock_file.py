"""The writer of locks, shared by the update commands: finds, lays out, compares and writes them.

fetch/locks.py reads them; the launcher imports that one, and must not need this.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from fetch import errors, locks


def run(main: Callable[[], int]) -> NoReturn:
    """Exits with what an update command returns; with 2 and one message if it cannot do its work."""
    try:
        sys.exit(main())
    except errors.UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def folder() -> Path:
    """The workspace's locks/ under `bazel run`, else the folder next to this one."""
    workspace = os.environ.get("BUILD_WORKSPACE_DIRECTORY")
    return Path(workspace, "locks") if workspace else Path(__file__).parents[1] / "locks"


def argument_parser(about: str) -> argparse.ArgumentParser:
    """A parser for the options that all update commands share.

    Args:
      about: the command's module docstring, shown by --help.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 if the lock would change")
    return parser


def parse_arguments(about: str) -> argparse.Namespace:
    """Parses the command line of an update command that has only the common options."""
    return argument_parser(about).parse_args()


def read_json(name: str) -> Any:
    """The content of a JSON file in locks/."""
    return locks.parse_json((folder() / name).read_text(encoding="utf-8"), f"locks/{name}")


def as_json(content: Any) -> str:
    """The layout of all JSON locks, so that equal content gives equal bytes."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def write(name: str, text: str, *, check: bool, command: str) -> int:
    """Writes a lock; with `check` only compares it.

    Returns:
      The exit status: 1 if `check` found a difference.
    """
    path = folder() / name
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    if old == text:
        print(f"locks/{name} is up to date", file=sys.stderr)
        return 0
    diff = list(
        difflib.unified_diff(old.splitlines(), text.splitlines(), f"locks/{name}", "now available", lineterm="", n=1)
    )
    print("\n".join(diff[:200]), file=sys.stderr)
    if check:
        print(f"locks/{name} would change; to update it: tools/bazel run {command}", file=sys.stderr)
        return 1
    path.write_text(text, encoding="utf-8")
    print(f"wrote locks/{name}", file=sys.stderr)
    return 0
