"""Installs wheels into one folder, the same bytes whenever and wherever it runs."""

from __future__ import annotations

import argparse
import fnmatch
import pathlib
import sys
from collections.abc import Sequence

from installer import install
from installer.destinations import SchemeDictionaryDestination
from installer.exceptions import InstallerError
from installer.sources import WheelFile


def install_wheel(wheel: pathlib.Path, to: pathlib.Path, interpreter: str) -> None:
    """Installs a wheel as `pip install --target` lays it out: packages in `to`, commands in `to`/bin.

    Args:
        wheel: the wheel file.
        to: the folder that receives it.
        interpreter: the Python that the commands' first lines name.

    Raises:
        InstallerError: the wheel's RECORD does not match its content.
        FileExistsError: another wheel has installed a file of the same name.
    """
    scheme = {"purelib": to, "platlib": to, "scripts": to / "bin", "headers": to / "include", "data": to}
    destination = SchemeDictionaryDestination(
        {name: str(path) for name, path in scheme.items()},
        interpreter=interpreter,
        script_kind="posix",
    )
    with WheelFile.open(wheel) as source:
        source.validate_record()
        install(source, destination, additional_metadata={"INSTALLER": b"mlc_bazel\n"})


def leave_out(folder: pathlib.Path, globs: Sequence[str]) -> None:
    """Removes the files whose path below `folder` matches; `*` matches `/` too.

    Raises:
        ValueError: no file matches one of the globs.
    """
    paths = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    for glob in globs:
        matching = fnmatch.filter(paths, glob)
        if not matching:
            raise ValueError(f"expected files that match {glob!r} (attribute `exclude`), found none")
        for path in matching:
            folder.joinpath(path).unlink(missing_ok=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], fromfile_prefix_chars="@")
    parser.add_argument("--to", type=pathlib.Path, required=True, help="folder that receives the packages")
    parser.add_argument("--interpreter", default="/usr/bin/python3", help="Python that installed commands run with")
    parser.add_argument("--exclude", action="append", default=[], metavar="GLOB", help="paths to leave out; repeated")
    parser.add_argument("wheels", nargs="+", type=pathlib.Path)
    arguments = parser.parse_args()
    for wheel in arguments.wheels:
        try:
            install_wheel(wheel, arguments.to, arguments.interpreter)
        except (InstallerError, OSError, ValueError) as error:
            print(f"install_wheels: {wheel.name}: {error}", file=sys.stderr)
            return 1
    try:
        leave_out(arguments.to, arguments.exclude)
    except ValueError as error:
        print(f"install_wheels: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
