"""Errors that programs show as a message instead of a traceback, and the one place that makes text safe to show."""

from __future__ import annotations

import re
import sys

_WORD = re.compile(r"\S+")
# The runner of a workflow takes commands from what its jobs print: "::name::" at the start of a line, "##[name]"
# anywhere in it.
_COMMAND = re.compile(r"^(?=\s*::)|(?<=##)(?=\[)")
_MOST_CHARACTERS = 4000


class UserError(Exception):
    """An error that the user can fix; the message says what was expected, what was found and what to do.

    Passwords in addresses are hidden, and every line is `printable`: names and reasons in it may be a host's words.
    """

    def __init__(self, *arguments: object) -> None:
        super().__init__(*(_shown(argument) if isinstance(argument, str) else argument for argument in arguments))


def redact(text: str) -> str:
    r"""Returns text that is safe to show, however much of it others wrote.

    The user and password of every address become "***". Characters that a terminal acts on or does not show are
    escaped, except for newlines and tabs, which our own messages have.

    >>> redact("https://me:p/w@example.org/x answers \x1b[2K\rall is well")
    'https://***@example.org/x answers \\x1b[2K\\rall is well'
    """
    escaped = _escaped(text, "\n\t")
    return _WORD.sub(_without_user, escaped) if "@" in escaped else escaped


def printable(line: str) -> str:
    """Returns a line from outside with nothing that a terminal or a workflow's runner takes for a command.

    Characters that are not printable become their escape sequence; tabs stay.
    """
    return _COMMAND.sub(r"\\", _escaped(line, "\t"))


def _shown(text: str) -> str:
    return "\n".join(map(printable, redact(text).split("\n")))


def one_line(text: str, most: int = _MOST_CHARACTERS) -> str:
    """Returns text from outside as one line, as `printable` does, and without passwords.

    Args:
        text: what a host, a program or a file says.
        most: characters that are kept.
    """
    line = printable(redact(" ".join(text.split())))
    return line[:most] + ("…" if len(line) > most else "")


def tell(program: str, error: object) -> None:
    """Prints why a program fails, as one line on standard error; hosts and other programs may have worded a part."""
    print(f"{program}: {one_line(str(error))}", file=sys.stderr)


def _escaped(text: str, keep: str) -> str:
    if text.isprintable():
        return text
    return "".join(each if each in keep or each.isprintable() else ascii(each)[1:-1] for each in text)


def _without_user(word: re.Match[str]) -> str:
    """Hides everything up to the last "@": a password may have an unencoded "@", "/", "?", "#" or quote."""
    before, separator, after = word[0].partition("://")
    _, at, rest = after.rpartition("@")
    return f"{before}{separator}***@{rest}" if separator and at else word[0]
