"""Gathers the files of a release in one folder, with release.json and SHA256SUMS.

    python3 -m release.private.dist --output dist --version VERSION --status stable-status.txt *.whl sbom.json notes.md

Everything lies flat, under its own name, as the host of releases shows it. SHA256SUMS has every file but itself,
sorted, in the format of
coreutils' sha256sum.
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
    """The files do not make a release; one line that names the file."""


def gather(files: Iterable[pathlib.Path], output: pathlib.Path, version: str, commit: str) -> None:
    """Fills a folder.

    Args:
        files: what to copy, each keeps its name; of a folder that holds one wheel, the wheel.
        output: the folder; new or empty.
        version: of the release; its tag is "v" and the version.
        commit: that the build is made of, or "unstamped".

    Raises:
        DistError: two files have one name, a file is none, or the folder has something in it.
    """
    named: dict[str, pathlib.Path] = {}
    for file in map(stamp.artifact_file, files):
        if not file.is_file():
            raise DistError(f"{file}: expected a file, found {'a folder' if file.is_dir() else 'nothing'}")
        if file.name in (FACTS, SUMS):
            raise DistError(f"{file}: {file.name} is made here; give the file another name")
        if file.name in named:
            raise DistError(
                f"{file}: {named[file.name]} has the same name, and a release has one folder; rename one of them"
            )
        named[file.name] = file
    output.mkdir(parents=True, exist_ok=True)
    if left := sorted(path.name for path in output.iterdir()):
        raise DistError(f"{output}: expected an empty folder, found {left[0]}; remove what is in it")
    for name, file in named.items():
        shutil.copyfile(file, output / name)
    facts = {"version": version, "tag": f"v{version}", "revision": commit}
    (output / FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    sums = [(path.name, stamp.sha256(path).removeprefix("sha256:")) for path in sorted(output.iterdir())]
    (output / SUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in sums), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=pathlib.Path, required=True, help="the folder to fill, new or empty")
    parser.add_argument("--version", required=True, help="of the release, without v")
    parser.add_argument("--status", type=pathlib.Path, help="Bazel's stable-status.txt, for a stamped build")
    parser.add_argument("files", type=pathlib.Path, nargs="+", metavar="FILE", help="what to copy")
    arguments = parser.parse_args()
    try:
        gather(arguments.files, arguments.output, arguments.version, status.value(arguments.status, status.REVISION))
    except (DistError, status.StatusError, OSError) as error:
        print(f"dist: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
