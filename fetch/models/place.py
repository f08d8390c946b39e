"""Prints where Bazel finds one pinned file of a model; standard library only.

    python3 fetch/models/place.py hub REPOSITORY COMMIT PATH --sha256 SHA256 --size BYTES
    python3 fetch/models/place.py folder FOLDER PATH

The answer is JSON: {"path": …, "url": "file:///…"}. A hub's file is downloaded into the launcher's cache, where an
interrupted download goes on, and verified. Bazel then takes it by its hash, so that its repository cache has it, and so
have packs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

# Repository rules run this file by path. Last, so that no file of the workspace replaces one of the standard library.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from fetch import errors, folders
from fetch.models import hub

_SECONDS_BETWEEN_LINES = 10


class Progress:
    """Prints a line from time to time, as long as a download lasts.

    Args:
        what: the file.
        size: its bytes.
    """

    def __init__(self, what: str, size: int) -> None:
        self._what, self._size, self._have = what, size, 0
        self._shown = time.monotonic()

    def __call__(self, received: int) -> None:
        self._have += received
        if time.monotonic() - self._shown > _SECONDS_BETWEEN_LINES:
            self._shown = time.monotonic()
            line = f"{self._what}: {self._have / 1e6:.0f} of {self._size / 1e6:.0f} MB"
            print(line, file=sys.stderr, flush=True)


def from_hub(repository: str, commit: str, path: str, sha256: str, size: int) -> Path:
    """Downloads a file into the cache, unless it is there. Raises what `hub.fetch` does."""
    folder = Path(folders.cache(), "models")
    folder.mkdir(parents=True, exist_ok=True)
    progress = Progress(f"{repository} {path}", size)
    destination = folder / f"{sha256}-{path.rpartition('/')[2]}"
    return hub.fetch(repository, commit, path, sha256, size, destination, progress)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    of_hub = kinds.add_parser("hub", help="a file of a hub's repository")
    of_hub.add_argument("repository", help="ORGANISATION/NAME")
    of_hub.add_argument("commit", help="40 hexadecimal digits")
    of_hub.add_argument("path", help="within the repository")
    of_hub.add_argument("--sha256", required=True, help="of the file")
    of_hub.add_argument("--size", type=int, required=True, metavar="BYTES", help="of the file")
    of_folder = kinds.add_parser("folder", help="a file of a local folder")
    of_folder.add_argument("folder", help="the folder")
    of_folder.add_argument("path", help="within the folder")
    options = parser.parse_args(arguments)
    try:
        if options.kind == "hub":
            file = from_hub(options.repository, options.commit, options.path, options.sha256, options.size)
        else:
            file = Path(os.path.abspath(os.path.expanduser(options.folder)), options.path)
    except (errors.UserError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps({"path": str(file), "url": file.as_uri()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
