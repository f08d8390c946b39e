"""Writes results as Markdown: tables, the facts that figures need next to them, and the page that keeps them."""

from __future__ import annotations

import datetime
import os
import platform
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from statistics import median

HEADER = """\
# Results

Written by `tools/bazel run //bench -- --write`; [README.md](README.md) explains each figure. Only compare \
ratios within one part: each part says
when and where it was measured.
"""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is left-aligned, the others right-aligned."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def duration(seconds: float) -> str:
    """About three digits: `3 min 20 s`, `12.3 s`, `45 ms`."""
    if seconds >= 99.95:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest} s"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def size(count: int) -> str:
    """A number of bytes in MB (10⁶), or in kB below 1 MB."""
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def ratio(ours: float, theirs: float) -> str:
    """Ours divided by theirs."""
    return f"{ours / theirs:.2f}"


def rate(per_second: float) -> str:
    """Tokens per second, about three digits."""
    return f"{per_second:.0f}/s" if per_second >= 100 else f"{per_second:.1f}/s"


def ratios(pairs: Sequence[tuple[float, float]]) -> str:
    """Ours divided by theirs for each pair: median, and minimum and maximum, which show the noise."""
    each = [ours / theirs for ours, theirs in pairs]
    return f"{median(each):.2f} ({min(each):.2f}–{max(each):.2f})"


def machine() -> str:
    """Cores, processor, memory, kernel, system; nothing that identifies this machine."""
    processor = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    name = platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    model = processor[1].strip() if processor else platform.machine()
    return (
        f"{len(os.sched_getaffinity(0))} cores of {model}, {memory / 2**30:.1f} GiB, Linux"
        f" {platform.release().split('-')[0]}, {name}"
    )


def facts(root: Path, versions: str) -> str:
    """The line below a part's heading: when, where and what was measured.

    Args:
      root: the workspace.
      versions: of the measured tools.
    """

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", root, *arguments], stdout=subprocess.PIPE, text=True, check=True
        ).stdout.strip()

    changed = ", with changes" if git("status", "--porcelain", "--", ".", ":!bench/results.md") else ""
    now = datetime.datetime.now(datetime.UTC)
    return (
        f"{now:%Y-%m-%d %H:%M} UTC; {machine()}; commit {git('rev-parse', '--short=12', 'HEAD')}{changed}; {versions}."
    )


def section(part: str, text: str) -> str:
    """A part of the page, with its heading."""
    return f"## {part}\n\n{text.strip()}\n"


def merged(old: str, sections: dict[str, str], order: Sequence[str]) -> str:
    """The results page with some parts replaced.

    Args:
      old: the page so far, or "".
      sections: name of a part → its `section`.
      order: all parts, in the order of the page.
    """
    kept = {match[1]: match[0] for match in re.finditer(r"^## (\S+)\n(?:(?!## ).*\n?)*", old, re.MULTILINE)}
    parts = {**kept, **sections}
    return "\n".join([HEADER] + [parts[part].strip() + "\n" for part in order if part in parts])
