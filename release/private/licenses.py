"""Writes the page of licences of a release: every component that ships, where it ships, its licence, and the texts.

    python3 -m release.private.licenses --locks FILE... --version VERSION --wheel FILE... --made-of FILE... \\
        --image NAME=LAYOUT... --html licenses.html

The texts are read from the images' layers and the wheels, as they ship. A component without a text is an error, so an
image or a wheel that lacks what its parts' licences require cannot be released.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import posixpath
import re
import sys
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from packaging.metadata import parse_email
from packaging.utils import canonicalize_name

from fetch import locks as inputs
from fetch.arguments import named_path
from fetch.locks import Input, Made
from oci.layout import Image, named_images
from oci.report import pages
from release.private import sbom, stamp
from release.private.sbom import Wheel

_HTML = Path(__file__).with_name("licenses.html.jinja")

# PyPI wheels that contain no text: the image has their licence's text in /usr/share/common-licenses.
WITHOUT_TEXT = ("sentencepiece", "tokenizers")

# Crates without a text, and why none is needed: Cargo.lock lists them for other systems; they are not compiled here.
NOT_COMPILED = {
    "r-efi": "of UEFI only, not compiled on Linux",
    "wasip2": "of WebAssembly only, not compiled on Linux",
}

LINKED = "THIRD_PARTY_LICENSES.txt"
_LINE = "-" * 100
_BLOCK = re.compile(rf"^{_LINE}\n(.+)\n{_LINE}\n", re.MULTILINE)

_NAMED = r"(?:UN)?(?:LICEN[CS]E|COPYING|COPYRIGHT|NOTICE|AUTHORS)[^/]*"
_IN_DISTRIBUTION = re.compile(rf"(?P<folder>(?:.*/)?[^/]+\.dist-info)/(?:(?:licenses/.+)|(?:{_NAMED}))", re.IGNORECASE)
_METADATA = re.compile(r"(?P<folder>(?:.*/)?[^/]+\.dist-info)/METADATA")
_DOC = re.compile(r"usr/share/doc/(?P<package>[^/]+)(?P<file>/copyright)?")
_COMMON = re.compile(r"usr/share/common-licenses/(?P<name>[^/]+)")
# A model's folder (`mlc_model_oci`): it has a configuration and, as every model that is published, a licence.
_MODEL = re.compile(r"models/(?P<name>[^/]+)/(?:mlc-chat-config\.json|(?P<license>LICENSE))")
_PLACES = re.compile(r"usr/share/(?:doc|common-licenses)/.+|.*\.dist-info/.+", re.IGNORECASE)


class LicensesError(Exception):
    """Something ships without the text of its licence; the message is one line that names it and the fix."""


@dataclasses.dataclass(frozen=True)
class Text:
    """A licence's text, or a notice, as it ships."""

    content: str

    @property
    def key(self) -> str:
        """The anchor for links to it; texts with the same words have the same key."""
        return "text-" + hashlib.sha256(" ".join(self.content.split()).encode()).hexdigest()[:12]


@dataclasses.dataclass(frozen=True)
class Row:
    """A component that ships.

    Args:
        place: the image or wheel that contains it.
        texts: at least one, unless `note` says why there is none.
    """

    name: str
    version: str
    license: str
    place: str
    texts: tuple[Text, ...]
    note: str = ""


