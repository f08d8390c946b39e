"""Updates locks/licenses.lock.json: the licence of every input in the other locks, as its own package states it.

    tools/bazel run //locks:update_licenses                     # write the lock
    tools/bazel run //locks:update_licenses -- --check          # only compare: exit status 1 if it would change
    tools/bazel run //locks:update_licenses -- --cache FOLDER   # reuse, and keep, downloads:
    FOLDER/content_addressable/sha256/…

Only entries of another version are fetched, by hash; those of git repositories from the checkouts in MLC_SOURCES, else
from upstream.
FOLDER may be Bazel's repository cache (`tools/bazel info repository_cache`).

A licence is an SPDX 2.3 licence expression (annex D). Of a Debian package it joins all that its copyright file names,
which is what its
source package holds: more than reaches the binary package. A copyright file that is prose is searched for well-known
words, and may state
more than they tell. Names that SPDX does not know become LicenseRef-debian-<name>.
"""

from __future__ import annotations

import argparse
import functools
import io
import logging
import os
import posixpath
import re
import sys
import tarfile
import tempfile
import threading
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import tomllib

sys.path.insert(0, str(Path(__file__).parents[2]))  # the workspace root, so that this also runs without Bazel

from debian import copyright as dep5  # python-debian
from license_expression import ExpressionError, Licensing, get_spdx_licensing
from packaging.metadata import RawMetadata, parse_email

from fetch import download, errors, lock_file
from fetch import locks as inputs
from fetch.crates import registry
from fetch.debian import archive as debian
from fetch.git import checkout
from fetch.locks import Input
from fetch.pypi import index as pypi

LOCK = inputs.LICENSES_LOCK
DOWNLOADS_AT_ONCE = 4

PUBLIC_DOMAIN = "LicenseRef-public-domain"

# Licences in the files of such a distribution are those of what it contains, not its own.
PROPRIETARY = "License :: Other/Proprietary License"

# Names in DEP-5 files (copyright-format 1.0, "License specification") and on PyPI that are neither SPDX identifiers nor
# of the GNU family.
SPDX_OF = {
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache-2": "Apache-2.0",
    # The licence of Perl, /usr/share/common-licenses/Artistic.
    "artistic": "Artistic-1.0-Perl",
    "artistic-1": "Artistic-1.0-Perl",
    "boost": "BSL-1.0",
    "bsd-0-clause": "0BSD",
    "bsd-4-clause-ucb": "BSD-4-Clause-UC",
    "bsd-2": "BSD-2-Clause",
    "bsd-3": "BSD-3-Clause",
    "bsd3": "BSD-3-Clause",
    "bsl-1": "BSL-1.0",
    "expat": "MIT",
    "mit license": "MIT",
    "mpl-2": "MPL-2.0",
    "openldap-2.8": "OLDAP-2.8",
    "pd": PUBLIC_DOMAIN,
    "psfl": "PSF-2.0",
    "public domain": PUBLIC_DOMAIN,
    "public-domain": PUBLIC_DOMAIN,
}

# Classifiers of PyPI that name one licence; "BSD License" and the like do not say which.
CLASSIFIERS = {
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: ISC License (ISCL)": "ISC",
    "License :: OSI Approved :: MIT License": "MIT",
    "License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "License :: OSI Approved :: Python Software Foundation License": "PSF-2.0",
    "License :: Public Domain": PUBLIC_DOMAIN,
}

# "<licence> with <name> exception" in DEP-5 files; {} is "-3.0" under version 3 of the GPL.
EXCEPTIONS = {
    # Plain "Autoconf" stands for two different ones.
    "autoconf-data": "Autoconf-exception-generic{}",
    "bison": "Bison-exception-2.2",
    "bison-2.2": "Bison-exception-2.2",
    "libtool": "Libtool-exception",
    "linux-syscall-note": "Linux-syscall-note",
    "texinfo": "Texinfo-exception",
}

