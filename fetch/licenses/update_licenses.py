"""Updates locks/licenses.lock.json: the licence of every input in the other locks, as its own package states it.

    tools/bazel run //locks:update_licenses                     # write the lock
    tools/bazel run //locks:update_licenses -- --check          # only compare; exit status 1 if it would change
    tools/bazel run //locks:update_licenses -- --cache FOLDER   # reuse and keep downloads, as in Bazel's cache
    tools/bazel run //locks:update_licenses -- --texts FOLDER   # write texts that need a review to FOLDER

It fetches only new versions, by hash; git repositories come from the checkouts in MLC_SOURCES, otherwise from upstream.
FOLDER of --cache may be Bazel's repository cache (`tools/bazel info repository_cache`).

A licence is an SPDX 2.3 licence expression (annex D). For a Debian package it joins all licences that its copyright
file names. That file covers the whole source package, which holds more than the binary package. Names that SPDX does
not know become LicenseRef-debian-<name>.

No program reads prose: if a text does not name its licence, fetch/licenses/reviewed.json has the expression that a
person has determined from it. The entry contains the text's hash, so that a changed text needs a new review.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import io
import json
import logging
import os
import re
import sys
import tarfile
import tempfile
import threading
import zipfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, cast

import tomllib

sys.path.insert(0, str(Path(__file__).parents[2]))  # the workspace root, so that this also runs without Bazel

from debian import copyright as dep5  # python-debian
from license_expression import ExpressionError, Licensing, get_spdx_licensing
from packaging.metadata import RawMetadata, parse_email
from packaging.utils import canonicalize_name

from fetch import download, errors, lock_file
from fetch import locks as inputs
from fetch.arguments import user_path
from fetch.crates import registry
from fetch.debian import archive as debian
from fetch.debian.copyright import copyright_file
from fetch.git import checkout
from fetch.hashes import file_sha256
from fetch.locks import Input
from fetch.maven import repository as maven
from fetch.pypi import index as pypi

LOCK = inputs.LICENSES_LOCK
DOWNLOADS_AT_ONCE = 4

PUBLIC_DOMAIN = "LicenseRef-public-domain"

# Says nothing about which licence.
OSI_APPROVED = "License :: OSI Approved"

# The licence files of such a distribution are those of its components.
PROPRIETARY = "License :: Other/Proprietary License"

# Expressions that people have determined from texts: see `Reviewed`.
REVIEWED = Path(__file__).with_name("reviewed.json")

# Names in DEP-5 files (copyright-format 1.0, "License specification") and on PyPI that are neither SPDX identifiers nor
# names of GNU licences.
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
    # Plain "Autoconf" is ambiguous.
    "autoconf-data": "Autoconf-exception-generic{}",
    "bison": "Bison-exception-2.2",
    "bison-2.2": "Bison-exception-2.2",
    "libtool": "Libtool-exception",
    "linux-syscall-note": "Linux-syscall-note",
    "texinfo": "Texinfo-exception",
}

_GNU_NAME = re.compile(
    r"(?P<family>A?GPL|LGPL|GFDL)(?P<niv>-NIV)?(?:-?v?(?P<version>\d(?:\.\d)?))?(?P<later>\+)?(?P<niv2>-no-invariants?)?",
    re.I,
)
_FIRST_VERSION = {"GPL": "1.0", "LGPL": "2.0", "GFDL": "1.1", "AGPL": "1.0"}


# Names of licences -----------------------------------------------------------------------------------------------


@functools.cache
def licensing() -> Licensing:
    """SPDX's identifiers, operators and exceptions."""
    return get_spdx_licensing()


@functools.cache
def _identifiers() -> dict[str, str]:
    """SPDX's licence identifiers by their lower-case form, without ScanCode's own LicenseRef-… symbols."""
    known = licensing().known_symbols.items()
    return {
        name.lower(): name for name, symbol in known if not symbol.is_exception and not name.startswith("LicenseRef-")
    }


