"""Errors that programs show as a message instead of a traceback, and what makes text from outside safe to print."""

from __future__ import annotations

import re
import sys

# The user and password of an address. The second form has an unencoded "/", "?" or "#" in its password: no port.
_USER_INFO = re.compile(r"(?<=://)(?:[^\s/?#]*@|[^\s/?#:@]*:(?!\d{0,5}(?:[/?#\s'\"),;]|$))[^\s'\"]*@)")


class UserError(Exception):
    """An error that the user can fix; the message says what was expected, what was found and what to do.

    Passwords in addresses are hidden.
    """

    def __init__(self, *arguments: object) -> None:
        super().__init__(*(redact(argument) if isinstance(argument, str) else argument for argument in arguments))


def redact(text: str) -> str:
    """Returns text with the user and password of every address in it replaced by "***"."""
    return _USER_INFO.sub("***@", text) if "@" in text else text


# The runner of a workflow takes commands from what its jobs print: "::name::" at the start of a line, "##[name]"
# anywhere in it.
_COMMAND = re.compile(r"^(?=\s*::)|(?<=##)(?=\[)")
_MOST_CHARACTERS = 4000


def printable(line: str) -> str:
    """Returns a line from outside with nothing that a terminal or a workflow's runner takes for a command.

    Characters that are not printable become their escape sequence; tabs stay.
    """
    escaped = "".join(each if each.isprintable() or each == "\t" else ascii(each)[1:-1] for each in line)
    return _COMMAND.sub(r"\\", escaped)


def one_line(text: str, most: int = _MOST_CHARACTERS) -> str:
    """Returns text from outside as one line, as `printable` does, and without passwords.

    Args:
        text: what a host, a program or a file says.
        most: characters that are kept.
    """
    line = printable(" ".join(redact(text).split()))
    return line[:most] + ("…" if len(line) > most else "")


def tell(program: str, error: object) -> None:
    """Prints why a program fails, as one line on standard error; hosts and other programs may have worded a part."""
    print(f"{program}: {one_line(str(error))}", file=sys.stderr)
