"""Locked inputs under the names that vulnerability data has for them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from fetch import locks as inputs
from fetch.audit import osv
from fetch.audit.osv import Pin
from fetch.locks import Input

# Debian rebuilds a package from unchanged source as version "+b1", "+b2", …
_REBUILD = re.compile(r"\+b\d+$")


def debian_source(path: str, version: str, source_version: str = "") -> tuple[str, str]:
    """Name and version of a Debian package's source package, which vulnerability data names.

    Args:
        path: the .deb's path in the archive; its folder has the source package's name.
        version: the package's version.
        source_version: the source package's version if the lock states a different one.

    >>> debian_source("pool/main/b/bash/bash_5.2.15-2+b13_amd64.deb", "5.2.15-2+b13")
    ('bash', '5.2.15-2')
    """
    return path.split("/")[-2], source_version or _REBUILD.sub("", version)


def debian_release(suite: str) -> str:
    """A suite as OSV's ecosystems name it: "bookworm" is "Debian:12"."""
    return f"{osv.DEBIAN}:{osv.RELEASES[suite]}"


def pin(locked: Input) -> Pin:
    """An input under its name in vulnerability data; a Debian package under that of its source package."""
    if locked.ecosystem == inputs.DEBIAN:
        name, version = debian_source(locked.entry["path"], locked.version, locked.entry.get("source_version", ""))
        return Pin(debian_release(locked.suite), name, version, locked.uses, locked.suite)
    if locked.ecosystem == inputs.CRATE:
        return Pin(osv.CRATES, locked.name, locked.version, locked.uses)
    if locked.from_git:
        repository = re.sub(r"^pkg:github/([^/]+/[^@]+)@.*", r"https://github.com/\1", locked.purl)
        return Pin(osv.GIT, repository, locked.version, ("source",))
    if locked.from_maven:
        return Pin(osv.MAVEN, f"{locked.entry['group']}:{locked.entry['artifact']}", locked.version, ("source",))
    uses = {inputs.MODEL: ("model",), inputs.SOURCE: ("source",)}.get(locked.ecosystem, locked.uses)
    return Pin(osv.PYPI, locked.distribution, locked.version, uses)


def pins(locked: Iterable[Input]) -> list[Pin]:
    """The pins of inputs, sorted. What names the same thing, as all packages of one Debian source do, is one pin with
    the uses of all. Models from hubs and local folders have none: nobody publishes vulnerabilities of models.
    """
    uses: dict[Pin, set[str]] = {}
    for each in map(pin, (each for each in locked if each.ecosystem != inputs.MODEL or each.distribution)):
        uses.setdefault(each.without_uses, set()).update(each.uses)
    found = [Pin(key.ecosystem, key.name, key.version, tuple(sorted(used)), key.suite) for key, used in uses.items()]
    return sorted(found, key=lambda each: (each.ecosystem, each.name, each.version))
