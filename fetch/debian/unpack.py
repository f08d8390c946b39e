"""Unpacks .deb files and wheels with programs into one folder; the programs run on the folder's loader and libraries.

    python3 fetch/debian/unpack.py --root FOLDER --wrapper usr/bin/python3=usr/bin/python3.11 *.deb

The result depends only on the packages: it has no times, owners, absolute links or paths of this machine. Standard
library only: a repository rule runs this on the machine's own Python.
"""

from __future__ import annotations

import argparse
import itertools
import os
import posixpath
import re
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # the workspace root: this runs from a repository rule

from fetch import archives, errors
from fetch.debian import archive as debian
from fetch.pypi.extract import extract

# Files that no program here reads. Licences are still in the packages that images install.
UNUSED = re.compile(r"usr/share/(bash-completion|bug|doc|doc-base|info|lintian|locale|man|menu)/|etc/")

# Since Debian 13 everything is below /usr.
LOADERS = tuple(
    f"{usr}{loader}" for loader in ("lib64/ld-linux-x86-64.so.2", "lib/ld-linux-aarch64.so.1") for usr in ("", "usr/")
)
TRIPLETS = ("x86_64-linux-gnu", "aarch64-linux-gnu")
LIBRARIES = tuple(f"{folder}/{triplet}" for triplet in TRIPLETS for folder in ("lib", "usr/lib"))

# Those, and what a compiler for another processor links.
LINKED = (*LIBRARIES, *(f"usr/{triplet}/lib" for triplet in TRIPLETS))

# "$0" is as it was called, so relative in an action: no path of this machine gets into what the program writes.
WRAPPER = """\
#!/bin/sh
# Runs {program} with the loader and libraries of this folder, so that none of the host's is loaded.
case "$0" in
*/{script}) root="${{0%/{script}}}" ;;
*) root="${{0%/*}}/{up}" ;;
esac
{drop}{variables}exec "$root/{loader}" --inhibit-cache --library-path "{libraries}" \
{argv0}"$root/{program}"{arguments} "$@"
"""

# Moves each argument from the front of the list to its end, except the option and its value.
DROP = """\
count=$#
while [ $count -gt 0 ]; do
    if [ "$1" = "{option}" ]; then
        shift 2
        count=$((count - 2))
    else
        set -- "$@" "$1"
        shift
        count=$((count - 1))
    fi
done
"""


def unpack(deb: Path, root: Path) -> None:
    """Adds the files of one package to `root`; a second package must not bring a file of the same name."""
    with debian.Deb(deb).data() as tar, archives.Extractor(root, deb.name) as extractor:
        for member in tar:
            if not UNUSED.match(posixpath.normpath(member.name)):
                extractor.add(tar, member)


def remove_dangling_links(root: Path) -> None:
    """Removes links to packages that the set leaves out: Bazel accepts no dangling link as an input."""
    for folder, folders, files in os.walk(root):
        for name in folders + files:
            path = Path(folder, name)
            if path.is_symlink() and not path.exists():
                path.unlink()


def relocate_linker_scripts(root: Path) -> None:
    """Makes libc.so and the like name other libraries without a folder.

    The linker looks for an absolute path below the sysroot only if the script itself is there once links are resolved.
    In Bazel's sandbox every input is a link to elsewhere, so the host's C library would be linked.
    """
    for folder in LINKED:
        for path in sorted((root / folder).glob("lib*.[as]*")):
            if path.is_symlink() or path.stat().st_size > 4096 or not path.read_bytes().startswith(b"/* GNU ld script"):
                continue
            path.write_text(re.sub(r"(?<=[\s(])/\S*/(?=\S)(?!\*)", "", path.read_text()))


def write_wrapper(root: Path, script: str, command: str, drop: str = "") -> None:
    """Writes the script that runs a program with the folder's own loader.

    Args:
      root: the folder.
      script: path of the script below the folder. If it has the program's own name, the program moves to
        `<name>.unwrapped`.
      command: variables for the program as NAME=VALUE, the program's path below the folder, and arguments, separated by
        spaces; {root} in an argument stands for the folder.
      drop: an option that is not passed on, nor the argument after it.
    """
    words = command.split(" ")
    variables = list(itertools.takewhile(lambda word: re.match(r"[A-Z_]+=", word), words))
    program, *arguments = words[len(variables) :]
    if not (root / program).exists():
        raise debian.DebianError(f"wrapper {script}: the packages have no {program}")
    if script == program:
        program += ".unwrapped"
        (root / script).rename(root / program)
    path = root / script
    if path.is_symlink() and path.resolve() == (root / program).resolve():
        path.unlink()
    elif path.exists() or path.is_symlink():
        raise debian.DebianError(f"wrapper {script}: the packages have a file of that name")
    loader = next((name for name in LOADERS if (root / name).exists()), None)
    if not loader:
        raise debian.DebianError(f"wrapper {script}: the packages have no loader, {LOADERS[0]}; add libc6 to the set")
    # Older loaders set argv[0] to the program's path; with the script's path a program can start itself again.
    has_argv0 = b"--argv0" in (root / loader).read_bytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        WRAPPER.format(
            script=script,
            program=program,
            up="/".join([".."] * script.count("/")),
            loader=loader,
            drop=DROP.format(option=drop) if drop else "",
            variables="".join(f"export {variable}\n" for variable in variables),
            libraries=":".join(f"$root/{folder}" for folder in LIBRARIES if (root / folder).is_dir()),
            argv0='--argv0 "$0" ' if has_argv0 else "",
            arguments="".join(f' "{argument.format(root="$root")}"' for argument in arguments),
        )
    )
    path.chmod(0o755)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder to unpack into")
    parser.add_argument(
        "--wrapper", action="append", default=[], metavar="SCRIPT=PROGRAM", help="see write_wrapper; may be repeated"
    )
    parser.add_argument(
        "--drop",
        action="append",
        default=[],
        metavar="SCRIPT=OPTION",
        help="an option that the wrapper keeps from its program",
    )
    parser.add_argument("archives", nargs="+", type=Path, help=".deb and .whl files")
    options = parser.parse_args(arguments)
    try:
        for archive in options.archives:
            if zipfile.is_zipfile(archive):
                extract(archive, options.root, prefix="", patterns=[])
            else:
                unpack(archive, options.root)
        remove_dangling_links(options.root)
        relocate_linker_scripts(options.root)
        dropped = dict(each.split("=", 1) for each in options.drop)
        for wrapper in options.wrapper:
            script, command = wrapper.split("=", 1)
            write_wrapper(options.root, script, command, dropped.get(script, ""))
    except (OSError, ValueError, errors.UserError) as error:
        print(f"unpack.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
