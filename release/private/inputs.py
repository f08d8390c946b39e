"""Writes the inputs of a release, as JSON.

    python3 -m release.private.inputs --locks locks/*.lock.* --release vVERSION --output inputs.json

Writes {"release": "vVERSION", "inputs": [{"ecosystem": …, "name": …, …}, …]}: the fields of `fetch.locks.Input`, sorted
by `Input.identity`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from fetch import locks


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    locks.add_locks_argument(parser)
    parser.add_argument("--release", required=True, help="the release that is built from them, for example v1.2.3")
    parser.add_argument("--output", type=Path, required=True, help="the JSON file to write")
    arguments = parser.parse_args()
    try:
        inputs = locks.load(locks.by_name(arguments.locks))
    except locks.InputsError as error:
        print(f"inputs: {error}", file=sys.stderr)
        return 1
    content = {"release": arguments.release, "inputs": [each.as_json() for each in inputs]}
    arguments.output.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