# Well-known wording in copyright files that are prose, in text with single spaces. What matches is taken out before the
# next is looked for.
TEXTS = [
    (
        r"GNU Lesser General Public License.{0,80}version 3 of.{0,100}"
        r"GNU General Public License.{0,80}version 2 of.{0,100}both in parallel",
        "GPL-2.0-or-later OR LGPL-3.0-or-later",
    ),
    (r"GCC Runtime Library Exception", "GPL-3.0-or-later WITH GCC-exception-3.1"),
    (r"Apache License, Version 2\.0|common-licenses/Apache-2\.0", "Apache-2.0"),
    (r"common-licenses/Artistic", "Artistic-1.0-Perl"),
    (r"common-licenses/CC0-1\.0|CC0 1\.0 Universal", "CC0-1.0"),
    (r"Permission is hereby granted, free of charge, to any person obtaining a copy of this software", "MIT"),
    (
        r"Permission to use, copy, modify, and(?:/or)? distribute this software for any purpose with or without fee",
        "ISC",
    ),
    (
        (
            r"Permission to use, copy, modify,? and distribute this software and its documentation for any purpose"
            r" (?:and )?without fee"
        ),
        "HPND",
    ),
    (r"Python Software Foundation License Version 2|PSF License Agreement", "Python-2.0"),
    (r"\bpublic domain\b", PUBLIC_DOMAIN),
]

_GNU_NAME = re.compile(
    r"(?P<family>A?GPL|LGPL|GFDL)(?P<niv>-NIV)?(?:-?v?(?P<version>\d(?:\.\d)?))?(?P<later>\+)?(?P<niv2>-no-invariants?)?",
    re.I,
)
_GNU_NOTICE = re.compile(
    r"(?<!text of the )GNU (?P<kind>Lesser General Public|Library General Public|General Public|Free Documentation)"
    r" License(?: \(\w+\))?"
    r"(?: as published by the Free Software Foundation)?[,;:]? ?\(?(?:either )?version"
    r" (?P<version>\d(?:\.\d)?)(?=(?P<rest>.{0,60}))",
    re.I,
)
_GNU_KINDS = {
    "lesser general public": "LGPL",
    "library general public": "LGPL",
    "general public": "GPL",
    "free documentation": "GFDL",
}
_FIRST_VERSION = {"GPL": "1.0", "LGPL": "2.0", "GFDL": "1.1", "AGPL": "1.0"}
_BSD_TEXT = "Redistribution and use in source and binary forms"


# Names of licences -----------------------------------------------------------------------------------------------


@functools.cache
def licensing() -> Licensing:
    """SPDX's identifiers, operators and exceptions."""
    return get_spdx_licensing()


@functools.cache
def _identifiers() -> dict[str, str]:
    """SPDX's identifiers of licences by their lower-case form; not ScanCode's own LicenseRef-…, which are among the
    known symbols too.
    """
    known = licensing().known_symbols.items()
    return {
        name.lower(): name for name, symbol in known if not symbol.is_exception and not name.startswith("LicenseRef-")
    }


def license_ref(name: str) -> str:
    """An identifier for a licence that SPDX does not know (SPDX 2.3, 10.1: letters, digits, "." and "-")."""
    return "LicenseRef-" + re.sub(r"[^A-Za-z0-9.]+", "-", re.sub(r"\+(?=[ -]|$)", "-or-later", name)).strip("-.")


def gnu(family: str, version: str | None, *, later: bool, no_invariants: bool = False) -> str:
    """SPDX's identifier of a licence of the GNU project; without a version any version applies."""
    number = f"{version}.0" if version and "." not in version else version or _FIRST_VERSION[family]
    return (
        f"{family}-{number}{'-no-invariants' if no_invariants else ''}-{'or-later' if later or not version else 'only'}"
    )


