"""Downloads verified by hash, resumed, from several mirrors, with the machine's CA bundle.

Standard library only: the launcher and repository rules run this on the machine's own Python.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import http.client
import os
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Callable

from fetch import credentials, errors, trust
from fetch.hashes import file_sha256

# Set in a build from a pack, to the reason: nothing is resolved, connected to or downloaded then.
NO_NETWORK = "MLC_NO_NETWORK"

_CHUNK = 1 << 18
_TIMEOUT_SECONDS = 30
_TRIES_PER_URL = 3
# More than any document that `read` is used for.
_DOCUMENT_BYTES = 64 << 20


class _TooLargeError(Exception):
    """A server sends more than the known size."""


class DownloadError(errors.UserError):
    """A download failed; the message names the file, what was expected, what was found and what to do."""


class GoneError(DownloadError):
    """A mirror answers but does not have the file, and none has another one in its place."""


class UnreachableError(DownloadError):
    """No mirror answers."""


def require_network(what: str) -> None:
    """Raises DownloadError if this build must not use the network; `what` it wants, for the message."""
    if os.environ.get(NO_NETWORK):
        raise DownloadError(f"{what}: {os.environ[NO_NETWORK]}")


def open_url(
    url: str, headers: Mapping[str, str] | None = None, timeout: float = _TIMEOUT_SECONDS
) -> http.client.HTTPResponse:
    """Opens a URL as urllib does (proxies from the environment), with the machine's CA bundle and the user's logins.

    Args:
      headers: more headers. Those in `_SECRET` are not sent to another server that this one redirects to.

    Raises:
      DownloadError: this build must not use the network, and the URL names no file.
    """
    if not url.startswith("file:///"):
        require_network(url)
    request = urllib.request.Request(
        credentials.learn(url), headers={"User-Agent": "mlc-bazel-launcher", **(headers or {})}
    )
    _authorize(request)
    https = urllib.request.HTTPSHandler(context=_context(trust.bundle()))
    opener = urllib.request.build_opener(https, _Redirects)
    return opener.open(request, timeout=timeout)


@functools.cache
def _context(bundle: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if bundle:
        context.load_verify_locations(cafile=bundle)
    return context


# Headers that only the server that a request is for may see, as urllib.request spells them.
_SECRET = ("Authorization", "Cookie")


def _authorize(request: urllib.request.Request) -> None:
    login = credentials.find(request.full_url)
    if login and not request.has_header("Authorization"):
        request.add_unredirected_header("Authorization", login.header())


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects. A login stays with its host, and none is sent in the open after an encrypted request."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        target, _ = credentials.split(newurl)  # A server names no users of others.
        request = super().redirect_request(req, fp, code, msg, headers, target)
        if request is None:
            return None
        before, after = credentials.origin(req.full_url), credentials.origin(target)
        request.remove_header("Proxy-authorization")  # urllib adds it again if there still is a proxy.
        if before != after:
            for name in _SECRET:
                request.remove_header(name)
        if not (before[0] == "https" and after[0] != "https"):
            _authorize(request)
        return request


def reason(error: BaseException) -> str:
    """One line that says why a request failed, without Python's wrapping."""
    if isinstance(error, urllib.error.HTTPError):
        hint = " (set a login in ~/.netrc, or in the address)" if error.code == 401 else ""
        return errors.redact(f"HTTP {error.code} {error.reason}{hint}")
    if isinstance(error, urllib.error.URLError):
        return errors.redact(str(error.reason))
    return errors.redact(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)


_NETWORK_ERRORS = (urllib.error.URLError, http.client.HTTPException, socket.timeout, ConnectionError, ssl.SSLError)


def read(
    url: str,
    headers: Mapping[str, str] | None = None,
    timeout: float = _TIMEOUT_SECONDS,
    limit: int = _DOCUMENT_BYTES,
) -> bytes:
    """The body of a small document. Raises DownloadError, also if the body has more bytes than `limit`."""
    for attempt in range(_TRIES_PER_URL):
        try:
            with open_url(url, headers, timeout) as response:
                if _left(response) <= limit:
                    # With one byte more, because a server need not say the length.
                    body = response.read(limit + 1)
                    if len(body) <= limit:
                        if _left(response):
                            raise http.client.IncompleteRead(body, _left(response))
                        return body
            raise DownloadError(f"{url}: expected at most {limit} bytes, found more")
        except urllib.error.HTTPError as error:
            raise DownloadError(f"{url}: {reason(error)}") from error
        except _NETWORK_ERRORS as error:
            if attempt + 1 == _TRIES_PER_URL:
                raise DownloadError(f"{url}: {reason(error)}") from error
            time.sleep(0.2 * 2**attempt)
    raise AssertionError("unreachable")


