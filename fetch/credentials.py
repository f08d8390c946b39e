"""Credentials for downloads, as pip and apt find them; standard library only.

In this order: user and password in an address (`learn` takes them out, so that no message or file can contain them),
netrc ($NETRC, else ~/.netrc), apt's auth.conf and auth.conf.d. Each is sent only to its host.
"""

from __future__ import annotations

import base64
import functools
import os
import urllib.parse
from collections.abc import Iterator
from typing import NamedTuple

from fetch import errors, folders

_APT = "/etc/apt"


class Login(NamedTuple):
    """A user and a password."""

    user: str
    password: str

    def header(self) -> str:
        """Returns the value of the header Authorization."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()

    def for_bazel(self) -> dict[str, str]:
        """Returns the value that `auth` of repository_ctx.download expects for an address."""
        return {"type": "basic", "login": self.user, "password": self.password}

    def __repr__(self) -> str:
        return "Login(***)"


class _Entry(NamedTuple):
    machine: str
    login: Login


# Addresses without user and password → those that they had.
_learned: dict[str, Login] = {}


def learn(url: str) -> str:
    """Returns an address without user and password, and remembers these for what is on the same server.

    Only for an address that the user configured: a page or a server must not replace the user's logins.

    Raises:
      errors.UserError: the address cannot be read, for example because of an unencoded "/" in its password.
    """
    clean, login = split(url)
    # Otherwise a password with an unencoded "/" would be part of a path, and so of messages and files.
    if "@" in clean and not clean.startswith("file:"):
        raise _unreadable(url)
    if login:
        _learned[clean] = login
    return clean


def foreign(url: str) -> str:
    """Returns an address that a page or an index has, without the user and password that it may choose.

    Raises:
      errors.UserError: the address cannot be read.
    """
    clean, _ = split(url)
    # What is left of "@" is no login, but would look like one to `learn` and in a message.
    return urllib.parse.urlsplit(clean).geturl().replace("@", "%40")


def split(url: str) -> tuple[str, Login | None]:
    """Returns an address without user and password, and these.

    Raises:
      errors.UserError: the address cannot be read.
    """
    scheme, separator, _ = url.partition("://")
    if not separator or scheme == "file":
        return url, None
    try:
        parts = urllib.parse.urlsplit(url)
        parts.port  # noqa: B018  Raises if it is not a number.
    except ValueError:
        raise _unreadable(url) from None
    user_info, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, None
    user, _, password = user_info.partition(":")
    login = Login(urllib.parse.unquote(user), urllib.parse.unquote(password))
    return parts._replace(netloc=host).geturl(), login


def _unreadable(url: str) -> errors.UserError:
    scheme = url.partition("://")[0]
    return errors.UserError(
        f"{scheme + '://' if scheme in ('http', 'https') else ''}***: expected an address, found one that cannot be"
        " read. Write special characters of a user, a password or a path as in %40 for @ and %2F for /."
    )


def find(url: str, after: str = "") -> Login | None:
    """Returns the login for an address without user and password, or None.

    Args:
      url: the address.
      after: the address that led to it by a link or a redirect, if any. What came encrypted sends no login in the open.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return None
    if parts.scheme != "https" and urllib.parse.urlsplit(after).scheme == "https":
        return None
    # The longest address that this one continues, else any on the same server.
    same = [known for known in _learned if origin(known) == origin(url)]
    if same:
        return _learned[max(same, key=lambda known: (len(known) if url.startswith(known) else 0, known))]
    for entry in _netrc():
        if entry.machine.lower() == parts.hostname:
            return entry.login
    for entry in _apt():
        if _apt_matches(entry.machine, parts):
            return entry.login
    return None


def origin(url: str) -> tuple[str, str | None, int | None]:
    """Returns the scheme, host and port of an address: what a login is for."""
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _apt_matches(machine: str, parts: urllib.parse.SplitResult) -> bool:
    """Says whether an entry of apt_auth.conf(5) is for an address: [protocol://]host[:port][/path], else https only."""
    protocol, separator, place = machine.rpartition("://")
    if parts.scheme != (protocol if separator else "https"):
        return False
    host, slash, path = place.partition("/")
    authority = parts.netloc.lower()
    if host.lower() not in (authority, parts.hostname):
        return False
    return not slash or parts.path.startswith("/" + path)


def _netrc() -> tuple[_Entry, ...]:
    named = os.environ.get("NETRC")
    home = folders.home()
    paths = [named] if named else [os.path.join(home, name) for name in (".netrc", "_netrc")] if home else []
    return next((entries for entries in map(_entries, paths) if entries), ())


def _apt() -> tuple[_Entry, ...]:
    try:
        parts = sorted(os.listdir(os.path.join(_APT, "auth.conf.d")))
    except OSError:
        parts = []
    names = ["auth.conf", *(os.path.join("auth.conf.d", name) for name in parts if name.endswith(".conf"))]
    return tuple(entry for name in names for entry in _entries(os.path.join(_APT, name)))


@functools.cache
def _entries(path: str) -> tuple[_Entry, ...]:
    """Returns the entries of a file in netrc's form. A file that cannot be read has none: apt's is often for root only.

    An entry `default` is ignored, because it is for no host in particular.
    """
    try:
        with open(path, encoding="utf-8") as file:
            words = _words(file.read())
    except (OSError, UnicodeDecodeError):
        return ()
    found: list[dict[str, str]] = []
    for word in words:
        if word in ("machine", "default"):
            found.append({"machine": next(words, "") if word == "machine" else ""})
        elif word in ("login", "password", "account"):
            value = next(words, "")
            if found:
                found[-1][word] = value
    return tuple(
        _Entry(each["machine"], Login(each.get("login", ""), each.get("password", "")))
        for each in found
        if each["machine"] and ("login" in each or "password" in each)
    )


def _words(text: str) -> Iterator[str]:
    """Yields the words of a netrc file, without comments and macros."""
    macro = False
    for line in text.splitlines():
        words = line.split()
        if macro or not words:
            macro = macro and bool(words)  # A blank line ends a macro.
            continue
        for word in words:
            if word.startswith("#") and word is words[0]:
                break
            if word == "macdef":
                macro = True
                break
            yield word