def known_name(name: str) -> str | None:
    """The SPDX expression of one licence's name, or None where SPDX has none for it."""
    if match := _GNU_NAME.fullmatch(name):
        identifier = gnu(
            match["family"].upper(),
            match["version"],
            later=bool(match["later"]),
            no_invariants=bool(match["niv"] or match["niv2"]),
        )
        return _identifiers().get(identifier.lower())
    return SPDX_OF.get(name.lower()) or _identifiers().get(name.lower())


def debian_name(name: str) -> str:
    """The SPDX expression of one licence of a DEP-5 file, with its exception if it has one."""
    # Some write GPL-2+-libtool-exception or GPL-2+-with-libtool-exception.
    split = re.fullmatch(r"(.+?)(?: with |(?<=[\d+])-with-|(?<=[\d+])-)(?:the )?(.+?)[ -]exception", name, re.I)
    if split:
        base, exception = known_name(split[1]), EXCEPTIONS.get(split[2].lower())
        if base and exception:
            return f"{base} WITH {exception.format('-3.0' if base.startswith('GPL-3') else '')}"
    return known_name(name) or license_ref(f"debian-{name}")


def debian_expression(synopsis: str) -> str:
    """The SPDX expression of a DEP-5 license synopsis (copyright-format 1.0, "Syntax"): "and" before "or", a comma
    after both.
    """
    synopsis = re.sub(r" (?:and/or|OR) |(?<=[\d+])-or-(?!later)", " or ", " ".join(synopsis.split())).replace(
        " AND ", " and "
    )
    head, *rest = re.split(r", ?(?:(and|or) )?", synopsis)
    joined = _debian_alternatives(head)
    for operator, part in zip(rest[::2], rest[1::2]):
        if part:
            joined = f"({joined}) {(operator or 'and').upper()} ({_debian_alternatives(part)})"
    return joined


def _debian_alternatives(text: str) -> str:
    alternatives = [" AND ".join(map(debian_name, part.split(" and "))) for part in text.split(" or ")]
    return " OR ".join(alternatives)


def join(expressions: Iterable[str]) -> str:
    """All the licences together: one expression, simplified, in a fixed order.

    Raises:
        ExpressionError: one of them is not a licence expression.
    """
    parsed = [licensing().parse(expression) for expression in sorted(set(expressions))]
    return str(functools.reduce(lambda one, other: one & other, parsed).simplify())


# What packages state ---------------------------------------------------------------------------------------------


def prose(text: str) -> set[str]:
    """The licences that a text for people states in well-known words, or by the name of a file in
    /usr/share/common-licenses.
    """
    # What comments in quoted source files start their lines with is not part of the sentence.
    text = re.sub(r"[\s*#>]+", " ", text)
    found: set[str] = set()
    for pattern, expression in TEXTS:
        text, count = re.subn(pattern, " ", text, flags=re.I)
        if count:
            found.add(expression)
    for part in text.split(_BSD_TEXT)[1:]:
        conditions = re.split(r"as is", part, maxsplit=1, flags=re.I)[0]
        if re.search("advertising materials", conditions, re.I):
            found.add("BSD-4-Clause")
        elif re.search("endorse or promote", conditions, re.I):
            found.add("BSD-3-Clause")
        elif re.search("binary form must reproduce", conditions, re.I):
            found.add("BSD-2-Clause")
    families = set(re.findall(r"\b(L?GPL|GFDL)-", " ".join(found)))
    for notice in _GNU_NOTICE.finditer(text):
        family = _GNU_KINDS[notice["kind"].lower()]
        families.add(family)
        following = text[notice.start() : notice.start() + 400]
        no_invariants = family == "GFDL" and "no invariant sections" in following.lower()
        later = bool(re.match(r"\+|.*\bor (?:any )?later|.*any later version", notice["rest"], re.I))
        found.add(gnu(family, notice["version"], later=later, no_invariants=no_invariants))
    for family, version in re.findall(r"common-licenses/(L?GPL|GFDL)(?:-(\d(?:\.\d)?))?", text):
        if family not in families:
            found.add(gnu(family, version or None, later=False))
    return found


