"""Writes an image's labels, one key=value per line, with the source revision if Bazel's workspace status is given."""

from __future__ import annotations

import argparse
import pathlib
import sys

from oci import status

# OCI image-spec, annotations.md: the predefined keys.
_REVISION = "org.opencontainers.image.revision"


def labels(given: list[str], revision: str) -> str:
    """The file's text: the given labels (key=value) and the revision's, sorted."""
    return "".join(f"{line}\n" for line in sorted([*given, f"{_REVISION}={revision}"]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--label", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--status", type=pathlib.Path, help="Bazel's stable-status.txt, for a stamped build")
    parser.add_argument("--output", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    try:
        text = labels(arguments.label, status.value(arguments.status, status.REVISION))
    except status.StatusError as error:
        print(f"make_labels: {error}", file=sys.stderr)
        return 1
    arguments.output.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