def license_ref(name: str) -> str:
    """An identifier for a licence that SPDX does not know (SPDX 2.3, 10.1: letters, digits, "." and "-")."""
    return "LicenseRef-" + re.sub(r"[^A-Za-z0-9.]+", "-", re.sub(r"\+(?=[ -]|$)", "-or-later", name)).strip("-.")


def gnu(family: str, version: str | None, *, later: bool, no_invariants: bool = False) -> str:
    """SPDX's identifier of a GNU licence; without a version, any version applies."""
    number = f"{version}.0" if version and "." not in version else version or _FIRST_VERSION[family]
    return (
        f"{family}-{number}{'-no-invariants' if no_invariants else ''}-{'or-later' if later or not version else 'only'}"
    )


def known_name(name: str) -> str | None:
    """The SPDX expression for a licence's name, or None if SPDX has none."""
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


# Reviewed texts --------------------------------------------------------------------------------------------------


class UnreviewedError(errors.UserError):
    """Nobody has read this text yet."""

    def __init__(self, of: str, text: str, sha256: str, before: str | None) -> None:
        was = f", whose text was {before} before it changed" if before else ""
        super().__init__(f"{of}{was}: sha256 {sha256}")
        self.file = f"{of}.txt".replace(" ", "-")
        self.text = text


class Unreviewed(errors.UserError):
    """Texts that need a review: file name for the text → what is known about it."""

    def __init__(self, texts: Mapping[str, UnreviewedError]) -> None:
        self.texts = texts
        super().__init__(
            "expected the licences of these texts in fetch/licenses/reviewed.json, found none for their sha256:\n  "
            + "\n  ".join(sorted(map(str, texts.values())))
            + "\nRead them (--texts FOLDER writes them there), and add their licences to that file."
        )


class Reviewed:
    """Licence expressions that people have determined from texts: the content of fetch/licenses/reviewed.json.

    {"reviewed": [{"of": ["debian libc6", …], "sha256": …, "license": …}, …]}: the packages that have the text,
    "<ecosystem> <name>"; the sha256 of the text, lower-case hexadecimal; the SPDX expression.
    """

    def __init__(self, content: Mapping[str, Any]) -> None:
        self._by_hash = {entry["sha256"]: entry["license"] for entry in content["reviewed"]}
        self._by_name = {of: entry["license"] for entry in content["reviewed"] for of in entry["of"]}

    @classmethod
    def read(cls, path: Path) -> Reviewed:
        return cls(json.loads(path.read_text(encoding="utf-8")))

    def license(self, of: str, texts: Iterable[str]) -> str:
        """The expression for all licence files of a package.

        Args:
            of: "<ecosystem> <name>".
            texts: the files' content, in the order of their names.

        Raises:
            UnreviewedError: nobody has reviewed them, or they have changed since.
        """
        text = "\n".join(texts)
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        if sha256 not in self._by_hash:
            raise UnreviewedError(of, text, sha256, self._by_name.get(of))
        return self._by_hash[sha256]


# What packages state ---------------------------------------------------------------------------------------------


def debian_licenses(text: str, package: str, reviewed: Reviewed) -> str:
    """The SPDX expression of a Debian copyright file, from its License fields (DEP-5), otherwise from its review.

    Uses python-debian, because debian-inspector mistakes the first line of a field without a name for the name.

    Raises:
        UnreviewedError: it is prose, or a License field has no name, and nobody has reviewed it.
    """
    try:
        document = dep5.Copyright(text.splitlines(keepends=True), strict=False)
        fields = [document.header.license, *(paragraph.license for paragraph in document.all_files_paragraphs())]
        names = [cast(dep5.License, field).synopsis for field in fields if field]
    except (dep5.NotMachineReadableError, dep5.MachineReadableFormatError):
        names = []
    if not names or not all(names):
        return join([reviewed.license(f"debian {package}", [text])])
    return join(map(debian_expression, names))


