"""Writes an image's labels, one key=value a line, and the source revision from Bazel's workspace status where one is given."""

from __future__ import annotations

import argparse
import pathlib
import sys

# OCI image-spec, annotations.md: the predefined keys.
_REVISION = "org.opencontainers.image.revision"
_STATUS_KEY = "STABLE_REVISION"


def labels(given: list[str], status: str | None) -> str:
    """The file's text.

    Args:
        given: key=value.
        status: the workspace status, "KEY value" a line, or None for a build that is not stamped. Without a stamp the revision is
            "unstamped": a commit that changes no content must not change the image's digest.

    Raises:
        ValueError: the status names no revision.
    """
    revision = "unstamped"
    if status is not None:
        found = dict(line.partition(" ")[::2] for line in status.splitlines())
        revision = found.get(_STATUS_KEY, "").strip()
        if not revision:
            raise ValueError(f"the workspace status has no {_STATUS_KEY}: build with --config=release, which sets it, not --stamp alone")
    return "".join(f"{line}\n" for line in sorted([*given, f"{_REVISION}={revision}"]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--label", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--status", type=pathlib.Path, help="Bazel's stable-status.txt, for a stamped build")
    parser.add_argument("--output", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    try:
        text = labels(arguments.label, arguments.status.read_text() if arguments.status else None)
    except ValueError as error:
        print(f"make_labels: {error}", file=sys.stderr)
        return 1
    arguments.output.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
