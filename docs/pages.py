"""Links and anchors of Markdown pages, as GitHub renders them."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator

_LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\[\]]*\])*\]\(([^()\s]*)\)")
_FENCE = re.compile(r"^ {0,3}(```+|~~~+)")
_CODE_SPAN = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)")


@dataclasses.dataclass(frozen=True)
class Link:
    """An inline link or image: where it is in the text, and what it names."""

    target: str
    line: int
    start: int
    end: int

    @property
    def path(self) -> str:
        return self.target.partition("#")[0]

    @property
    def anchor(self) -> str:
        return self.target.partition("#")[2]

    @property
    def is_external(self) -> bool:
        return bool(re.match(r"[a-z][a-z0-9+.-]*:", self.target))


def without_code(text: str) -> str:
    """The text with code replaced by blanks, so that every character keeps its position.

    Code is what stands in fences, in backticks, or is indented by four columns.
    """
    lines = []
    fence = ""
    for line in text.splitlines(keepends=True):
        blank = re.sub(r"[^\n]", " ", line)
        opening = _FENCE.match(line)
        if fence:
            if opening and opening[1].startswith(fence):
                fence = ""
            lines.append(blank)
        elif opening:
            fence = opening[1]
            lines.append(blank)
        elif line.startswith(("    ", "\t")):
            lines.append(blank)
        else:
            lines.append(_CODE_SPAN.sub(lambda span: " " * len(span[0]), line))
    return "".join(lines)


def links(text: str) -> Iterator[Link]:
    """All inline links and images of a page that are not code."""
    masked = without_code(text)
    for found in _LINK.finditer(masked):
        yield Link(found[1], masked.count("\n", 0, found.start(1)) + 1, found.start(), found.end())


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading: lower case, without punctuation, with a hyphen for each space."""
    words = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", words.strip().lower()).replace(" ", "-")


def anchors(text: str) -> set[str]:
    """All anchors of a page; the second heading with one name gets the suffix -1, and so on."""
    found: set[str] = set()
    masked = without_code(text).splitlines()
    for line, code_blanked in zip(text.splitlines(), masked, strict=True):
        heading = re.match(r"#{1,6} +(.*?)(?: +#+)?$", line)
        if not heading or not code_blanked.startswith("#"):
            continue
        name = unique = slug(heading[1])
        number = 0
        while unique in found:
            number += 1
            unique = f"{name}-{number}"
        found.add(unique)
    return found


def resolve(page: str, link: Link) -> str:
    """The path, relative to the repository's root, that a relative link on a page names."""
    return os.path.normpath(os.path.join(os.path.dirname(page), link.path)) if link.path else page