def debian_licenses(text: str, package: str) -> str:
    """The SPDX expression of a Debian copyright file: DEP-5 by its License fields, prose by well-known words.

    Args:
        text: the file's content.
        package: names the licence where the file does not: LicenseRef-<package>.
    """
    unnamed = license_ref(package)
    try:
        document = dep5.Copyright(text.splitlines(keepends=True), strict=False)
    except (dep5.NotMachineReadableError, dep5.MachineReadableFormatError):
        return join(prose(text) or {unnamed})
    stated = [document.header.license, *(paragraph.license for paragraph in document.all_files_paragraphs())]
    found: set[str] = set()
    for license in filter(None, stated):
        found |= {debian_expression(license.synopsis)} if license.synopsis else prose(license.text) or {unnamed}
    return join(found or {unnamed})


def copyright_file(path: Path, package: str) -> tuple[str, str]:
    """A Debian package's copyright file (Debian policy 12.5).

    Returns:
        The package that it belongs to, and its text; the text is empty if that is another package, to which a link
        leads.

    Raises:
        DebianError: the package has none.
    """
    folder = f"usr/share/doc/{package}"
    with debian.Deb(path).data() as data:
        for member in data:
            name = posixpath.normpath(member.name).lstrip("/")
            if name not in (folder, f"{folder}/copyright"):
                continue
            if member.issym():
                target = posixpath.normpath(posixpath.join("/", posixpath.dirname(name), member.linkname))
                return target.removeprefix("/usr/share/doc/").split("/")[0], ""
            if member.isreg():
                return package, data.extractfile(member).read().decode("utf-8", "replace")  # type: ignore[union-attr]
    raise debian.DebianError(
        f"{package}: expected /{folder}/copyright or a link there, found neither: dpkg-deb --contents {path}"
    )


def pypi_licenses(metadata: RawMetadata, texts: Iterator[str]) -> str:
    """The SPDX expression of a distribution (core metadata): License-Expression, else License, else classifiers, else
    its licence files.

    Args:
        metadata: of METADATA or PKG-INFO.
        texts: of its licence files, read only where the fields do not say it.
    """
    name = metadata["name"]
    for stated in (metadata.get("license_expression"), metadata.get("license")):
        if stated and (known := known_name(stated.strip()) or _valid(stated)):
            return join([known])
    classifiers = metadata.get("classifiers", [])
    classified = {CLASSIFIERS[each] for each in classifiers if each in CLASSIFIERS}
    for expressions in (classified, *map(prose, () if PROPRIETARY in classifiers else texts)):
        if expressions:
            return join(expressions)
    return license_ref(re.sub(r"[-_.]+", "-", name).lower())


def _valid(expression: str) -> str | None:
    # SPDX lets anybody name a licence so; the library knows only names on its list.
    if re.fullmatch(r"LicenseRef-[A-Za-z0-9.-]+", expression.strip()):
        return expression.strip()
    try:
        return expression if not licensing().validate(expression).errors else None
    # The library's own `validate` asks some of its errors for what they lack (30.4.4).
    except (ExpressionError, AttributeError):
        return None


def wheel_license(path: Path) -> str:
    """The licence that a wheel states (binary distribution format: <name>-<version>.dist-info)."""
    with zipfile.ZipFile(path) as wheel:
        names = sorted(wheel.namelist())
        (metadata,) = [name for name in names if re.fullmatch(r"[^/]+\.dist-info/METADATA", name)]
        files = [
            name
            for name in names
            if re.fullmatch(r"[^/]+\.dist-info/(?:licenses/.*|(?:LICEN[CS]E|COPYING)[^/]*)", name)
        ]
        return pypi_licenses(
            parse_email(wheel.read(metadata))[0], (wheel.read(name).decode("utf-8", "replace") for name in files)
        )


