"""Writes the page of a release (self-contained HTML) and the notes that its host shows (Markdown).

    python3 -m release.private.page --version VERSION --status stable-status.txt --wheel apache_tvm-….whl \\
        --image tvm_runtime=LAYOUT --inputs inputs.json --previous previous_inputs.json --gate gate.json \\
        --html index.html --notes notes.md

They say what is in the release, how to install and verify it, which tests it passed, and how its inputs differ from the
previous release's. A wheel or image that the gate's tests did not pass on is an error.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import json
import pathlib
import re
import sys
from collections.abc import Iterable
from typing import Any

from fetch.arguments import named_path
from fetch.locks import CRATE, DEBIAN, MODEL, PYPI, SOURCE, Input
from oci import image_facts, status
from oci.image_facts import ImageFacts, LayerContent
from oci.report import pages
from release.private import publish, stamp
from wheels.finished import processor_of

ECOSYSTEMS = {
    DEBIAN: "Debian packages",
    PYPI: "Python distributions",
    SOURCE: "Sources",
    CRATE: "Rust crates",
    MODEL: "Models",
}

# Debian's name → ours.
_PROCESSORS = {"amd64": "x86-64", "arm64": "arm64"}

_HTML = pathlib.Path(__file__).with_name("page.html.jinja")
_NOTES = pathlib.Path(__file__).with_name("notes.md.jinja")

# Rows that are visible at first, and the most that a host's release page can hold.
_SHOWN = 12
_NOTED = 100


class PageError(Exception):
    """The facts do not make a release page; the message is one line that names the file."""


@dataclasses.dataclass(frozen=True)
class Wheel:
    """A wheel of the release; `sha256` is hexadecimal."""

    name: str
    size: int
    sha256: str

    @property
    def python(self) -> str:
        """The version of the one CPython that it is for, such as "3.12"; empty if it is for all."""
        tag = re.search(r"-cp3(\d+)-", self.name)
        return f"3.{tag[1]}" if tag else ""

    @property
    def processor(self) -> str:
        """What it is for, as Debian calls it."""
        return processor_of(self.name.removesuffix(".whl"))


@dataclasses.dataclass(frozen=True)
class InputChange:
    """An input that differs from the previous release; `before` is None if it is new, `after` if it was removed."""

    before: Input | None
    after: Input | None

    @property
    def newest(self) -> Input:
        newest = self.after or self.before
        assert newest, "an input before or after"
        return newest

    @property
    def name(self) -> str:
        return self.newest.key

    @property
    def ecosystem(self) -> str:
        return self.newest.ecosystem

    @property
    def kind(self) -> str:
        return "added" if not self.before else "removed" if not self.after else "updated"

    @property
    def details(self) -> str:
        """The versions before and after, and other differences."""
        if not self.before or not self.after:
            return self.newest.version
        parts = []
        if self.before.version != self.after.version:
            parts.append(f"{self.before.version} → {self.after.version}")
        elif self.before.sha256 != self.after.sha256:
            parts.append(f"{self.after.version}, other files")
        if self.before.license != self.after.license:
            parts.append(f"licence {self.before.license} → {self.after.license}")
        return "; ".join(parts)


def read_inputs(path: pathlib.Path) -> tuple[str | None, list[Input]]:
    """The release that a file of inputs (inputs.py) belongs to, or None before the first one, and its inputs.

    Raises:
        PageError: inputs.py did not write the file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        release = content["release"]
        if release is not None and not publish.TAG.fullmatch(release):
            raise ValueError(f"the release {release!r:.100}")
        return release, [Input.from_json(entry) for entry in content["inputs"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PageError(f"{path}: expected inputs as fetch/locks.py writes them, found {error!r}") from error


def changes(before: list[Input], after: list[Input]) -> list[InputChange]:
    """The changes from the inputs `before` to those `after`: versions, files or licences."""

    def facts(one: Input) -> tuple:
        return one.version, one.sha256, one.license

    old, new = ({one.identity: one for one in inputs} for inputs in (before, after))
    pairs = [(old.get(identity), new.get(identity)) for identity in sorted(old.keys() | new.keys())]
    return [
        InputChange(one, other) for one, other in pairs if one is None or other is None or facts(one) != facts(other)
    ]


def licenses(inputs: list[Input]) -> list[tuple[str, int]]:
    """Licence expressions with the number of inputs that have them, most frequent first."""
    counts = collections.Counter(one.license or "not stated" for one in inputs)
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def pythons(wheels: Iterable[Wheel]) -> str:
    """The CPythons that wheels for one of them are for: "3.10 to 3.14", "3.11"; "3" if all wheels are for every one."""
    minors = sorted({int(wheel.python.removeprefix("3.")) for wheel in wheels if wheel.python})
    return " to ".join(f"3.{minor}" for minor in sorted({minors[0], minors[-1]})) if minors else "3"


def release_facts(
    version: str,
    commit: str,
    wheels: list[pathlib.Path],
    layouts: list[tuple[str, pathlib.Path]],
    gate: dict[str, Any],
    inputs: list[Input],
    previous: tuple[str | None, list[Input]],
    vulnerabilities: dict[str, Any],
) -> dict[str, Any]:
    """The values for both templates.

    Args:
        vulnerabilities: what vulnerabilities.py wrote.

    Raises:
        stamp.Untested: a wheel or image is not the one that the gate's tests passed on.
        image_facts.ImageError: an image cannot be read.
    """
    digests = {path: stamp.check(gate, path) for path in wheels}
    published = {name: stamp.check(gate, layout, name) for name, layout in layouts}
    known: dict[str, LayerContent] = {}
    images: list[ImageFacts] = [
        image_facts.read(name, image, known)
        for of, layout in layouts
        for name, image in image_facts.named(of, layout).items()
    ]
    first: dict[str, ImageFacts] = {}
    for image in images:
        first.setdefault(image.platform, image)
    differing = changes(previous[1], inputs)
    shown = [Wheel(path.name, path.stat().st_size, digests[path].removeprefix("sha256:")) for path in wheels]
    return {
        "version": version,
        "revision": commit,
        "wheels": sorted(shown, key=lambda one: one.name),
        "to_install": {
            title: names
            for processor, title in _PROCESSORS.items()
            if (names := sorted(one.name for one in shown if not one.python and one.processor == processor))
        },
        "pythons": pythons(shown),
        "published": published,
        "images": images,
        # What a machine with the first image of its platform pulls to get another one: the first one's name, and bytes.
        "pulls": {
            image.name: (first[image.platform].name, image_facts.compare(first[image.platform], image).pull)
            for image in images
            if image is not first[image.platform]
        },
        "tests": gate["tests"],
        "vulnerabilities": vulnerabilities,
        "inputs": inputs,
        "ecosystems": ECOSYSTEMS,
        "previous": previous[0],
        "changes": [(title, [one for one in differing if one.ecosystem == key]) for key, title in ECOSYSTEMS.items()],
        "licenses": licenses(inputs),
        "shown": _SHOWN,
        "noted": _NOTED,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", required=True, help="the release's version, without v")
    parser.add_argument("--status", type=pathlib.Path, help="Bazel's stable-status.txt, for a stamped build")
    parser.add_argument("--wheel", type=pathlib.Path, action="append", default=[], help="a wheel; repeated")
    parser.add_argument(
        "--image", type=named_path, action="append", default=[], metavar="NAME=LAYOUT", help="an OCI layout; repeated"
    )
    parser.add_argument(
        "--inputs", type=pathlib.Path, required=True, help="inputs of this build, as inputs.py writes them"
    )
    parser.add_argument("--previous", type=pathlib.Path, required=True, help="the previous release's inputs")
    parser.add_argument(
        "--vulnerabilities",
        type=pathlib.Path,
        required=True,
        help="known vulnerabilities, as vulnerabilities.py writes",
    )
    parser.add_argument(
        "--gate", type=pathlib.Path, required=True, help="the output of //release:gate, with what the tests passed on"
    )
    parser.add_argument("--html", type=pathlib.Path, required=True, help="the page to write")
    parser.add_argument("--notes", type=pathlib.Path, required=True, help="the notes to write, Markdown")
    options = parser.parse_args()
    try:
        facts = release_facts(
            version=options.version,
            commit=status.value(options.status, status.REVISION),
            wheels=[stamp.artifact_file(path) for path in options.wheel],
            layouts=options.image,
            gate=json.loads(options.gate.read_text(encoding="utf-8")),
            inputs=read_inputs(options.inputs)[1],
            previous=read_inputs(options.previous),
            vulnerabilities=json.loads(options.vulnerabilities.read_text(encoding="utf-8")),
        )
        options.html.write_text(pages.render(_HTML, **facts), encoding="utf-8")
        options.notes.write_text(pages.render(_NOTES, **facts), encoding="utf-8")
    except (PageError, status.StatusError, stamp.Untested, image_facts.ImageError, OSError, ValueError) as error:
        print(f"page: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
