"""The documentation site is complete, its links work, and it takes nothing from another host."""

from __future__ import annotations

import html.parser
import os
import re
import urllib.parse
from pathlib import Path

import pytest

SITE = Path(os.environ["SITE"])
# What a browser loads by itself, by element; links that one has to click may lead anywhere.
_LOADED = {"img": "src", "script": "src", "link": "href", "iframe": "src", "source": "src"}


class Page(html.parser.HTMLParser):
    """What a page links to, what it loads, and its anchors."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.anchors |= {attributes[name] for name in ("id", "name") if name in attributes}
        if tag == "a" and "href" in attributes:
            self.links.append(attributes["href"])
        if tag in _LOADED and _LOADED[tag] in attributes and attributes.get("rel") != "canonical":
            self.loads.append(attributes[_LOADED[tag]])


# 404.html is for web servers, whose root it names.
PAGES = {
    path.relative_to(SITE).as_posix(): Page(path) for path in sorted(SITE.rglob("*.html")) if path.name != "404.html"
}


def test_every_part_is_there() -> None:
    assert {
        "index.html",
        "users/index.html",
        "operators/index.html",
        "contributors/index.html",
        "reference/index.html",
        "reference/models.html",
        "reference/wheels.html",
        "rooms/contributing.html",
        "rooms/release.html",
    } <= set(PAGES)
    assert (SITE / "contributors/floors.svg").is_file()
    assert "floors.svg" in PAGES["contributors/index.html"].text


@pytest.mark.parametrize(
    "name", ["mlc_model", "relax_library", "pytest_test", "cuda_library", "tree_layer", "test_gate"]
)
def test_the_reference_has_the_public_rules(name: str) -> None:
    assert any(f'<h2 id="{name}">' in page.text for path, page in PAGES.items() if path.startswith("reference/"))


@pytest.mark.parametrize("path", PAGES)
def test_links_and_anchors_resolve(path: str) -> None:
    broken = []
    for link in [*PAGES[path].links, *PAGES[path].loads]:
        parts = urllib.parse.urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        target = (SITE / path).parent / urllib.parse.unquote(parts.path) if parts.path else SITE / path
        if target.is_dir():
            target /= "index.html"
        if not target.is_file():
            broken.append(f"{link}: no file")
        elif target.suffix == ".html" and parts.fragment and not parts.fragment.startswith("__"):
            anchors = PAGES[Path(os.path.normpath(target)).relative_to(SITE).as_posix()].anchors
            if urllib.parse.unquote(parts.fragment) not in anchors:
                broken.append(f"{link}: no such anchor")
    assert not broken, f"{path}: {broken}"


@pytest.mark.parametrize("path", PAGES)
def test_nothing_is_loaded_from_another_host(path: str) -> None:
    assert not [target for target in PAGES[path].loads if urllib.parse.urlsplit(target).netloc]


def test_style_sheets_load_nothing_from_another_host() -> None:
    sheets = list(SITE.rglob("*.css"))
    assert sheets
    for sheet in sheets:
        assert not re.findall(r"(?:@import\s+|url\()[\"']?(?:https?:)?//[^)\"']*", sheet.read_text(encoding="utf-8")), (
            sheet
        )


def test_no_page_has_a_diagram_that_scripts_draw() -> None:
    """Material for MkDocs loads the program that draws Mermaid diagrams from another host."""
    assert not [path for path, page in PAGES.items() if re.search(r'class="[^"]*\bmermaid\b', page.text)]


def test_times_are_fixed() -> None:
    """The same sources give the same bytes: the compressed site map has the time of RFC 1952, section 2.3.1."""
    assert int.from_bytes((SITE / "sitemap.xml.gz").read_bytes()[4:8], "little") == 946684800
