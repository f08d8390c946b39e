"""Puts this build's wheels into a package index of static files, for any web server or `file:` address.

    tools/bazel run //wheels:index.add -- --folder FOLDER [WHEEL…]

FOLDER gets wheels/ with the wheels and their METADATA (PEP 658), and simple/ with the pages that pip and uv read (PEP
503, and PEP 691 as index.v1.json). Wheels that are there already stay, so that old versions can still be installed;
another file of the same name is refused.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import email.parser
import fcntl
import hashlib
import json
import os
import shutil
import sys
import tempfile
import urllib.parse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import jinja2
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from fetch import archives, errors
from fetch.arguments import Parser, user_path
from fetch.hashes import file_sha256

# METADATA with upstream's description has some tens of kB.
_MOST_METADATA = 1 << 20

# Links are relative, so that the folder works under any address. Tools that map names to static files, such as
# dumb-pypi, write neither PEP 691 nor PEP 658.
_PAGE = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="pypi:repository-version" content="1.1">
<title>{{ title }}</title>
</head>
<body>
<h1>{{ title }}</h1>
{%- for link in links %}
<a href="{{ link.href }}"
{%- for name, value in link.data.items() %} data-{{ name }}="{{ value }}"{% endfor %}>{{ link.text }}</a><br>
{%- endfor %}
</body>
</html>
""")


class WheelIndexError(errors.UserError):
    """The index cannot take a wheel: one line with the file, what was expected and what was found."""


@dataclasses.dataclass(frozen=True)
class _Link:
    text: str
    href: str
    data: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class _Wheel:
    """A wheel of the index; hashes are hexadecimal sha256."""

    file: str
    project: str
    version: str
    size: int
    sha256: str
    requires_python: str
    metadata_sha256: str

    @property
    def href(self) -> str:
        """Its address from its project's page, without a hash."""
        return "../../wheels/" + urllib.parse.quote(self.file)


def add(folder: Path, wheels: Iterable[Path]) -> None:
    """Adds wheels to the index in a folder, which may be new.

    Raises:
        WheelIndexError: a file is no wheel, or the index has another of its name.
        errors.UserError: a wheel is damaged.
        OSError: the folder cannot be written.
    """
    place = folder / "wheels"
    place.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        added = {wheel: _metadata(wheel) for wheel in wheels}
        for wheel in added:
            target = place / wheel.name
            if target.exists() and (old := file_sha256(target)) != (new := file_sha256(wheel)):
                raise WheelIndexError(
                    f"{wheel.name}: expected the same file as in {place} (sha256 {old}), found {new}: an index must not"
                    " change a version; remove the old file if nobody has it"
                )
        for wheel, metadata in added.items():
            # The wheel last: pages name only what is whole.
            with _replacing(place / f"{wheel.name}.metadata") as file:
                file.write(metadata)
            if not (place / wheel.name).exists():
                with _replacing(place / wheel.name) as file, wheel.open("rb") as source:
                    shutil.copyfileobj(source, file)
        _write_pages(folder)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Waits until no other process writes this index."""
    # On NFS only a file that is open for writing can be locked.
    with (folder / ".lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _replacing(target: Path) -> Iterator[IO[bytes]]:
    """Writes a file that appears whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".", delete=False) as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.chmod(file.name, 0o644)
            os.replace(file.name, target)
        except BaseException:
            os.unlink(file.name)
            raise


def _parsed(name: str) -> tuple[str, str]:
    """The project and version that a wheel's file name has."""
    try:
        project, version, _, _ = parse_wheel_filename(name)
    except InvalidWheelFilename as error:
        raise WheelIndexError(f"{name}: expected a wheel, found {error}") from None
    return project, str(version)


def _metadata(path: Path) -> bytes:
    """The METADATA of a wheel, which has the name and version of the file."""
    name = "-".join(path.name.split("-")[:2]) + ".dist-info/METADATA"
    project, version = _parsed(path.name)
    found = [content.read(_MOST_METADATA + 1) for info, content in archives.zip_entries(path) if info.filename == name]
    if len(found) != 1 or len(found[0]) > _MOST_METADATA:
        raise WheelIndexError(
            f"{path}: expected one {name} of at most {_MOST_METADATA} bytes, found {'more' if found else 'none'}"
        )
    headers = email.parser.BytesParser().parsebytes(found[0], headersonly=True)
    said = str(headers["Name"]), str(headers["Version"])
    if (canonicalize_name(said[0]), said[1]) != (project, version):
        raise WheelIndexError(
            f"{path}: expected METADATA of {project} {version}, found that of {' '.join(said)!r:.100}"
        )
    return found[0]