@dataclasses.dataclass
class Texts:
    """The texts in one image or wheel.

    Args:
        debian: package → text of its copyright file.
        distributions: normalized name → file below .dist-info → text.
        common: name in /usr/share/common-licenses → text.
    """

    debian: dict[str, str] = dataclasses.field(default_factory=dict)
    distributions: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)
    common: dict[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def of_image(cls, image: Image) -> Texts:
        found = cls()
        links: dict[str, str] = {}
        files: dict[str, dict[str, str]] = {}
        names: dict[str, str] = {}
        for number in range(len(image.layer_digests)):
            for path, entry, data in image.matching(number, _PLACES):
                content = data.decode("utf-8", "replace")
                if match := _DOC.fullmatch(path):
                    if entry.issym():
                        links[match["package"]] = posixpath.normpath(
                            posixpath.join(posixpath.dirname(path), entry.linkname)
                        ).split("/")[3]
                    elif match["file"] and entry.isreg():
                        found.debian[match["package"]] = content
                elif entry.isreg() and (match := _COMMON.fullmatch(path)):
                    found.common[match["name"]] = content
                elif entry.isreg() and (match := _METADATA.fullmatch(path)):
                    names[match["folder"]] = canonicalize_name(parse_email(content)[0]["name"])
                elif entry.isreg() and (match := _IN_DISTRIBUTION.fullmatch(path)):
                    files.setdefault(match["folder"], {})[path[len(match["folder"]) + 1 :]] = content
        for package, target in links.items():
            # A package may share the documentation of another package from the same source (Debian policy 12.5).
            seen = {package}
            while target in links and target not in seen:
                seen.add(target)
                target = links[target]
            if target in found.debian:
                found.debian.setdefault(package, found.debian[target])
        found.distributions = {name: files.get(folder, {}) for folder, name in names.items()}
        return found

    @classmethod
    def of_wheel(cls, path: Path) -> Texts:
        with zipfile.ZipFile(path) as archive:
            files = {
                name[len(match["folder"]) + 1 :]: archive.read(name).decode("utf-8", "replace")
                for name in archive.namelist()
                if (match := _IN_DISTRIBUTION.fullmatch(name)) and not name.endswith("/")
            }
            (metadata,) = [name for name in archive.namelist() if _METADATA.fullmatch(name)]
            name = canonicalize_name(parse_email(archive.read(metadata))[0]["name"])
        return cls(distributions={name: files})

    def of_distribution(self, name: str) -> list[str]:
        """A distribution's own texts, without those of what is linked into it."""
        return [
            text
            for file, text in sorted(self.distributions.get(name, {}).items())
            if posixpath.basename(file) != LINKED and text.strip()
        ]

    def linked(self, name: str) -> dict[str, list[str]]:
        """The parts linked into one of our wheels, by their names in its text of licences."""
        parts: dict[str, list[str]] = {}
        for file, text in self.distributions.get(name, {}).items():
            if posixpath.basename(file) == LINKED:
                pieces = _BLOCK.split(text)[1:]
                for heading, content in zip(pieces[::2], pieces[1::2]):
                    for part in heading.split(", "):
                        parts.setdefault(part, []).append(content.strip())
        return parts


def _rows_of_wheel(wheel: Wheel, place: str, texts: Texts, locked: list[Input]) -> list[Row]:
    """The rows of one of our wheels: itself, the sources of its libraries, and other parts linked in."""
    own = tuple(map(Text, texts.of_distribution(wheel.name)))
    sources = wheel.made.sources(locked)
    license = next((each.license for each in sources if (each.ecosystem, each.name) == wheel.made.licensed_as), "")
    rows = [Row(wheel.name, wheel.version, license, place, own)]
    linked = texts.linked(wheel.name)
    named = set()
    for each in sources:
        if (each.ecosystem, each.name) in wheel.made.of_the_project:
            rows.append(Row(each.package, each.version, each.license, place, own, f"source of {wheel.name}"))
            continue
        wanted = f"{each.name}-{each.version}" if each.ecosystem == inputs.CRATE else each.package
        parts = [part for part in linked if part == wanted or part.endswith(f"({wanted})")]
        named.update(parts)
        found = tuple(Text(text) for part in parts for text in linked[part])
        note = NOT_COMPILED.get(each.name, "") if each.ecosystem == inputs.CRATE else ""
        rows.append(Row(each.package, each.version, each.license, place, found, note or f"linked into {wheel.name}"))
    for part in sorted(linked.keys() - named):
        rows.append(Row(part, "", "", place, tuple(map(Text, linked[part])), f"linked into {wheel.name}"))
    return rows


def rows_of_image(name: str, image: Image, locked: list[Input], wheels: Iterable[Wheel]) -> list[Row]:
    """A row for each component of an image's bill of materials, with the image's texts.

    Raises:
        sbom.SbomError: the image contains a package that is in neither the locks nor the wheels.
    """
    texts = Texts.of_image(image)
    place = f"image {name}"
    rows = []
    for each in sbom.contents(name, image, locked, wheels):
        if isinstance(each, Wheel):
            rows += _rows_of_wheel(each, place, texts, locked)
        elif each.ecosystem == inputs.DEBIAN:
            found = [texts.debian[each.package]] if each.package in texts.debian else []
            rows.append(Row(each.package, each.version, each.license, place, tuple(map(Text, found))))
        else:
            found, note = texts.of_distribution(each.package), ""
            if not found and each.package in WITHOUT_TEXT and each.license in texts.common:
                found, note = [texts.common[each.license]], "contains no text: the licence's own"
            rows.append(Row(each.package, each.version, each.license, place, tuple(map(Text, found)), note))
    return rows + _rows_of_models(place, image)


def _rows_of_models(place: str, image: Image) -> list[Row]:
    """A row for each model in an image. The image's label states the licence: a model names none itself."""
    models: dict[str, list[Text]] = {}
    for number in range(len(image.layer_digests)):
        for path, entry, data in image.matching(number, _MODEL):
            match = _MODEL.fullmatch(path)
            if match and entry.isreg():
                texts = models.setdefault(match["name"], [])
                texts += [Text(data.decode("utf-8", "replace"))] if match["license"] else []
    stated = image.labels.get("org.opencontainers.image.licenses", "")
    return [Row(name, "", stated, place, tuple(texts), "a model") for name, texts in sorted(models.items())]


def rows_of_wheel(path: Path, locked: list[Input], made: Mapping[tuple[str, str, str], Made]) -> list[Row]:
    """A row for each component of a wheel of this build, with the wheel's texts.

    Args:
        path: the wheel, or a folder with nothing else in it.
        locked: all inputs.
        made: distribution, ABI and architecture → inputs of that wheel.
    """
    wheel = Wheel.read(path, made)
    place = " ".join(filter(None, ("wheel", wheel.name, wheel.made.abi, *wheel.variant)))
    return _rows_of_wheel(wheel, place, Texts.of_wheel(stamp.artifact_file(path)), locked)


def missing(rows: Iterable[Row]) -> list[Row]:
    """Rows of components that ship without a text, except crates that are not compiled."""
    return [row for row in rows if not row.texts and row.name not in NOT_COMPILED]


def check(rows: Iterable[Row]) -> None:
    """Raises LicensesError if something ships without a text."""
    if lacking := missing(rows):
        names = ", ".join(f"{row.name} {row.version} in {row.place}" for row in lacking[:5])
        raise LicensesError(
            "expected a licence text for everything that ships, found none for"
            f" {names}{' and others' if len(lacking) > 5 else ''}: keep its copyright file or .dist-info/licenses, or"
            " name it in `linked` of its wheel (wheels/<wheel>/BUILD.bazel) or `license_file` of its `mlc_model_oci`"
        )


def merged(rows: Iterable[Row]) -> list[tuple[Row, list[str]]]:
    """Each component once, with all places that contain it, sorted by name."""
    together: dict[tuple[str, str, str], tuple[Row, list[str]]] = {}
    for row in rows:
        known, places = together.setdefault((row.name, row.version, row.license), (row, []))
        # The first of copies that differ only in line ends and indentation.
        texts = {text.key: text for text in reversed((*known.texts, *row.texts))}
        together[row.name, row.version, row.license] = (
            dataclasses.replace(known, texts=tuple(reversed(texts.values()))),
            sorted({*places, row.place}),
        )
    return [together[key] for key in sorted(together, key=lambda key: (key[0].lower(), key))]


def page(version: str, rows: list[Row]) -> str:
    """The page, HTML."""
    components = merged(rows)
    texts: dict[str, tuple[Text, list[str]]] = {}
    for row, _ in components:
        for text in row.texts:
            texts.setdefault(text.key, (text, []))[1].append(f"{row.name} {row.version}".strip())
    return pages.render(_HTML, version=version, components=components, texts=texts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    inputs.add_locks_argument(parser)
    inputs.add_made_of_arguments(parser)
    parser.add_argument("--version", required=True, help="the release's version, without v")
    parser.add_argument("--wheel", type=Path, action="append", default=[], help="a wheel of the build; repeated")
    parser.add_argument(
        "--image", type=named_path, action="append", default=[], metavar="NAME=LAYOUT", help="an OCI layout; repeated"
    )
    parser.add_argument("--html", type=Path, required=True, help="the page to write")
    arguments = parser.parse_args()
    try:
        locked, made = inputs.load_available(arguments), inputs.made_of(arguments)
        wheels = [Wheel.read(path, made) for path in arguments.wheel]
        images: Mapping[str, Image] = {
            name: image for of, layout in arguments.image for name, image in named_images(of, layout).items()
        }
        rows = [row for name, image in images.items() for row in rows_of_image(name, image, locked, wheels)]
        rows += [row for path in arguments.wheel for row in rows_of_wheel(path, locked, made)]
        check(rows)
    except (inputs.InputsError, sbom.SbomError, LicensesError, OSError, ValueError) as error:
        print(f"licenses: {error}", file=sys.stderr)
        return 1
    arguments.html.write_text(page(arguments.version, rows), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
