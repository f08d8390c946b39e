"""Writes everything that is published into one archive, for a job that holds the keys and builds nothing.

    tools/bazel run --config=release //release:hand_over -- --output publication.tar

The archive is data only. The job that publishes takes the programs from its checkout and the tools by the hashes of the
lock: see take_over.py.
"""

from __future__ import annotations

import argparse
import io
import json
import pathlib
import sys
import tarfile

from fetch import arguments, errors
from release.private import stamp

# The names in the archive.
FACTS, GATE = "publication.json", "gate.json"
LAYOUTS, DIST = "layouts", "dist"


class Missing(Exception):
    """A document is not among the files of the release; the message names it."""


def write(options: argparse.Namespace, archive: pathlib.Path) -> None:
    """Writes the archive: uncompressed, since layers and wheels are compressed.

    The documents of images are files of the release, whose sums cover them.

    Raises:
        stamp.Untested: an image is not what the tests passed on.
        Missing: a document is no file of the release.
        OSError: a file cannot be read or written.
    """
    tested = json.loads(options.gate.read_text())
    documents = [(image, kind, pathlib.Path(path)) for image, kind, path in options.document]
    for _, _, path in documents:
        if not (options.dist / path.name).is_file() or stamp.sha256(options.dist / path.name) != stamp.sha256(path):
            raise Missing(
                f"{path.name}: expected the same file in {options.dist}; add it to FILES in release/BUILD.bazel"
            )
    facts = {
        "version": options.version,
        "images": {name: stamp.check(tested, layout, name) for name, layout in options.layout},
        "documents": [[image, kind, path.name] for image, kind, path in documents],
    }
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT, dereference=True) as tar:
        content = json.dumps(facts, indent=2).encode()
        entry = tarfile.TarInfo(FACTS)
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
        tar.add(options.gate, GATE)
        for folder, place in [(options.dist, DIST), *((path, f"{LAYOUTS}/{name}") for name, path in options.layout)]:
            for file in sorted(path for path in folder.rglob("*") if path.is_file()):
                tar.add(file, f"{place}/{file.relative_to(folder)}")


def main() -> int:
    parser = arguments.Parser("--config=release //release:hand_over", __doc__)
    for flag in ("--gate", "--dist"):
        parser.add_argument(flag, type=pathlib.Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--version", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--layout", type=arguments.named_path, action="append", required=True, help=argparse.SUPPRESS)
    parser.add_argument(
        "--document", type=lambda text: text.split("=", 2), action="append", default=[], help=argparse.SUPPRESS
    )
    parser.add_argument("--output", type=arguments.user_path, required=True, help="the archive to write")
    parser.add_argument(
        "--outputs", type=arguments.user_path, help="file to add the line sha256=… to, as $GITHUB_OUTPUT wants it"
    )
    options = parser.parse_args()
    try:
        write(options, options.output)
        digest = stamp.sha256(options.output).removeprefix("sha256:")
        if options.outputs:
            with open(options.outputs, "a", encoding="utf-8") as file:
                file.write(f"sha256={digest}\n")
    except (Missing, OSError, stamp.Untested) as error:
        errors.tell("hand_over", error)
        return 1
    print(f"{digest}  {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