def pypi_licenses(metadata: RawMetadata, texts: Iterable[str], reviewed: Reviewed) -> str:
    """The SPDX expression of a distribution (core metadata), from the first of these that states it:
    License-Expression, License, classifiers if each names one licence, the review of its licence files.

    Args:
        metadata: content of METADATA or PKG-INFO.
        texts: its licence files, in the order of their names; used only if the fields do not name the licence.

    Raises:
        UnreviewedError: nobody has reviewed the files.
    """
    name = metadata["name"]
    for stated in (metadata.get("license_expression"), metadata.get("license")):
        if stated and (known := known_name(stated.strip()) or _valid(stated)):
            return join([known])
    classifiers = metadata.get("classifiers", [])
    # One that does not say which licence it means, such as "BSD License", leaves the others incomplete.
    licenses = [each for each in classifiers if each.startswith("License ::") and each != OSI_APPROVED]
    if licenses and all(each in CLASSIFIERS for each in licenses):
        return join(CLASSIFIERS[each] for each in licenses)
    name = canonicalize_name(name)
    found = [] if PROPRIETARY in classifiers else list(texts)
    return join([reviewed.license(f"pypi {name}", found)]) if found else license_ref(name)


def _valid(expression: str) -> str | None:
    # SPDX allows any such name, but the library knows only those on its list.
    if re.fullmatch(r"LicenseRef-[A-Za-z0-9.-]+", expression.strip()):
        return expression.strip()
    try:
        return expression if not licensing().validate(expression).errors else None
    # Since 30.4.4 the library's `validate` itself raises AttributeError on some errors.
    except (ExpressionError, AttributeError):
        return None


def wheel_license(path: Path, reviewed: Reviewed) -> str:
    """The licence that a wheel states (binary distribution format: <name>-<version>.dist-info)."""
    with zipfile.ZipFile(path) as wheel:
        names = sorted(wheel.namelist())
        (metadata,) = [name for name in names if re.fullmatch(r"[^/]+\.dist-info/METADATA", name)]
        files = [
            name
            for name in names
            if re.fullmatch(r"[^/]+\.dist-info/(?:licenses/.*|(?:LICEN[CS]E|COPYING)[^/]*)", name)
        ]
        texts = (wheel.read(name).decode("utf-8", "replace") for name in files)
        return pypi_licenses(parse_email(wheel.read(metadata))[0], texts, reviewed)


def model_license(stated: str) -> str:
    """The SPDX expression of what a model's card, or locks/models.packages.json, states.

    >>> model_license("apache-2.0"), model_license("llama3.2")
    ('Apache-2.0', 'LicenseRef-model-llama3.2')
    """
    return join([known_name(stated) or _valid(stated) or license_ref(f"model-{stated}")])


def _texts(archive: tarfile.TarFile, folder: str) -> tuple[dict[str, bytes], list[str]]:
    """The files directly in a folder of a tar: name → content of metadata files, and the texts of licence files."""
    stating: dict[str, bytes] = {}
    texts: dict[str, str] = {}
    for member in archive:
        name = re.fullmatch(folder + r"([^/]+)", member.name)
        if not name or not member.isreg():
            continue
        if name[1] in ("PKG-INFO", "Cargo.toml"):
            stating[name[1]] = cast(IO[bytes], archive.extractfile(member)).read()
        elif re.match(r"LICEN[CS]E|COPYING", name[1]):
            texts[name[1]] = cast(IO[bytes], archive.extractfile(member)).read().decode("utf-8", "replace")
    return stating, [text for _, text in sorted(texts.items())]


def sdist_license(path: Path, reviewed: Reviewed) -> str:
    """The licence that a source distribution states in its PKG-INFO or in the licence files next to it."""
    with tarfile.open(path, "r|*") as archive:
        stating, texts = _texts(archive, r"[^/]+/")
    if "PKG-INFO" not in stating:
        raise pypi.PyPIError(
            f"{path}: expected PKG-INFO in the source archive, found none: choose another in"
            " locks/sources.packages.json"
        )
    return pypi_licenses(parse_email(stating["PKG-INFO"])[0], texts, reviewed)


