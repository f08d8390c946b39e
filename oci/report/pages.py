"""The common look of the project's HTML pages, and the filters for sizes and digests.

Pages are jinja2 templates that extend page_base.html.jinja and import page_macros.html.jinja.
"""

from __future__ import annotations

import pathlib
import re
from typing import Any

import jinja2

from fetch import errors

_FOLDER = pathlib.Path(__file__).parent


def size(count: int) -> str:
    """Bytes in readable form, in SI units with three digits: 16.6 MB."""
    if count < 1000:
        return f"{count} B"
    value = float(count)
    units = iter(("kB", "MB", "GB", "TB"))
    while value >= 999.5:
        value /= 1000
        unit = next(units)
    return f"{value:.{0 if value >= 99.95 else 1}f} {unit}"


def growth(count: int) -> str:
    """A difference in bytes, with its sign."""
    return "±0" if not count else ("+" if count > 0 else "−") + size(abs(count))


def count(number: int, thing: str) -> str:
    """A number with its noun: 1 layer, 2,172 layers."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def short(digest: str) -> str:
    """Enough of a digest to recognize it."""
    return digest.partition(":")[2][:12]


def code(text: str) -> str:
    """Text as a code span of Markdown, in which nothing is a link, a mention or markup (CommonMark, "Code spans")."""
    line = errors.one_line(text)
    if not line:
        return ""
    fence = "`" * (max(map(len, re.findall("`+", line)), default=0) + 1)
    # Without these, a backtick at an end would belong to the fence.
    space = " " if line[0] == "`" or line[-1] == "`" else ""
    return f"{fence}{space}{line}{space}{fence}"


def cell(text: str) -> str:
    """Text as a code span in a cell of a Markdown table, whose "|" ends a cell in code too (GFM, "Tables")."""
    return code(text).replace("|", "\\|")


def render(template: pathlib.Path, **facts: Any) -> str:
    """Renders a template, which can extend and import the templates in this folder by name.

    *.html.jinja templates escape every value. It is an error if the template uses a fact that the caller does not pass.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, _FOLDER]),
        autoescape=lambda name: name is not None and name.endswith(".html.jinja"),  # noqa: S701
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(size=size, growth=growth, count=count, short=short, code=code, cell=cell)
    return environment.get_template(template.name).render(facts)
