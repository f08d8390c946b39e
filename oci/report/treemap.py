"""A treemap of an image: nested folders as rectangles whose areas are their sizes."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator, Mapping

from oci.image_facts import File

# In pixels. A label is a line of 11-pixel text. A folder too small to show its content is one rectangle.
_CHARACTER = 7
_LINE = 17
_GAP = 2
_OPEN_WIDTH = 60
_OPEN_HEIGHT = 44
_SMALLEST_AREA = 60


@dataclasses.dataclass(frozen=True)
class Tile:
    """One rectangle, in pixels from the top left.

    Args:
        path: what it shows.
        size: bytes.
        layer: number of the layer with the largest share.
        label: as much text as fits, possibly none.
        is_open: whether tiles for its content follow, drawn on top.
    """

    path: str
    size: int
    layer: int
    x: float
    y: float
    width: float
    height: float
    label: str
    is_open: bool


@dataclasses.dataclass
class _Node:
    path: str
    label: str
    layers: collections.Counter[int] = dataclasses.field(default_factory=collections.Counter)
    children: dict[str, _Node] = dataclasses.field(default_factory=dict)

    @property
    def size(self) -> int:
        return self.layers.total()


def tiles(files: Mapping[str, File], width: float, height: float) -> list[Tile]:
    """The rectangles to draw, in drawing order, for all regular files of an image."""
    root = _Node("", "/")
    for path, file in sorted(files.items()):
        if not file.size:
            continue
        node = root
        node.layers[file.layer] += file.size
        for part in path.split("/"):
            node = node.children.setdefault(part, _Node(f"{node.path}/{part}", part))
            node.layers[file.layer] += file.size
    return list(_draw(root, 0, 0, width, height)) if root.size else []


def _draw(node: _Node, x: float, y: float, width: float, height: float) -> Iterator[Tile]:
    while len(node.children) == 1:  # A folder with a single child is not worth a frame.
        (child,) = node.children.values()
        child.label = f"{node.label.rstrip('/')}/{child.label}"
        node = child
    is_open = bool(node.children) and width >= _OPEN_WIDTH and height >= _OPEN_HEIGHT
    # The lowest of the layers with equal shares, so that the same image always gives the same picture.
    layer = min(node.layers, key=lambda number: (-node.layers[number], number))
    yield Tile(
        node.path or "/",
        node.size,
        layer,
        x=round(x, 1),
        y=round(y, 1),
        width=round(width, 1),
        height=round(height, 1),
        label=_fitting(node.label, width, height),
        is_open=is_open,
    )
    if not is_open:
        return
    x, y, width, height = x + _GAP, y + _LINE, width - 2 * _GAP, height - _LINE - _GAP
    scale = width * height / node.size
    children = sorted(node.children.values(), key=lambda child: (-child.size, child.path))
    shown = [child for child in children if child.size * scale >= _SMALLEST_AREA]
    rest = children[len(shown) :]
    if rest:
        layers = sum((child.layers for child in rest), collections.Counter[int]())
        shown.append(_Node(f"{node.path}/… ({len(rest)} more)", f"{len(rest)} more", layers))
    for child, rectangle in zip(shown, squarify([child.size * scale for child in shown], x, y, width, height)):
        yield from _draw(child, *rectangle)


def squarify(
    areas: list[float], x: float, y: float, width: float, height: float
) -> Iterator[tuple[float, float, float, float]]:
    """Divides a rectangle into parts that are as square as possible.

    Algorithm: Bruls, Huizing and van Wijk, "Squarified Treemaps", 2000.

    Args:
        areas: the parts' areas; they add up to the rectangle's.

    Returns:
        x, y, width and height of each part, in the order of `areas`.
    """
    rest = list(areas)
    while rest:
        # Add parts to a row along the shorter side as long as that makes its worst part squarer.
        side, count = min(width, height), 1
        while count < len(rest) and _worst(rest[: count + 1], side) <= _worst(rest[:count], side):
            count += 1
        row, rest = rest[:count], rest[count:]
        depth = sum(row) / side if side else 0
        offset = 0.0
        for area in row:
            length = area / depth if depth else 0
            yield (x, y + offset, depth, length) if width >= height else (x + offset, y, length, depth)
            offset += length
        if width >= height:
            x, width = x + depth, max(width - depth, 0)
        else:
            y, height = y + depth, max(height - depth, 0)


def _worst(row: list[float], side: float) -> float:
    total = sum(row)
    return max(side**2 * max(row) / total**2, total**2 / (side**2 * min(row))) if side else 0


def _fitting(label: str, width: float, height: float) -> str:
    room = int((width - 8) / _CHARACTER)
    if height < _LINE - 2 or room < 3:
        return ""
    return label if len(label) <= room else label[: room - 1] + "…"
