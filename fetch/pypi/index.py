"""The Python package index that this machine's pip is configured with, and single files from it by hash; standard
library only.

    python3 fetch/pypi/index.py index-url        # JSON: the address of the simple index, without user and password
    python3 fetch/pypi/index.py files PROJECT    # JSON: the project's files, each with filename, url, hashes, and auth
                                                 # (as Bazel's download expects it) where the user has a login
"""

from __future__ import annotations

import argparse
import configparser
import html.parser
import json
import os
import re
import subprocess
import sys
import tempfile
import urllib.parse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Callable

_ROOT = Path(__file__).resolve().parents[2]
# Repository rules run this file by path. Last, so that no file of the workspace replaces one of the standard library.
sys.path.append(str(_ROOT))

from fetch import archives, credentials, download, errors, folders, hashes, locks, names
from fetch.debian import archive as debian

_SIMPLE_JSON = "application/vnd.pypi.simple.v1+json"

# The largest pages of PyPI have some 10,000 files, each with less than ten tags and entities, of less than 1 KiB each.
_MOST_TAGS = 1 << 20
_TAG_LENGTH = 1 << 14


class PyPIError(errors.UserError):
    """The index does not answer or lacks a file; the message says what to set."""


def configuration_files() -> list[Path]:
    """The files that pip reads its configuration from, in pip's order: the last one wins."""
    override = os.environ.get("PIP_CONFIG_FILE")
    if override == os.devnull:
        return []
    home = Path(folders.home() or "/nonexistent")
    shared = os.environ.get("XDG_CONFIG_DIRS") or "/etc/xdg"
    files = [Path(folder, "pip/pip.conf") for folder in shared.split(os.pathsep)]
    files += [Path("/etc/pip.conf"), home / ".pip/pip.conf"]
    files += [Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config", "pip/pip.conf")]
    files += [Path(sys.prefix, "pip.conf")]
    return files + ([Path(override)] if override else [])


def configured(name: str) -> str | None:
    """One global option of pip: from PIP_<NAME>, else from the configuration files."""
    value = os.environ.get("PIP_" + name.upper().replace("-", "_"))
    if value:
        return value
    for path in reversed(configuration_files()):
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except (OSError, configparser.Error, UnicodeDecodeError) as error:
            raise PyPIError(f"{path}: not a pip configuration file: {error}") from error
        for section in ("install", "download", "global"):
            for key in (name, name.replace("-", "_")):
                if parser.has_option(section, key):
                    return parser.get(section, key).strip()
    return None


def index_url(default: str | None = None) -> str:
    """The address of the simple index, without user, password and a trailing slash (`credentials` keeps the former).

    From pip's configuration (PIP_INDEX_URL, pip.conf), else the default that pip itself reports: the machine's pip,
    else the one in Debian's package python3-pip-whl, which locks/debian.lock.json pins.

    Args:
      default: that default, if it is known already.
    """
    chosen = configured("index-url")
    if chosen:
        return credentials.learn(chosen).rstrip("/")
    if default:
        return default
    for path in _pips():
        # In a child process: importing pip is slow, and a wheel must come before an installed pip.
        code = (
            "import sys; sys.path[:0] = sys.argv[1:];"
            " from pip._internal.models.index import PyPI; print(PyPI.simple_url)"
        )
        # Isolated (-I): else Python would import a pip.py from the current folder.
        command = [sys.executable, "-I", "-c", code, *([str(path)] if path else [])]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        if done.returncode == 0 and done.stdout.strip():
            return done.stdout.strip().rstrip("/")
    raise PyPIError("no Python package index is known: pip is neither configured nor available. Set PIP_INDEX_URL.")


def _pips() -> Iterator[Path | None]:
    """Places to import pip from: as installed, the wheel that ensurepip has, the wheel in Debian's package."""
    yield None
    yield from sorted(Path("/usr/share/python-wheels").glob("pip-*.whl"))
    try:
        import ensurepip

        yield from sorted(Path(ensurepip.__file__).parent.glob("_bundled/pip-*.whl"))
    except ImportError:  # Debian's Python without python3-venv.
        pass
    with tempfile.TemporaryDirectory() as folder:
        yield _pip_from_debian(Path(folder))


def _pip_from_debian(folder: Path) -> Path:
    urls, sha256, size = _pip_package()
    deb = debian.Deb(download.fetch(urls, folder / "pip.deb", sha256, size))
    with deb.data() as tar:
        for member in tar:
            name = os.path.basename(member.name)
            if member.isreg() and re.fullmatch(r"pip-[\w.+-]*\.whl", name):
                with archives.Extractor(folder, deb.path.name) as extractor:
                    extractor.file(name, archives.content(tar, member), executable=False)
                return folder / name
    raise PyPIError(f"{deb.path}: expected a wheel of pip in it, found none")


def _pip_package() -> tuple[list[str], str, int]:
    """Addresses, sha256 and size of the package that has pip."""
    lock_file = _ROOT / "locks/debian.lock.json"
    try:
        lock = locks.parse_json(lock_file.read_text(encoding="utf-8"), str(lock_file))
        for key in lock["sets"]["pip"]:
            package = lock["packages"][key]
            if key.endswith("/python3-pip-whl"):
                urls = [f"{mirror}/{package['path']}" for mirror in debian.mirror_urls(package["archive"])]
                return urls, package["sha256"], int(package["size"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise PyPIError(
            f"{lock_file}: expected the set 'pip' with python3-pip-whl in it: {error!r}. Set PIP_INDEX_URL to do"
            " without."
        ) from error
    raise PyPIError(f"{lock_file}: the set 'pip' has no python3-pip-whl. Set PIP_INDEX_URL to do without.")


def files(project: str, default_index: str | None = None) -> list[dict]:
    """The files of a project as the index lists them: see `parse_page`."""
    return _files(page_url(project, default_index), project)


def page_url(project: str, default_index: str | None = None) -> str:
    """The address of the page that lists a project's files."""
    page = f"{index_url(default_index)}/{re.sub(r'[-_.]+', '-', project).lower()}/"
    return page + "index.html" if page.startswith("file:") else page  # As pip does with an index in a folder.


def _files(page: str, project: str) -> list[dict]:
    try:
        body = download.read(page, {"Accept": f"{_SIMPLE_JSON}, text/html;q=0.1"})
    except download.DownloadError as error:
        raise PyPIError(
            f"the Python package index does not answer for '{project}': {error}\nIf it has moved, set PIP_INDEX_URL."
        ) from error
    return parse_page(page, body)


def parse_page(page: str, body: bytes) -> list[dict]:
    """The files on a project's page, in JSON (PEP 691) or HTML (PEP 503): dictionaries with filename, url, hashes.

    Left out are entries whose name is no plain file name, because repository rules write a file under it, and those
    that lead elsewhere than to http and https; an index in a folder may also name files. The URLs are absolute, and
    without the user and password that a page may put there: only the user's own count.

    Args:
        page: its address.
        body: its content.

    Raises:
        PyPIError: it is neither.
    """
    try:
        if body.lstrip()[:1] == b"{":
            listed = [{**file, "hashes": dict(file["hashes"])} for file in json.loads(body)["files"]]
        else:
            listed = list(_html_files(body.decode("utf-8", "replace")))
        listed = [
            {**file, "url": credentials.foreign(urllib.parse.urljoin(page, file["url"]))}
            for file in listed
            if names.is_base_name(file["filename"])
        ]
        schemes = ("http:", "https:", "file:") if page.startswith("file:") else ("http:", "https:")
        listed = [file for file in listed if file["url"].startswith(schemes)]
        for file in listed:
            if not all(isinstance(each, str) for pair in file["hashes"].items() for each in pair):
                raise TypeError(f"hashes of {file['filename']} that are no text")
    except (
        AssertionError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
        errors.UserError,
    ) as error:
        raise PyPIError(
            f"{page}: expected the simple API of a Python package index, found {error!r:.200}. Set PIP_INDEX_URL to"
            " one that has it."
        ) from error
    return listed


def _html_files(text: str) -> Iterator[dict]:
    """The older form of the simple API (PEP 503), which private indexes still use.

    Raises:
        ValueError: no index has so many tags and entities.
    """
    if text.count("<") + text.count("&") > _MOST_TAGS:
        raise ValueError(f"more than {_MOST_TAGS} tags and entities")
    links = _Links()
    for start in range(0, len(text), _TAG_LENGTH):
        links.feed(text[start : start + _TAG_LENGTH])
        # What it keeps is a tag without its end, and it reads that again with each piece.
        if len(links.rawdata) > _TAG_LENGTH:
            links.reset()
    # It is not closed: what is then read has no end, some versions of Python take a quadratic time for it.
    for href, name in links.found:
        url, _, fragment = href.partition("#")
        kind, _, value = fragment.partition("=")
        yield {"filename": name, "url": url, "hashes": {kind: value} if value else {}}


class _Links(html.parser.HTMLParser):
    """Reads the links of a page into `found`: pairs of address and text."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, str]] = []
        self._href: str | None = None
        self._text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self._href = next((value for name, value in attrs if name == "href"), None)
            self._text = []

    def handle_data(self, data: str) -> None:
        if self._href:
            self._text.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag == "a" and self._href:
            self.found.append((self._href, "".join(self._text).strip()))
            self._href = None

    def set_cdata_mode(self, *_: Any, **__: Any) -> None:
        """Reads scripts and styles like text: they would have to be kept until their ends."""

    def parse_marked_section(self, i: int, report: int = 1) -> int:
        """Skips what HTML does not have, and what Python's method takes for a fault of the program."""
        return self.rawdata.find(">", i) + 1 or -1


def fetch(
    project: str,
    filename: str,
    sha256: str,
    destination: Path,
    progress: Callable[[int], None] = lambda received: None,
    size: int | None = None,
) -> Path:
    """Downloads one file of a project, verified; see `download.fetch`."""
    if destination.exists() and hashes.file_sha256(destination) == sha256:
        progress(destination.stat().st_size)
        return destination
    download.require_network(f"{filename} (sha256 {sha256})")
    page = page_url(project)
    urls = [file["url"] for file in _files(page, project) if file["filename"] == filename]
    if not urls:
        raise PyPIError(
            f"the index that pip is configured with has no '{filename}' of '{project}'. Set PIP_INDEX_URL to one that"
            " has."
        )
    return download.fetch(urls, destination, sha256, size, progress, after=page)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("index-url", help="the address of the simple index")
    of_project = commands.add_parser("files", help="the files of a project")
    of_project.add_argument("project")
    of_project.add_argument("--default-index", help="what index-url printed: the index if pip is not configured")
    options = parser.parse_args(arguments)
    try:
        answer: object
        if options.command == "index-url":
            answer = index_url()
        else:
            page = page_url(options.project, options.default_index)
            listed = _files(page, options.project)
            logins = {file["url"]: credentials.find(file["url"], page) for file in listed}
            answer = [
                {**file, "auth": login.for_bazel()} if (login := logins[file["url"]]) else file for file in listed
            ]
        json.dump(answer, sys.stdout)
    except errors.UserError as error:
        print(error, file=sys.stderr)
        return 1
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