def jar_license(path: Path, name: str, reviewed: Reviewed) -> str:
    """The licence that people have determined from the licence file of what a jar packages; CPython installs its own.

    Args:
        name: the source's name.
    """
    with zipfile.ZipFile(path) as archive:
        texts = [
            archive.read(entry).decode("utf-8", "replace")
            for entry in sorted(archive.namelist())
            if re.search(r"/lib/python[0-9.]+/LICENSE\.txt$", entry)
        ]
    return join([reviewed.license(f"source {name}", texts)]) if texts else license_ref(name)


def crate_license(path: Path, reviewed: Reviewed) -> str:
    """The licence that a crate states in its Cargo.toml (The Cargo Book, "The Manifest Format") or its licence files.

    Old manifests have "/" for OR.
    """
    with tarfile.open(path, "r|*") as archive:
        stating, texts = _texts(archive, r"[^/]+/")
    package = tomllib.loads(stating["Cargo.toml"].decode("utf-8"))["package"]
    stated = re.sub(r"\s*/\s*", " OR ", package.get("license", ""))
    if stated and (expression := _valid(stated)):
        return join([expression])
    return join([reviewed.license(f"crate {package['name']}", texts)]) if texts else license_ref(package["name"])


def git_license(content: bytes, name: str, reviewed: Reviewed) -> str:
    """The licence that people have determined from the licence files at the root of a git repository.

    Args:
        content: a tar of the repository.
        name: the source's name; without licence files the licence is LicenseRef-<name>.
    """
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
        _, texts = _texts(archive, "")
    return join([reviewed.license(f"source {name}", texts)]) if texts else license_ref(name)


# The lock --------------------------------------------------------------------------------------------------------


class Updater:
    """The licences of inputs, from their packages.

    Args:
        cache: folder of downloads, laid out like Bazel's repository cache: content_addressable/sha256/<hash>/file.
        reviewed: expressions that people have determined from texts.
        keep: whether to keep downloads in the cache.
    """

    def __init__(self, cache: Path, reviewed: Reviewed, *, keep: bool) -> None:
        self._cache = cache
        self._reviewed = reviewed
        self._keep = keep
        self._crates: tuple[str, str] | None = None  # what registry.template returned
        self._asking = threading.Lock()

    def read(self, locked: Input) -> tuple[str, str]:
        """The package that states the licence, and its expression; empty if another package of the suite states it."""
        print(f"reading {locked.ecosystem} {locked.key} {locked.version} …", file=sys.stderr)
        if locked.from_git:
            source = checkout.from_entry(locked.name, locked.entry)
            checkouts = checkout.folder_of_checkouts(lock_file.folder().parent)
            return locked.name, git_license(checkout.from_anywhere(source, checkouts), locked.name, self._reviewed)
        if "license" in locked.entry:
            return locked.name, model_license(locked.entry["license"])
        path = self._fetch(locked)
        try:
            if locked.ecosystem == inputs.DEBIAN:
                owner, text = copyright_file(path, locked.package)
                return owner, debian_licenses(text, owner, self._reviewed) if text else ""
            read = {
                inputs.CRATE: crate_license,
                inputs.MODEL: wheel_license,
                inputs.PYPI: wheel_license,
                inputs.SOURCE: sdist_license,
            }[locked.ecosystem]
            if locked.from_maven:
                return locked.name, jar_license(path, locked.name, self._reviewed)
            return locked.name, read(path, self._reviewed)
        finally:
            if not self._keep:
                path.unlink()

    def _fetch(self, locked: Input) -> Path:
        places = {sha256: self._cache / "content_addressable/sha256" / sha256 / "file" for sha256 in locked.sha256}
        for sha256, path in places.items():
            if path.exists() and file_sha256(path) == sha256:
                return path
        path.parent.mkdir(parents=True, exist_ok=True)
        size, after = None, ""
        if locked.ecosystem == inputs.DEBIAN:
            size = locked.entry["size"]
            urls = [f"{mirror}/{locked.entry['path']}" for mirror in debian.mirror_urls(locked.entry["archive"])]
        elif locked.ecosystem == inputs.CRATE:
            with self._asking:
                self._crates = self._crates or registry.template(
                    os.environ.get("CARGO", "cargo"), locked.name, locked.version
                )
            template, after = self._crates
            urls = [registry.download_url(template, locked.name, locked.version, sha256)]
        elif locked.from_maven:
            size = locked.entry["size"]
            urls = [f"{maven.base_url(Path(os.environ['MAVEN']))}/{locked.entry['path']}"]
        else:
            after = pypi.page_url(locked.distribution)
            listed = pypi.files(locked.distribution)
            urls = [file["url"] for file in listed if file["hashes"].get("sha256") == sha256]
            if not urls:
                raise pypi.PyPIError(
                    f"the index that pip is configured with has no file of '{locked.distribution}' with sha256"
                    f" {sha256}. Set PIP_INDEX_URL to one that has."
                )
        return download.fetch(urls, path, sha256, size, after=after)


