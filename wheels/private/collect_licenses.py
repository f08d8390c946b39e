"""Collects the licences of everything linked into a wheel's libraries in one text, as binary redistribution requires.

    collect_licenses --output THIRD_PARTY_LICENSES.txt --part absl=third_party/absl/LICENSE \\
        --part picojson=picojson.h itoa-1.0.15.crate …

It takes every licence file of a crate, the first comment of a header, and the copyright file of a Debian package.
Parts with the same licence share one copy of it.
"""

from __future__ import annotations

import argparse
import re
import sys
import tarfile
from pathlib import Path

from fetch import errors
from fetch.debian.copyright import copyright_file

# File names in crates: LICENSE-MIT, LICENCE, COPYING, COPYRIGHT, UNLICENSE, NOTICE.txt.
LICENSE_FILE = re.compile(r"(?:.*/)?(?:UN)?(?:LICEN[CS]E|COPYING|COPYRIGHT|NOTICE)[^/]*", re.IGNORECASE)

LINE = "-" * 100


def of_crate(crate: Path) -> list[str]:
    """The licences in a .crate file, sorted by path."""
    with tarfile.open(crate, "r:gz") as tar:
        members = sorted(
            (each for each in tar if each.isreg() and LICENSE_FILE.fullmatch(each.name)), key=lambda each: each.name
        )
        # Links in the repository became files that contain only the link's target.
        files = [tar.extractfile(each) for each in members if not each.name.endswith(".rs")]
        texts = [file.read().decode("utf-8", "replace") for file in files if file]
    return [text for text in texts if len(text) > 100]


def of_file(path: Path) -> str:
    """A licence file's text, the first comment of a C++ header, or a Debian package's copyright file.

    Raises:
        ValueError: the header does not begin with a comment, or the package has no copyright file.
    """
    if path.suffix == ".deb":
        return of_package(path)
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".h":
        return text
    comment = re.match(r"\s*/\*(.*?)\*/", text, re.DOTALL)
    if not comment:
        raise ValueError(f"{path}: expected a comment with the licence at its beginning, found none")
    return re.sub(r"(?m)^\s?\*\s?", "", comment[1])


def of_package(deb: Path) -> str:
    """The copyright file of a Debian package (Debian policy 12.5).

    Raises:
        ValueError: it has a link in its place.
        DebianError: it has none.
    """
    name = deb.name.partition("_")[0]
    owner, text = copyright_file(deb, name)
    if not text:
        raise ValueError(
            f"{deb}: expected /usr/share/doc/{name}/copyright in it, found a link to that of {owner}: take that package"
        )
    return text


def collect(parts: list[tuple[str, list[str]]]) -> str:
    """One text with each licence once, after the names of its parts.

    Args:
        parts: name and licences of each.
    """
    names: dict[str, list[str]] = {}
    originals: dict[str, str] = {}
    for name, texts in parts:
        for text in texts:
            # Copies differ in line ends and indentation.
            key = " ".join(text.split())
            names.setdefault(key, []).append(name)
            originals.setdefault(key, text)
    blocks = [
        f"{LINE}\n{', '.join(dict.fromkeys(names[key]))}\n{LINE}\n\n{original.strip()}\n"
        for key, original in originals.items()
    ]
    return "\n".join(blocks)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--part", action="append", default=[], metavar="NAME=FILE", help="a licence file or a header; repeatable"
    )
    parser.add_argument("--output", type=Path, required=True, help="the file to write")
    parser.add_argument("crates", type=Path, nargs="*", help=".crate files")
    options = parser.parse_args()
    try:
        parts = [(name, [of_file(Path(path))]) for name, _, path in (part.partition("=") for part in options.part)]
        parts += [(crate.name.removesuffix(".crate"), of_crate(crate)) for crate in options.crates]
    except (OSError, ValueError, tarfile.TarError, errors.UserError) as error:
        print(f"collect_licenses: {error}", file=sys.stderr)
        return 1
    options.output.write_text(collect(parts), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
