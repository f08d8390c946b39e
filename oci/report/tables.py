"""What the page shows, as tables for a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

# Aligns columns of any alphabet and fits them into the terminal.
import rich.console
import rich.table
import rich.text

from fetch import errors
from oci import image_facts
from oci.image_facts import Change, ImageFacts, Layer
from oci.report.pages import count, growth, size

# Rows of a table; the page has more.
_SHOWN = 12

# Characters of a cell; the rest of a longer text is on the page.
_LONGEST = 300

# Columns of a log or a file. No line is longer, so none is broken: what follows a break begins a line, and a
# workflow's runner takes commands from what lines begin with.
_WIDE = 10_000


def _text(words: str) -> rich.text.Text:
    """Words from an image, which may contain what a terminal or a workflow's runner would act on."""
    return rich.text.Text(errors.one_line(words, _LONGEST))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[int] = ()) -> rich.table.Table:
    """A table; the columns with these positions are right-aligned, and not broken where there is room."""
    table = rich.table.Table(box=None, pad_edge=False, header_style="bold")
    for position, name in enumerate(head):
        right = position in set(numbers)
        table.add_column(name, justify="right" if right else "left", no_wrap=right, overflow="fold")
    for row in rows:
        table.add_row(*map(_text, row))
    return table


def _layers(layers: Sequence[Layer], state: dict[str, str]) -> rich.table.Table:
    head = ["layer", "compressed", "unpacked", "files", *(["compared"] if state else [])]
    rows = [
        [
            layer.origin,
            size(layer.compressed),
            size(layer.unpacked),
            f"{layer.files:,}",
            *([state[layer.digest]] if state else []),
        ]
        for layer in layers
    ]
    return _table(head, rows, (1, 2, 3))


def _version(change: Change) -> str:
    versions = [package.version for package in (change.before, change.after) if package]
    return " → ".join(dict.fromkeys(versions))


def _rest(console: rich.console.Console, number: int, thing: str) -> None:
    if number > 0:
        console.print(f"… and {count(number, thing)} more: --html", style="dim")


def show(image: ImageFacts, other: ImageFacts | None = None) -> None:
    """Prints tables about an image: layers, packages, largest files; with `other`, what differs from it.

    Args:
        image: to describe.
        other: to compare it with.
    """
    console = rich.console.Console(highlight=False, markup=False, emoji=False)
    if not sys.stdout.isatty():
        console.width = _WIDE
    console.print(_text(f"{image.name} {image.digest}"), style="bold")
    console.print(
        _text(
            f"{image.platform or 'no platform'}: {size(image.compressed)} compressed, {size(image.unpacked)} unpacked,"
            f" {count(len(image.files), 'path')}, {count(len(image.packages), 'package')}"
        )
    )
    if other:
        _show_difference(console, image, other)
        return
    console.print()
    console.print(_layers(image.layers, {}))
    console.print()
    packages = [
        [package.name, package.version, package.ecosystem, size(package.size)] for package in image.packages[:_SHOWN]
    ]
    console.print(_table(["largest packages", "version", "kind", "size"], packages, (3,)))
    _rest(console, len(image.packages) - _SHOWN, "package")
    console.print()
    files = [[f"/{path}", image.layers[file.layer].name, size(file.size)] for path, file in image.largest_files(_SHOWN)]
    console.print(_table(["largest files", "layer", "size"], files, (2,)))


def _show_difference(console: rich.console.Console, image: ImageFacts, other: ImageFacts) -> None:
    difference = image_facts.compare(other, image)
    console.print()
    console.print(_text(f"Difference from {other.name} {other.digest}"), style="bold")
    if image.digest == other.digest:
        console.print("The images are identical.")
        return
    console.print(
        f"{growth(image.compressed - other.compressed)} compressed, {growth(image.unpacked - other.unpacked)} unpacked;"
        f" {size(difference.pull)} to pull on top of it"
    )
    console.print()
    state = {layer.digest: "added" for layer in difference.added}
    state |= {layer.digest: "shared" for layer in difference.shared}
    state |= {layer.digest: "removed" for layer in difference.removed}
    console.print(_layers([*image.layers, *difference.removed], state))
    if difference.packages:
        console.print()
        rows = [[each.kind, each.key, _version(each), growth(each.growth)] for each in difference.packages[:_SHOWN]]
        console.print(_table(["", "package", "version", "size"], rows, (3,)))
        _rest(console, len(difference.packages) - _SHOWN, "package")
    if difference.files:
        console.print()
        rows = [[each.kind, f"/{each.key}", growth(each.growth)] for each in difference.files[:_SHOWN]]
        console.print(_table(["", "file", "size"], rows, (2,)))
        _rest(console, len(difference.files) - _SHOWN, "file")
    if difference.settings:
        console.print()
        settings = [[each.key, each.before or "", each.after or ""] for each in difference.settings]
        console.print(_table(["setting", other.name, image.name], settings))
