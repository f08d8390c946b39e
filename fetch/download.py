"""Downloads verified by hash, resumed, from several mirrors, with the machine's CA bundle.

Standard library only: the launcher and repository rules run this on the machine's own Python.
"""

from __future__ import annotations

import errno
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
from typing import Callable

from fetch import errors, trust
from fetch.hashes import file_sha256

# Set in a build from a pack, to the reason: nothing is resolved, connected to or downloaded then.
NO_NETWORK = "MLC_NO_NETWORK"

_CHUNK = 1 << 18
_TIMEOUT_SECONDS = 30
_TRIES_PER_URL = 3


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
    """Opens a URL as urllib does (proxies from the environment), trusting the machine's CA bundle too.

    Raises:
      DownloadError: this build must not use the network, and the URL names no file.
    """
    if not url.startswith("file:///"):
        require_network(url)
    context = None
    if url.startswith("https:"):
        context = ssl.create_default_context()
        bundle = trust.bundle()
        if bundle:
            context.load_verify_locations(cafile=bundle)
    request = urllib.request.Request(url, headers={"User-Agent": "mlc-bazel-launcher", **(headers or {})})
    return urllib.request.urlopen(request, timeout=timeout, context=context)


def reason(error: BaseException) -> str:
    """One line that says why a request failed, without Python's wrapping."""
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return str(error.reason)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


_NETWORK_ERRORS = (urllib.error.URLError, http.client.HTTPException, socket.timeout, ConnectionError, ssl.SSLError)


def read(url: str, headers: Mapping[str, str] | None = None, timeout: float = _TIMEOUT_SECONDS) -> bytes:
    """The body of a small document. Raises DownloadError."""
    for attempt in range(_TRIES_PER_URL):
        try:
            with open_url(url, headers, timeout) as response:
                return response.read()
        except urllib.error.HTTPError as error:
            raise DownloadError(f"{url}: {reason(error)}") from error
        except _NETWORK_ERRORS as error:
            if attempt + 1 == _TRIES_PER_URL:
                raise DownloadError(f"{url}: {reason(error)}") from error
            time.sleep(0.2 * 2**attempt)
    raise AssertionError("unreachable")


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
      size: bytes, where known.
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
                for chunk in iter(lambda: response.read(_CHUNK), b""):
                    out.write(chunk)
                    digest.update(chunk)
                    have += len(chunk)
                    progress(len(chunk))
                if response.length:  # The only sign of a truncated body in http.client.
                    raise http.client.IncompleteRead(b"", response.length)
            out.flush()
        except BaseException as error:
            progress(-have)
            if isinstance(error, urllib.error.HTTPError) and error.code == 416:
                out.truncate(0)  # The part is longer than the file: it is not part of it.
            raise
    return digest.hexdigest()
