"""Collects the files of a release in one folder, with release.json and SHA256SUMS.

    python3 -m release.private.dist --output dist --version VERSION --status stable-status.txt *.whl sbom.json notes.md

All files are at the top level under their own names, as on the release page. SHA256SUMS lists every file except itself,
sorted, in the format of coreutils' sha256sum.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import shutil
import sys
from collections.abc import Iterable

from oci import status
from release.private import stamp
from release.private.publish import FACTS, SUMS


class DistError(Exception):
    """The files do not form a release; the message is one line that names the file."""


def gather(files: Iterable[pathlib.Path], output: pathlib.Path, version: str, commit: str) -> None:
    """Fills a folder.

    Args:
        files: files to copy under their own names; from a folder with one wheel, the wheel.
        output: the folder; new or empty.
        version: the release's version; its tag is "v" and the version.
        commit: the commit that was built, or "unstamped".

    Raises:
        DistError: two files have the same name, something is not a file, or the folder is not empty.
    """
    named: dict[str, pathlib.Path] = {}
    for file in map(stamp.artifact_file, files):
        if not file.is_file():
            raise DistError(f"{file}: expected a file, found {'a folder' if file.is_dir() else 'nothing'}")
        if file.name in (FACTS, SUMS):
            raise DistError(f"{file}: {file.name} is written here; give the file another name")
        if file.name in named:
            raise DistError(
                f"{file}: {named[file.name]} has the same name, and a release is one folder; rename one of them"
            )
        named[file.name] = file
    output.mkdir(parents=True, exist_ok=True)
    if left := sorted(path.name for path in output.iterdir()):
        raise DistError(f"{output}: expected an empty folder, found {left[0]}; remove its content")
    for name, file in named.items():
        shutil.copyfile(file, output / name)
    facts = {"version": version, "tag": f"v{version}", "revision": commit}
    (output / FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    sums = [(path.name, stamp.sha256(path).removeprefix("sha256:")) for path in sorted(output.iterdir())]
    (output / SUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in sums), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=pathlib.Path, required=True, help="the folder to fill, new or empty")
    parser.add_argument("--version", required=True, help="the release's version, without v")
    parser.add_argument("--status", type=pathlib.Path, help="Bazel's stable-status.txt, for a stamped build")
    parser.add_argument("files", type=pathlib.Path, nargs="+", metavar="FILE", help="a file to copy")
    arguments = parser.parse_args()
    try:
        gather(arguments.files, arguments.output, arguments.version, status.value(arguments.status, status.REVISION))
    except (DistError, status.StatusError, OSError) as error:
        print(f"dist: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