def _wheels(folder: Path) -> Iterator[_Wheel]:
    for path in sorted((folder / "wheels").glob("*.whl")):
        project, version = _parsed(path.name)
        beside = path.with_name(f"{path.name}.metadata")
        if not beside.exists():  # Somebody put the wheel there.
            with _replacing(beside) as file:
                file.write(_metadata(path))
        metadata = beside.read_bytes()
        headers = email.parser.BytesParser().parsebytes(metadata, headersonly=True)
        yield _Wheel(
            path.name,
            project,
            version,
            path.stat().st_size,
            file_sha256(path),
            str(headers["Requires-Python"] or ""),
            hashlib.sha256(metadata).hexdigest(),
        )


def _write_pages(folder: Path) -> None:
    projects: dict[str, list[_Wheel]] = {}
    for wheel in _wheels(folder):
        projects.setdefault(wheel.project, []).append(wheel)
    simple = folder / "simple"
    for page in simple.glob("*/index.html"):
        if page.parent.name not in projects:  # Somebody removed its wheels.
            shutil.rmtree(page.parent)
    for project, wheels in projects.items():
        _write_page(simple / project, f"Links for {project}", map(_link, wheels))
        content = {
            "meta": {"api-version": "1.1"},
            "name": project,
            "versions": sorted({wheel.version for wheel in wheels}),
            "files": [
                {
                    "filename": wheel.file,
                    "url": wheel.href,
                    "hashes": {"sha256": wheel.sha256},
                    "size": wheel.size,
                    "requires-python": wheel.requires_python,
                    "core-metadata": {"sha256": wheel.metadata_sha256},
                }
                for wheel in wheels
            ],
        }
        _write_json(simple / project, content)
    _write_page(simple, "Simple index", (_Link(project, f"{project}/") for project in sorted(projects)))
    _write_json(simple, {"meta": {"api-version": "1.1"}, "projects": [{"name": name} for name in sorted(projects)]})


def _link(wheel: _Wheel) -> _Link:
    metadata = f"sha256={wheel.metadata_sha256}"
    # Older pips read the second name of the metadata (PEP 714).
    data = {"core-metadata": metadata, "dist-info-metadata": metadata}
    if wheel.requires_python:
        data["requires-python"] = wheel.requires_python
    return _Link(wheel.file, f"{wheel.href}#sha256={wheel.sha256}", data)


def _write_page(folder: Path, title: str, links: Iterable[_Link]) -> None:
    with _replacing(folder / "index.html") as file:
        file.write(_PAGE.render(title=title, links=list(links)).encode() + b"\n")


def _write_json(folder: Path, content: object) -> None:
    with _replacing(folder / "index.v1.json") as file:
        file.write(json.dumps(content, indent=1).encode() + b"\n")


def main() -> int:
    parser = Parser("//wheels:index.add", __doc__)
    parser.add_argument("--folder", type=user_path, required=True, help="the index, new or old")
    parser.add_argument("--quiet", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--wheel", type=Path, action="append", default=[], help=argparse.SUPPRESS)
    parser.add_argument("wheels", type=user_path, nargs="*", metavar="WHEEL", help="another wheel, or a folder of some")
    arguments = parser.parse_args()
    given = [*arguments.wheel, *arguments.wheels]
    files = [file for path in given for file in (sorted(path.glob("*.whl")) if path.is_dir() else [path])]
    try:
        add(arguments.folder, files)
    except (errors.UserError, OSError) as error:
        print(f"index: {error}", file=sys.stderr)
        return 1
    if not arguments.quiet:
        print("\n".join(sorted(file.name for file in files)))
        url = (arguments.folder / "simple").absolute().as_uri()
        for project, version in sorted({_parsed(file.name) for file in files}):
            print(f"pip install --extra-index-url {url} {project}=={version}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