def sdist_license(path: Path) -> str:
    """The licence that a source distribution states in its PKG-INFO, or in the licence files beside that."""
    metadata: RawMetadata | None = None
    texts = []
    with tarfile.open(path, "r|*") as archive:
        for member in archive:
            if re.fullmatch(r"[^/]+/PKG-INFO", member.name):
                metadata = parse_email(archive.extractfile(member).read())[0]  # type: ignore[union-attr]
            elif member.isreg() and re.fullmatch(r"[^/]+/(?:LICEN[CS]E|COPYING)[^/]*", member.name):
                texts.append(archive.extractfile(member).read().decode("utf-8", "replace"))  # type: ignore[union-attr]
    if metadata is None:
        raise pypi.PyPIError(
            f"{path}: expected PKG-INFO in the source archive, found none: choose another in"
            " locks/sources.packages.json"
        )
    return pypi_licenses(metadata, iter(texts))


def crate_license(path: Path) -> str:
    """The licence that a crate states in its Cargo.toml (The Cargo Book, "The Manifest Format"), or else in its licence
    files.

    In a manifest "/", which Cargo used to take, stands for OR.
    """
    texts = []
    with tarfile.open(path, "r|*") as archive:
        for member in archive:
            if re.fullmatch(r"[^/]+/Cargo\.toml", member.name):
                package = tomllib.loads(archive.extractfile(member).read().decode("utf-8"))["package"]  # type: ignore[union-attr]
            elif member.isreg() and re.fullmatch(r"[^/]+/(?:LICEN[CS]E|COPYING)[^/]*", member.name):
                texts.append(archive.extractfile(member).read().decode("utf-8", "replace"))  # type: ignore[union-attr]
    stated = re.sub(r"\s*/\s*", " OR ", package.get("license", ""))
    if stated and (expression := _valid(stated)):
        return join([expression])
    return join(set().union(*map(prose, texts)) or {license_ref(package["name"])})


def git_license(content: bytes, name: str) -> str:
    """The licence that a git repository states in the licence files at its root.

    Args:
        content: a tar of it.
        name: names the licence where the files do not: LicenseRef-<name>.
    """
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
        files = [
            member for member in archive if member.isreg() and re.fullmatch(r"(?:LICEN[CS]E|COPYING)[^/]*", member.name)
        ]
        texts = [archive.extractfile(member).read().decode("utf-8", "replace") for member in files]  # type: ignore[union-attr]
    return join(set().union(*map(prose, texts)) or {license_ref(name)})


# The lock --------------------------------------------------------------------------------------------------------


class Updater:
    """The licences of inputs, from their packages.

    Args:
        cache: where downloads are, as in Bazel's repository cache: content_addressable/sha256/<hash>/file.
        keep: whether they stay there.
    """

    def __init__(self, cache: Path, *, keep: bool) -> None:
        self._cache = cache
        self._keep = keep
        self._crates = ""  # where they are downloaded from, once asked
        self._asking = threading.Lock()

    def read(self, locked: Input) -> tuple[str, str]:
        """The package that states the licence, and its expression; empty if that is another package of the same suite."""
        print(f"reading {locked.ecosystem} {locked.key} {locked.version} …", file=sys.stderr)
        if locked.from_git:
            source = checkout.from_entry(locked.name, locked.entry)
            checkouts = checkout.folder_of_checkouts(lock_file.folder().parent)
            return locked.name, git_license(checkout.from_anywhere(source, checkouts), locked.name)
        path = self._fetch(locked)
        try:
            if locked.ecosystem == inputs.DEBIAN:
                owner, text = copyright_file(path, locked.name)
                return owner, debian_licenses(text, owner) if text else ""
            read = {inputs.CRATE: crate_license, inputs.PYPI: wheel_license, inputs.SOURCE: sdist_license}[
                locked.ecosystem
            ]
            return locked.name, read(path)
        finally:
            if not self._keep:
                path.unlink()

    def _fetch(self, locked: Input) -> Path:
        places = {sha256: self._cache / "content_addressable/sha256" / sha256 / "file" for sha256 in locked.sha256}
        for sha256, path in places.items():
            if path.exists() and download.file_sha256(path) == sha256:
                return path
        path.parent.mkdir(parents=True, exist_ok=True)
        if locked.ecosystem == inputs.DEBIAN:
            urls = [f"{mirror}/{locked.entry['path']}" for mirror in debian.mirror_urls(locked.entry["archive"])]
        elif locked.ecosystem == inputs.CRATE:
            with self._asking:
                self._crates = self._crates or registry.template(
                    os.environ.get("CARGO", "cargo"), locked.name, locked.version
                )
            urls = [registry.download_url(self._crates, locked.name, locked.version, sha256)]
        else:
            urls = [file["url"] for file in pypi.files(locked.name) if file["hashes"].get("sha256") == sha256]
            if not urls:
                raise pypi.PyPIError(
                    f"the index that pip is configured with has no file of '{locked.name}' with sha256 {sha256}. "
                    "Set PIP_INDEX_URL to one that has."
                )
        return download.fetch(urls, path, sha256)