def updated(
    locked: list[Input], old: Mapping[str, Mapping[str, Mapping[str, str]]], updater: Updater
) -> dict[str, Any]:
    """The lock's content: keeps entries whose version is unchanged and reads the others from their packages.

    Raises:
        DebianError: a copyright file is a link into a package that the lock does not have.
        Unreviewed: nobody has reviewed some of the texts.
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
    links: dict[str, list[str]] = {}
    # Two suites may have the same file; it is read once.
    files = {each.sha256: each for each in missing}
    # The library builds it on first use; a second thread could see it half built.
    licensing().get_advanced_tokenizer()
    unreviewed: dict[str, UnreviewedError] = {}
    read = {}
    with ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
        for sha256, reading in [(sha256, pool.submit(updater.read, each)) for sha256, each in files.items()]:
            try:
                read[sha256] = reading.result()
            except UnreviewedError as error:
                unreviewed[error.file] = error
    if unreviewed:
        raise Unreviewed(unreviewed)
    for each in missing:
        owner, license = read[each.sha256]
        lock[inputs.LICENSES_SECTION[each.ecosystem]][each.key] = {"version": each.version, "license": license}
        if not license:
            # Of the same architecture, or of none.
            links[each.key] = [f"{each.suite}/{owner}{each.name.removeprefix(each.package)}", f"{each.suite}/{owner}"]
    packages = lock[inputs.LICENSES_SECTION[inputs.DEBIAN]]
    for key in links:
        owner = key
        while owner in links:
            owner = next((each for each in links[owner] if each in packages), links[owner][-1])
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
    parser.add_argument("--cache", type=user_path, metavar="FOLDER", help="reuse and keep downloads there")
    parser.add_argument("--texts", type=user_path, metavar="FOLDER", help="write texts that need a review there")
    options = parser.parse_args()
    # python-debian logs every recommendation that a file ignores.
    logging.getLogger("debian.copyright").setLevel(logging.ERROR)
    try:
        pinned = inputs.pinned(inputs.in_folder(lock_file.folder()))
        locked = [each for each in pinned if each.key == each.license_key]
        old = lock_file.read_json(LOCK) if (lock_file.folder() / LOCK).exists() else {}
        with tempfile.TemporaryDirectory() as scratch:
            lock = updated(
                locked, old, Updater(options.cache or Path(scratch), Reviewed.read(REVIEWED), keep=bool(options.cache))
            )
    except (checkout.SourceError, errors.UserError) as error:
        print(f"update_licenses: {error}", file=sys.stderr)
        if isinstance(error, Unreviewed) and options.texts:
            options.texts.mkdir(parents=True, exist_ok=True)
            for name, unreviewed in error.texts.items():
                (options.texts / name).write_text(unreviewed.text, encoding="utf-8")
        return 1
    return lock_file.write(LOCK, lock_file.as_json(lock), check=options.check, command="//locks:update_licenses")


if __name__ == "__main__":
    lock_file.run(main)