def _left(response: http.client.HTTPResponse) -> int:
    """The bytes of the body that are still to come, 0 if unknown: the only sign of a truncated body in http.client."""
    return getattr(response, "length", None) or 0  # The response of a file: address has no length.


def fetch(
    urls: Iterable[str],
    destination: Path,
    sha256: str,
    size: int | None = None,
    progress: Callable[[int], None] = lambda received: None,
    headers: Mapping[str, str] | None = None,
) -> Path:
    """Downloads and verifies one file. Resumes what an earlier run left, without trusting it.

    Args:
      urls: places of the same file, tried in this order.
      destination: appears only once complete and verified; until then the bytes are in `<destination>.part`.
      sha256: the expected hash, lower-case hexadecimal.
      size: bytes, where known. No more are read.
      progress: called with the number of bytes added (including those that an earlier run left).

    Raises:
      GoneError: no URL has the file, and at least one server says so.
      UnreachableError: no URL answers.
      DownloadError: one has another file, or there is no room for it.
    """
    if destination.exists() and file_sha256(destination) == sha256:
        progress(destination.stat().st_size)
        return destination
    require_network(f"{destination.name} (sha256 {sha256})")
    part = destination.with_name(destination.name + ".part")
    failures = []
    gone = changed = False
    for url in urls:
        for attempt in range(_TRIES_PER_URL):
            resumed = part.exists()
            try:
                digest = _append(url, part, size, progress, headers)
            except _TooLargeError:
                part.unlink()
                failures.append(f"{url}: expected {size} bytes, found more")
                if not resumed:
                    break
                continue
            except urllib.error.HTTPError as error:
                failures.append(f"{url}: {reason(error)}")
                gone = gone or error.code in (404, 410)
                break
            except _NETWORK_ERRORS as error:
                failures.append(f"{url}: {reason(error)}")
                time.sleep(0.2 * 2**attempt)
                continue
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                    raise DownloadError(
                        f"{part}: {os.strerror(error.errno)}. Free some space, or set MLC_BAZEL_CACHE to a folder with"
                        " room, and run the same command again: it resumes."
                    ) from error
                raise
            if digest == sha256:
                os.replace(part, destination)
                return destination
            found = part.stat().st_size
            part.unlink()
            progress(-found)
            failures.append(f"{url}: expected sha256 {sha256}, found {digest} ({found} bytes)")
            changed = True
            if not resumed:  # Otherwise the resumed part may be at fault: try again from the start.
                break
    kind = DownloadError if changed else GoneError if gone else UnreachableError
    raise kind(f"cannot download {destination.name}:\n  " + "\n  ".join(dict.fromkeys(failures)))


def _append(
    url: str, part: Path, size: int | None, progress: Callable[[int], None], headers: Mapping[str, str] | None
) -> str:
    """Appends the missing rest to `part` and returns the sha256 of the whole."""
    digest = hashlib.sha256()
    with open(part, "ab+") as out:
        out.seek(0)
        for chunk in iter(lambda: out.read(_CHUNK), b""):
            digest.update(chunk)
        have = out.tell()
        progress(have)
        try:
            if size is not None and have >= size:
                return digest.hexdigest()
            wanted = {**(headers or {}), **({"Range": f"bytes={have}-"} if have else {})}
            with open_url(url, wanted) as response:
                if have and response.status != 206:  # The server cannot resume: start over.
                    out.truncate(0)
                    progress(-have)
                    have, digest = 0, hashlib.sha256()
                if size is not None and have + _left(response) > size:
                    raise _TooLargeError
                for chunk in iter(lambda: response.read(_CHUNK), b""):
                    if size is not None and have + len(chunk) > size:
                        raise _TooLargeError
                    out.write(chunk)
                    digest.update(chunk)
                    have += len(chunk)
                    progress(len(chunk))
                if _left(response):
                    raise http.client.IncompleteRead(b"", _left(response))
            out.flush()
        except BaseException as error:
            progress(-have)
            if isinstance(error, urllib.error.HTTPError) and error.code == 416:
                out.truncate(0)  # The part is longer than the file: it is not part of it.
            raise
    return digest.hexdigest()
