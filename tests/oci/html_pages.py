"""Reads a page that was made in a test, as strictly as a browser does not."""

from __future__ import annotations

import re
from html.parser import HTMLParser

_VOID = {"meta", "rect"}
_LOADING = {"src", "srcset", "href", "data", "poster", "action", "background", "xlink:href"}


class Page(HTMLParser):
    """A page's text, element by element.

    Attributes:
        text: all that is not markup, white space made one.
        rows: text of the cells of every table row, of all tables.
        elements: names and attributes of all elements.

    Raises:
        AssertionError: an element is not closed, or closed where it is not open.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self._text: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == [], f"never closed: {self._open}"
        self.text = " ".join("".join(self._text).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open and self._open[-1] == tag, f"</{tag}> closes {self._open}"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self._text.append(data + " ")
            if self.rows and {"td", "th"} & set(self._open):
                self.rows[-1][-1] = " ".join(f"{self.rows[-1][-1]} {data}".split())


def assert_nothing_is_loaded(html: str) -> None:
    """No script, and nothing that a browser would fetch to show the page."""
    for tag, attributes in Page(html).elements:
        assert tag not in ("script", "link", "iframe", "object", "embed", "img", "base", "image", "use"), tag
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        assert tag == "a" or not _LOADING & attributes.keys(), (tag, attributes)
    assert not re.search(r"url\(|@import", html)
    policies = [
        attributes["content"]
        for tag, attributes in Page(html).elements
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]
