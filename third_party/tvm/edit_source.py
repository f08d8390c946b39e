"""Copies a source with texts replaced. A text that the source does not have is an error.

    edit_source upstream.cc --edits edits.json --output edited.cc

The edits are a JSON object: text → replacement. A text that occurs several times is replaced everywhere.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path


def edited(source: str, edits: dict[str, str]) -> str:
    """Returns the source with all texts replaced, none of them in a replacement.

    Raises:
        ValueError: it has not all of them.
    """
    missing = [text for text in edits if text not in source]
    if missing:
        raise ValueError(f"expected the text that an edit replaces, found none in the source:\n{missing[0]}")
    longest_first = sorted(edits, key=len, reverse=True)
    return re.sub("|".join(map(re.escape, longest_first)), lambda found: edits[found[0]], source)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--edits", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True, help="the copy to write")
    options = parser.parse_args()
    try:
        text = edited(options.source.read_text(encoding="utf-8"), json.loads(options.edits.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        print(f"edit_source: {options.source}: {error}", file=sys.stderr)
        return 1
    options.output.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
