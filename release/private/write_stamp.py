"""Writes the stamp of a gate (stamp.py) from the results of its tests and the artifacts that they ran on."""

from __future__ import annotations

import argparse
import json
import pathlib
import sys

from fetch.arguments import named_path
from release.private import stamp


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=pathlib.Path, required=True, help="the stamp, a JSON file")
    parser.add_argument(
        "--result", type=pathlib.Path, action="append", required=True, help="what run_test.py wrote; may be repeated"
    )
    parser.add_argument(
        "--image", type=named_path, action="append", default=[], metavar="NAME=LAYOUT", help="an OCI layout; repeated"
    )
    parser.add_argument(
        "--wheel", type=pathlib.Path, action="append", default=[], help="a wheel, or a folder that holds one; repeated"
    )
    arguments = parser.parse_args()
    tests = sorted((json.loads(path.read_text()) for path in arguments.result), key=lambda test: test["label"])
    try:
        named = [*arguments.image, *((path.name, path) for path in map(stamp.artifact_file, arguments.wheel))]
        artifacts = {name: stamp.describe(artifact) for name, artifact in sorted(named)}
    except stamp.Untested as error:
        print(error, file=sys.stderr)
        return 1
    arguments.output.write_text(json.dumps({"artifacts": artifacts, "tests": tests}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
