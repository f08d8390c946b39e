"""Errors that programs show as a message instead of a traceback, and the one function that hides passwords in text."""

from __future__ import annotations

import re

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
