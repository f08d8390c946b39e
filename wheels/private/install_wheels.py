"""Installs wheels into one folder reproducibly."""

from __future__ import annotations

import argparse
import fnmatch
import pathlib
import sys
import zipfile
from collections.abc import Sequence

from installer import install
from installer.destinations import SchemeDictionaryDestination
from installer.exceptions import InstallerError
from installer.sources import WheelFile

from wheels.finished import FinishedWheel, Identity


def install_wheel(wheel: zipfile.ZipFile, to: pathlib.Path, interpreter: str) -> None:
    """Installs a wheel in the layout of `pip install --target`: packages in `to`, commands in `to`/bin.

    Args:
        wheel: the open wheel.
        to: the folder that receives it.
        interpreter: the Python for the first line of the commands.

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
    source = WheelFile(wheel)
    source.validate_record()
    install(source, destination, additional_metadata={"INSTALLER": b"mlc_bazel\n"})


def leave_out(folder: pathlib.Path, globs: Sequence[str]) -> None:
    """Removes the files whose path relative to `folder` matches a glob; `*` also matches `/`.

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
    parser.add_argument("--interpreter", default="/usr/bin/python3", help="Python that runs the installed commands")
    parser.add_argument("--exclude", action="append", default=[], metavar="GLOB", help="paths to omit; repeatable")
    parser.add_argument(
        "--unversioned",
        nargs=2,
        action="append",
        default=[],
        type=pathlib.Path,
        metavar=("WHEEL", "IDENTITY"),
        help="a wheel of this build without its build id, and its identity from finish_wheel; repeatable",
    )
    parser.add_argument("wheels", nargs="*", type=pathlib.Path)
    arguments = parser.parse_args()
    wheels = [(wheel, None) for wheel in arguments.wheels] + arguments.unversioned
    for path, identity in wheels:
        try:
            with FinishedWheel(path, Identity.read(identity)) if identity else zipfile.ZipFile(path) as wheel:
                install_wheel(wheel, arguments.to, arguments.interpreter)
        except (InstallerError, OSError, ValueError, zipfile.BadZipFile) as error:
            print(f"install_wheels: {path.name}: {error}", file=sys.stderr)
            return 1
    try:
        leave_out(arguments.to, arguments.exclude)
    except ValueError as error:
        print(f"install_wheels: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
