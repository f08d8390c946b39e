"""Where this machine's Maven downloads from, and single files from there by hash; standard library only.

    python3 fetch/maven/repository.py --maven maven-model-builder.jar PATH
                     # JSON: the file's url, and auth (as Bazel's download expects it) if this user has a login

The address is that in MLC_MAVEN_URL, else the mirror of the central repository that the user's or the machine's
settings.xml names (Maven, "Settings Reference"), else the central repository itself, whose address is in the project
model that comes with Maven.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

sys.path.append(str(Path(__file__).resolve().parents[2]))  # the workspace root: this runs from a repository rule

from fetch import archives, credentials, errors, folders

# What every project inherits (Maven, "Introduction to the POM", "Super POM").
_MODEL = "org/apache/maven/model/pom-4.0.0.xml"
_MOST_MODEL = 1 << 20
_CENTRAL = "central"

_INSTEAD = "Set MLC_MAVEN_URL, with https://USER:PASSWORD@HOST/… or an entry in ~/.netrc."


class MavenError(errors.UserError):
    """No repository is known; the message is one line that says what to set."""


def path_of(entry: Mapping[str, Any]) -> str:
    """The path of a file in a repository (Maven, "Repository Layout - Final").

    Args:
        entry: `group`, `artifact`, `version` and `classifier` of a jar.

    >>> path_of({"group": "org.example", "artifact": "a", "version": "1.0", "classifier": "linux"})
    'org/example/a/1.0/a-1.0-linux.jar'
    """
    group, artifact, version = entry["group"], entry["artifact"], entry["version"]
    return f"{group.replace('.', '/')}/{artifact}/{version}/{artifact}-{version}-{entry['classifier']}.jar"


def base_url(maven: Path) -> str:
    """The repository's address, without user, password and a trailing slash (`credentials` keeps the former).

    Args:
        maven: Maven's archive with the project model.

    Raises:
        MavenError: a settings.xml or the archive cannot be read.
    """
    return configured() or _central(maven).rstrip("/")


def configured() -> str | None:
    """The same if MLC_MAVEN_URL or a settings.xml names it.

    Raises:
        MavenError: a settings.xml cannot be read.
    """
    if chosen := os.environ.get("MLC_MAVEN_URL"):
        return credentials.learn(chosen).rstrip("/")
    settings = [(path, root) for path in settings_files() if (root := _read(path)) is not None]
    mirror = _mirror([root for _, root in settings])
    if mirror is None:
        return None
    url, login = credentials.split(_text(mirror, "url"))
    for path, root in settings:
        # Settings may or may not name their XML namespace.
        for server in root.iterfind("{*}servers/{*}server"):
            if not login and _text(server, "id") == _text(mirror, "id"):
                login = _login(path, server)
    if "${" in url:
        raise MavenError(f"Maven's settings: the mirror {url!r:.200} has variables that are not set. {_INSTEAD}")
    if login:
        scheme, _, rest = url.partition("://")
        user, password = (urllib.parse.quote(each, safe="") for each in login)
        url = f"{scheme}://{user}:{password}@{rest}"
    return credentials.learn(url).rstrip("/")


def settings_files() -> list[Path]:
    """The settings that Maven merges: the user's go before the machine's."""
    home = folders.home()
    machine = [os.environ.get("MAVEN_HOME"), "/usr/share/maven"]
    files = [Path(home, ".m2/settings.xml")] if home else []
    files += [Path(folder, "conf/settings.xml") for folder in machine if folder]
    return files + [Path("/etc/maven/settings.xml")]


def _read(path: Path) -> ElementTree.Element | None:
    try:
        return ElementTree.parse(path).getroot()  # noqa: S314  # The user's own file.
    except FileNotFoundError:
        return None
    except (OSError, ElementTree.ParseError, LookupError, ValueError) as error:
        raise MavenError(
            f"{path}: expected Maven's settings, found {error}. Set MLC_MAVEN_URL to do without."
        ) from None


def _mirror(settings: Sequence[ElementTree.Element]) -> ElementTree.Element | None:
    """The mirror of the central repository, as Maven chooses: one that names it goes before one for all."""
    mirrors = [
        mirror
        for root in settings
        for mirror in root.iterfind("{*}mirrors/{*}mirror")
        if _text(mirror, "url") and _text(mirror, "blocked") != "true" and _covers_central(_text(mirror, "mirrorOf"))
    ]
    return next((each for each in mirrors if _text(each, "mirrorOf") == _CENTRAL), mirrors[0] if mirrors else None)


def _login(path: Path, server: ElementTree.Element) -> credentials.Login | None:
    user, password = _text(server, "username"), _text(server, "password")
    if not user or not password:
        return None
    # Maven encrypts passwords with a key in another file, and allows text around the braces.
    if re.search(r"\{[^{}]+\}", password):
        what = "has variables that are not set" if "${" in password else "is encrypted, which only Maven can read"
        raise MavenError(f"{path}: the password of server {_text(server, 'id')!r:.100} {what}. {_INSTEAD}")
    return credentials.Login(user, password)


def _text(element: ElementTree.Element, name: str) -> str:
    """The text of a child, with the environment's variables in the places of ${env.NAME}, as Maven reads it."""
    text = (element.findtext(f"{{*}}{name}") or "").strip()
    return re.sub(r"\$\{env\.(\w+)\}", lambda match: os.environ.get(match[1], match[0]), text)


def _covers_central(patterns: str) -> bool:
    """Whether <mirrorOf> is for the central repository (Maven, "Using Mirrors for Repositories").

    >>> [_covers_central(each) for each in ("*", "central", "external:*", "a,central", "*,!central", "a")]
    [True, True, True, True, False, False]
    """
    names = {each.strip() for each in patterns.split(",")}
    return f"!{_CENTRAL}" not in names and bool(names & {"*", "external:*", _CENTRAL})


def _central(maven: Path) -> str:
    """The address of the central repository, which Maven's project model names."""
    try:
        for info, content in archives.zip_entries(maven):
            if info.filename == _MODEL:
                model = ElementTree.fromstring(content.read(_MOST_MODEL))  # noqa: S314  # Locked by hash.
                for repository in model.iterfind("{*}repositories/{*}repository"):
                    if _text(repository, "id") == _CENTRAL and (url := _text(repository, "url")):
                        return url
    except (OSError, ElementTree.ParseError, errors.UserError) as error:
        raise MavenError(f"{maven}: expected an archive of Maven, found {error!r:.200}. Set MLC_MAVEN_URL.") from None
    raise MavenError(f"{maven}: expected the address of the repository {_CENTRAL!r} in {_MODEL}. Set MLC_MAVEN_URL.")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--maven", type=Path, required=True, metavar="JAR", help="Maven's archive with the project model"
    )
    parser.add_argument("path", help="of the file in the repository")
    options = parser.parse_args(arguments)
    try:
        url = f"{base_url(options.maven)}/{options.path}"
        login = credentials.find(url)
    except errors.UserError as error:
        print(error, file=sys.stderr)
        return 1
    json.dump({"url": url, **({"auth": login.for_bazel()} if login else {})}, sys.stdout)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
