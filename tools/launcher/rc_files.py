"""Bazel's rc files: which configs they switch on, and what a config means in the repository's own .bazelrc."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence

from . import machine, options

# The commands that each command's lines in rc files apply to ("common" and "always" apply to all). Of Bazel 7.7.1; to
# find them for another one, put an unknown option on the line of one command and run all commands.
_INHERITS = {
    "build": frozenset(
        """
        aquery build canonicalize-flags clean config coverage cquery fetch info mobile-install print_action run test
        vendor
        """.split()
    ),
    "test": frozenset("coverage cquery fetch test vendor".split()),
}
_EVERY_COMMAND = ("common", "always")
_SYSTEM = "/etc/bazel.bazelrc"


def configs(line: options.CommandLine) -> dict[str, str]:
    """Maps each config that a command line runs with to what names it: "the command line" or an rc file.

    A config may switch on others, by a line like `build:ci --config=remote`.
    """
    found = dict.fromkeys(line.configs, "the command line")
    if not line.command:
        return found
    lines = _all_lines(line.startup)
    sections = {name for name, whom in _INHERITS.items() if line.command in whom} | {line.command, *_EVERY_COMMAND}
    size = -1
    while size != len(found):
        size = len(found)
        for name, words, path in lines:
            section, _, config = name.partition(":")
            if section in sections and (not config or config in found):
                for each in options.configs(words):
                    found.setdefault(each, path)
    return found


def startup_options(line: options.CommandLine) -> list[str]:
    """Returns the startup options that rc files have for a command line."""
    return [word for name, words, _ in _all_lines(line.startup) if name == "startup" for word in words]


def _all_lines(startup: Sequence[str]) -> list[tuple[str, list[str], str]]:
    return [(name, words, path) for path in paths(startup) for name, words in _lines(path)]


def paths(startup: Sequence[str]) -> list[str]:
    """Returns the rc files that Bazel reads with these startup options, without those that they import."""
    if _last(startup, "ignore_all_rc_files", False):
        return []
    found = []
    if _last(startup, "system_rc", True):
        found.append(_SYSTEM)
    if _last(startup, "workspace_rc", True):
        found.append(_own())
    home = os.environ.get("HOME")
    if home and _last(startup, "home_rc", True):
        found.append(os.path.join(home, ".bazelrc"))
    for path in options.startup_values(startup, "--bazelrc"):
        if path == os.devnull:  # Bazel ignores those behind it.
            break
        found.append(path)
    return found


def _last(startup: Sequence[str], name: str, default: bool) -> bool:
    for argument in reversed(startup):
        if argument in ("--" + name, "--no" + name):
            return argument == "--" + name
    return default


def own_options(section: str) -> list[str]:
    """Returns the options of a section, such as "build:release", in the repository's .bazelrc without its imports."""
    return [word for name, words in _lines(_own(), imports=False) if name == section for word in words]


def own_text() -> str:
    """Returns the repository's .bazelrc without the lines that import other files.

    Raises:
      OSError: it cannot be read.
    """
    with open(_own(), encoding="utf-8", errors="surrogateescape") as file:
        return "".join(line for line in file if line.split()[:1] not in (["import"], ["try-import"]))


def foreign(startup: Sequence[str]) -> list[str]:
    """Returns the rc files that Bazel reads besides the repository's .bazelrc and those that --bazelrc names."""
    named = options.startup_values(startup, "--bazelrc")
    found = [path for path in paths(startup) if path not in (_own(), *named)]
    if _own() in paths(startup):
        found += _imports(_own())
    return [path for path in found if os.path.isfile(path)]


def _own() -> str:
    return os.path.join(machine.ROOT, ".bazelrc")


def _imports(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            words = [line.split() for line in file]
    except OSError:
        return []
    return [_imported(line[1]) for line in words if len(line) == 2 and line[0] in ("import", "try-import")]


def _imported(name: str) -> str:
    return os.path.join(machine.ROOT, name.replace("%workspace%", machine.ROOT))


def _lines(path: str, imports: bool = True, seen: frozenset[str] = frozenset()) -> Iterator[tuple[str, list[str]]]:
    """Yields each line of an rc file as its section and options. Bazel complains about files that it cannot read."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            text = file.read()
    except (OSError, ValueError):
        return
    seen |= {os.path.realpath(path)}
    for line in text.replace("\\\r\n", "").replace("\\\n", "").splitlines():
        try:
            words = shlex.split(line, comments=True)
        except ValueError:  # An open quote. Bazel takes the line as if it were closed.
            words = line.split()
        if len(words) == 2 and words[0] in ("import", "try-import"):
            imported = _imported(words[1])
            if imports and os.path.realpath(imported) not in seen:
                yield from _lines(imported, imports, seen)
        elif words:
            yield words[0], words[1:]