def updated(
    locked: list[Input], old: Mapping[str, Mapping[str, Mapping[str, str]]], updater: Updater
) -> dict[str, Any]:
    """The lock's content: entries of the same version as they are, the others read from their packages.

    Raises:
        DebianError: a copyright file is a link into a package that the lock does not have.
    """
    lock: dict[str, dict[str, dict[str, str]]] = {section: {} for section in inputs.LICENSES_SECTION.values()}
    missing = []
    for each in locked:
        section = inputs.LICENSES_SECTION[each.ecosystem]
        entry = old.get(section, {}).get(each.key, {})
        if entry.get("version") == each.version:
            lock[section][each.key] = dict(entry)
        else:
            missing.append(each)
    links: dict[str, str] = {}
    # Two suites may have the same file; it is read once.
    files = {each.sha256: each for each in missing}
    # The library makes it at its first use, and a second thread would take it half made.
    licensing().get_advanced_tokenizer()
    with ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
        read = dict(zip(files, pool.map(updater.read, files.values())))
        for each in missing:
            owner, license = read[each.sha256]
            lock[inputs.LICENSES_SECTION[each.ecosystem]][each.key] = {"version": each.version, "license": license}
            if not license:
                links[each.key] = f"{each.suite}/{owner}"
    packages = lock[inputs.LICENSES_SECTION[inputs.DEBIAN]]
    for key in links:
        owner = key
        while owner in links:
            owner = links[owner]
        if owner not in packages:
            raise debian.DebianError(
                f"{key}: its copyright file is a link into {owner}, which locks/{inputs.DEBIAN_LOCK} does not have: "
                "add it to locks/debian.packages.json"
            )
        packages[key]["license"] = packages[owner]["license"]
    return {section: dict(sorted(entries.items())) for section, entries in lock.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 if the lock would change")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="where downloads are, and stay")
    options = parser.parse_args()
    # python-debian reports every wish of the format that a file does not meet.
    logging.getLogger("debian.copyright").setLevel(logging.ERROR)
    try:
        locked = inputs.pinned(inputs.in_folder(lock_file.folder()))
        old = lock_file.read_json(LOCK) if (lock_file.folder() / LOCK).exists() else {}
        with tempfile.TemporaryDirectory() as scratch:
            lock = updated(locked, old, Updater(options.cache or Path(scratch), keep=bool(options.cache)))
    except (checkout.SourceError, errors.UserError) as error:
        print(f"update_licenses: {error}", file=sys.stderr)
        return 1
    return lock_file.write(LOCK, lock_file.as_json(lock), check=options.check, command="//locks:update_licenses")


if __name__ == "__main__":
    sys.exit(main())
