"""Downloads verified by hash, resumed, from several mirrors, with the machine's CA bundle.

Standard library only: the launcher and repository rules run this on the machine's own Python.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import http.client
import io
import os
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Callable, TypeVar

from fetch import credentials, errors, trust
from fetch.hashes import file_sha256, stream_sha256

# Set in a build from a pack, to the reason: nothing is resolved, connected to or downloaded then.
NO_NETWORK = "MLC_NO_NETWORK"

# Small: bytes count for a slow link only once there are so many.
_CHUNK = 1 << 14
_TIMEOUT_SECONDS = 30
_TRIES_PER_URL = 3
# More than any document that `read` is used for, and than any file whose size is unknown.
_DOCUMENT_BYTES = 64 << 20
_FILE_BYTES = 4 << 30
# The slowest link that is not taken for a server that holds us up, in bytes per second; it may fall behind by so many
# timeouts.
_SLOWEST = 1 << 10
_WINDOW_TIMEOUTS = 2
# The longest time for a document, which is not resumed.
_DOCUMENT_TIMEOUTS = 20

_Result = TypeVar("_Result")


class _TooLargeError(Exception):
    """A server sends more than the known size."""


class _TooSlowError(socket.timeout):
    """A server sends something, but too little for the time."""


class DownloadError(errors.UserError):
    """A download failed; the message names the file, what was expected, what was found and what to do."""


class GoneError(DownloadError):
    """A mirror answers but does not have the file, and none has another one in its place."""


class TooLargeError(DownloadError):
    """A document has more bytes than expected."""


class UnreachableError(DownloadError):
    """No mirror answers."""


def require_network(what: str) -> None:
    """Raises DownloadError if this build must not use the network; `what` it wants, for the message."""
    if os.environ.get(NO_NETWORK):
        raise DownloadError(f"{what}: {os.environ[NO_NETWORK]}")


def open_url(
    url: str, headers: Mapping[str, str] | None = None, timeout: float = _TIMEOUT_SECONDS, after: str = ""
) -> http.client.HTTPResponse:
    """Opens a URL as urllib does (proxies from the environment), with the machine's CA bundle and the user's logins.

    Args:
      url: one that the user configured, or one from outside without user and password: `credentials.learn` takes them.
      headers: more headers. Those in `_SECRET` are not sent to another server that this one redirects to.
      timeout: seconds in which the server must accept the connection, then answer. Then it must send at least
        `_SLOWEST` bytes per second.
      after: the address of the page that has this one, for `credentials.find`.

    Raises:
      DownloadError: this build must not use the network, and the URL names no file; or the CA bundle is damaged.
      OSError, http.client.HTTPException: no answer, or a bad one.
    """
    if not url.startswith("file:///"):
        require_network(url)
    clean = credentials.learn(url)
    if not clean.lower().startswith(_SCHEMES):
        raise urllib.error.URLError(f"expected {', '.join(_SCHEMES)} at the beginning of an address")
    opener = paced(_context(trust.bundle()), _Redirects)
    try:
        request = _Request(clean, headers={"User-Agent": "mlc-bazel-launcher", **(headers or {})})
        request.after = after
        _authorize(request)
        return opener.open(request, timeout=timeout)
    except ValueError as error:  # Also of an address that a server redirects to.
        raise urllib.error.URLError(f"an address that cannot be used ({error})") from error


_SCHEMES = ("http:", "https:", "file:")


def paced(context: ssl.SSLContext, *handlers: type[urllib.request.BaseHandler]) -> urllib.request.OpenerDirector:
    """An opener whose timeout is for the whole answer, and then for a least speed, not for each read."""
    return urllib.request.build_opener(_Http, _Https(context=context), *handlers)


@functools.cache
def _context(bundle: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if bundle:
        try:
            context.load_verify_locations(cafile=bundle)
        except OSError as error:  # ssl.SSLError is one.
            raise DownloadError(trust.damaged(bundle)) from error
    return context


class _Pace:
    """The time that a server has: for its answer, then for the body, by its length so far.

    A socket's own timeout is for one read only, and a byte is enough to start it again.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._end = time.monotonic() + timeout
        self._problem = f"no complete answer within {timeout:g} s"

    def left(self) -> float:
        """Returns the seconds that the next read may take. Raises _TooSlowError if there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise _TooSlowError(self._problem)
        return min(left, self._timeout)

    def over(self, seconds: float) -> _TooSlowError | None:
        """Returns the error of a read that took these seconds, or None if it had all the time for one read."""
        return _TooSlowError(self._problem) if seconds < 0.9 * self._timeout else None

    def answered(self) -> None:
        """The headers are complete."""
        window = _WINDOW_TIMEOUTS * self._timeout
        self._end = time.monotonic() + window
        self._problem = f"slower than {_SLOWEST} bytes/s for more than {window:g} s"

    def received(self, count: int) -> None:
        """Bytes of the body extend the time; headers, trailers and sizes of chunks do not."""
        latest = time.monotonic() + _WINDOW_TIMEOUTS * self._timeout
        self._end = min(self._end + count / _SLOWEST, latest)


class _PacedReader(io.RawIOBase):
    """What a socket receives, within the time that `_Pace` allows."""

    def __init__(self, connection: socket.socket, raw: io.RawIOBase, pace: _Pace) -> None:
        self._connection, self._raw, self._pace = connection, raw, pace

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        usual, left = self._connection.gettimeout(), self._pace.left()
        self._connection.settimeout(left)
        try:
            return self._raw.readinto(buffer)
        except socket.timeout as error:
            # Silence is worth another try.
            raise self._pace.over(left) or error from None
        finally:
            self._connection.settimeout(usual)

    def close(self) -> None:
        super().close()
        self._raw.close()


class _Response(http.client.HTTPResponse):
    """A response that has limited time, and whose damage is always an HTTPException."""

    def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self._pace = _Pace(sock.gettimeout() or _TIMEOUT_SECONDS)
        self.fp = io.BufferedReader(_PacedReader(sock, self.fp.detach(), self._pace))

    def begin(self) -> None:
        super().begin()
        self._pace.answered()

    def read(self, amt: int | None = None) -> bytes:
        try:
            data = super().read(amt)
        except (ValueError, OverflowError) as error:  # The sizes of chunks are not checked.
            raise http.client.HTTPException(f"a damaged body ({error})") from error
        self._pace.received(len(data))
        return data


class _HttpConnection(http.client.HTTPConnection):
    response_class = _Response


class _HttpsConnection(http.client.HTTPSConnection):
    response_class = _Response


class _Http(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_HttpConnection, req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(context=context)
        self._trusted = context

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_HttpsConnection, req, context=self._trusted)


class _Request(urllib.request.Request):
    # The address that led to this one, by a link or a redirect; an encrypted one if there was any.
    after = ""


# Headers that only the server that a request is for may see, as urllib.request spells them.
_SECRET = ("Authorization", "Cookie")


def _authorize(request: _Request) -> None:
    login = credentials.find(request.full_url, request.after)
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
    ) -> _Request | None:
        fp.close()  # Otherwise urllib reads all of it, however much that is.
        try:
            target, _ = credentials.split(newurl)  # A server names no users of others.
        except errors.UserError as error:
            raise ValueError("redirected to one that cannot be read") from error
        if not target.lower().startswith(("http:", "https:")):
            raise ValueError("redirected to one that is neither http nor https")
        plain = super().redirect_request(req, fp, code, msg, headers, target)
        if plain is None:
            return None
        request = _Request(plain.full_url, None, plain.headers, plain.origin_req_host, plain.unverifiable)
        before, after = credentials.origin(req.full_url), credentials.origin(target)
        earlier = req.after if isinstance(req, _Request) else ""
        request.after = earlier if credentials.origin(earlier)[0] == "https" else req.full_url
        request.remove_header("Proxy-authorization")  # urllib adds it again if there still is a proxy.
        if before != after:
            for name in _SECRET:
                request.remove_header(name)
        _authorize(request)
        return request


LOGIN_HINT = " (set a login in ~/.netrc, or in the address)"
"""What `reason` adds where a server wants a login."""


def reason(error: BaseException) -> str:
    """One line that says why a request failed, without Python's wrapping."""
    if isinstance(error, urllib.error.HTTPError):
        hint = LOGIN_HINT if error.code == 401 else ""
        return errors.one_line(f"HTTP {error.code} {error.reason}{hint}")
    if isinstance(error, (urllib.error.URLError, _TooSlowError)):
        return errors.one_line(str(error.reason if isinstance(error, urllib.error.URLError) else error))
    return errors.one_line(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)


_NETWORK_ERRORS = (urllib.error.URLError, http.client.HTTPException, socket.timeout, ConnectionError, ssl.SSLError)


def read(
    url: str,
    headers: Mapping[str, str] | None = None,
    timeout: float = _TIMEOUT_SECONDS,
    limit: int = _DOCUMENT_BYTES,
) -> bytes:
    """The body of a small document. Raises DownloadError, also if the body has more bytes than `limit`."""
    return _tried(url, lambda: b"".join(_pieces(url, headers, timeout, limit)))


def save(url: str, path: Path, timeout: float = _TIMEOUT_SECONDS, limit: int = _FILE_BYTES) -> None:
    """Writes what is at an address, whose hash is unknown, into a file. Raises DownloadError as `read` does."""

    def once() -> None:
        with open(path, "wb") as out:
            for piece in _pieces(url, None, timeout, limit):
                out.write(piece)

    _tried(url, once)


def remote_sha256(url: str, limit: int) -> str:
    """The sha256 of what is at an address. Raises DownloadError as `read` does."""

    def once() -> str:
        digest = hashlib.sha256()
        for piece in _pieces(url, None, _TIMEOUT_SECONDS, limit):
            digest.update(piece)
        return digest.hexdigest()

    return _tried(url, once)


def _tried(url: str, once: Callable[[], _Result]) -> _Result:
    """Returns what `once` returns, which is called again after an error of the network.

    Raises:
      DownloadError: the last error, or one that would come again.
    """
    for attempt in range(_TRIES_PER_URL):
        try:
            return once()
        except _TooLargeError as error:
            raise TooLargeError(f"{url}: {error}") from error
        except (urllib.error.HTTPError, _TooSlowError) as error:
            raise DownloadError(f"{url}: {reason(error)}") from error
        except _NETWORK_ERRORS as error:
            if attempt + 1 == _TRIES_PER_URL:
                raise DownloadError(f"{url}: {reason(error)}") from error
            time.sleep(0.2 * 2**attempt)
    raise AssertionError("unreachable")


def _pieces(url: str, headers: Mapping[str, str] | None, timeout: float, limit: int) -> Iterator[bytes]:
    """Yields the body of a document. Raises what `open_url` raises, and _TooLargeError."""
    end, have = time.monotonic() + _DOCUMENT_TIMEOUTS * timeout, 0
    with open_url(url, headers, timeout) as response:
        for piece in _body(response):
            have += len(piece)
            if have + _left(response) > limit:
                raise _TooLargeError(f"expected at most {limit} bytes, found more")
            if time.monotonic() > end:
                raise _TooSlowError(f"not complete after {_DOCUMENT_TIMEOUTS * timeout:g} s")
            yield piece


def _body(response: http.client.HTTPResponse) -> Iterator[bytes]:
    yield from iter(lambda: response.read(_CHUNK), b"")
    if _left(response):
        raise http.client.IncompleteRead(b"", _left(response))


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
    after: str = "",
) -> Path:
    """Downloads and verifies one file. Resumes what an earlier run left, without trusting it. Concurrent runs are safe.

    Args:
      urls: places of the same file, tried in this order.
      destination: appears only once complete and verified; until then the bytes are in `<destination>.part`, which
        one run at a time has.
      sha256: the expected hash, lower-case hexadecimal.
      size: bytes, where known. No more are read; without it, no more than 4 GiB.
      progress: called with the number of bytes added (including those that an earlier run left).
      after: the address of the page that has `urls`, for `credentials.find`.

    Raises:
      GoneError: no URL has the file, and at least one server says so.
      UnreachableError: no URL answers.
      DownloadError: one has another file, or there is no room for it.
    """
    if _is_there(destination, sha256, progress):
        return destination
    damaged = f"; the one in {destination.parent} is damaged" if destination.exists() else ""
    require_network(f"{destination.name} (sha256 {sha256}{damaged})")
    part = destination.with_name(destination.name + ".part")
    try:
        with _locked(part, lambda: progress(0)) as out:
            # Another run may have been faster.
            if not _is_there(destination, sha256, progress):
                _complete(urls, out, destination.name, sha256, size, progress, headers, after)
                os.replace(part, destination)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DownloadError(
                f"{part}: {os.strerror(error.errno)}. Free some space, or set MLC_BAZEL_CACHE to a folder with"
                " room, and run the same command again: it resumes."
            ) from error
        if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):
            raise DownloadError(
                f"{part}: cannot lock it ({os.strerror(error.errno)}). Set MLC_BAZEL_CACHE to a folder on another file"
                " system."
            ) from error
        raise
    return destination


def _is_there(destination: Path, sha256: str, progress: Callable[[int], None]) -> bool:
    if not destination.exists() or file_sha256(destination) != sha256:
        return False
    progress(destination.stat().st_size)
    return True


@contextlib.contextmanager
def _locked(part: Path, waiting: Callable[[], object]) -> Iterator[IO[bytes]]:
    """Opens the file that receives a download, for this caller alone. An empty one is removed in the end.

    Args:
      part: the file.
      waiting: called from time to time while another has it; may raise.
    """

    def same() -> bool:
        try:
            return os.path.samestat(os.stat(part), os.fstat(file.fileno()))
        except FileNotFoundError:
            return False

    while True:
        with open(os.open(part, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    waiting()
                    time.sleep(0.1)
            if not same():  # The run that held it has renamed or removed it meanwhile.
                continue
            try:
                yield file
            finally:
                if same() and not os.fstat(file.fileno()).st_size:
                    part.unlink()
            return


def _complete(
    urls: Iterable[str],
    out: IO[bytes],
    name: str,
    sha256: str,
    size: int | None,
    progress: Callable[[int], None],
    headers: Mapping[str, str] | None,
    after: str,
) -> None:
    """Downloads what is missing of a file, until it has the expected hash. Raises what `fetch` does."""
    failures = []
    gone = changed = False
    for url in urls:
        for attempt in range(_TRIES_PER_URL):
            resumed = out.seek(0, os.SEEK_END) > 0
            try:
                _append(url, out, size, progress, headers, after)
            except _TooLargeError as error:
                out.truncate(0)
                failures.append(f"{url}: {error}")
                if not resumed:
                    break
                continue
            except (urllib.error.HTTPError, _TooSlowError) as error:
                failures.append(f"{url}: {reason(error)}")
                gone = gone or (isinstance(error, urllib.error.HTTPError) and error.code in (404, 410))
                break
            except _NETWORK_ERRORS as error:
                failures.append(f"{url}: {reason(error)}")
                time.sleep(0.2 * 2**attempt)
                continue
            # The file as it will be used, not what this process has received.
            out.seek(0)
            digest, found = stream_sha256(out), out.tell()
            if digest == sha256:
                return
            out.truncate(0)
            progress(-found)
            failures.append(f"{url}: expected sha256 {sha256}, found {digest} ({found} bytes)")
            changed = True
            if not resumed:  # Otherwise the resumed part may be at fault: try again from the start.
                break
    kind = DownloadError if changed else GoneError if gone else UnreachableError
    raise kind(f"cannot download {name}:\n  " + "\n  ".join(dict.fromkeys(map(errors.one_line, failures))))


def _append(
    url: str,
    out: IO[bytes],
    size: int | None,
    progress: Callable[[int], None],
    headers: Mapping[str, str] | None,
    after: str,
) -> None:
    """Appends the missing rest to a file. Raises what `open_url` raises, and _TooLargeError."""
    have = out.seek(0, os.SEEK_END)
    progress(have)
    limit = _FILE_BYTES if size is None else size
    too_large = f"expected {'at most ' if size is None else ''}{limit} bytes, found more"
    try:
        if size is not None and have >= size:
            return
        wanted = {**(headers or {}), **({"Range": f"bytes={have}-"} if have else {})}
        with open_url(url, wanted, after=after) as response:
            if have and response.status != 206:  # The server cannot resume: start over.
                out.seek(0)
                out.truncate()
                progress(-have)
                have = 0
            if have + _left(response) > limit:
                raise _TooLargeError(too_large)
            for chunk in _body(response):
                if have + len(chunk) > limit:
                    raise _TooLargeError(too_large)
                out.write(chunk)
                have += len(chunk)
                progress(len(chunk))
        out.flush()
    except BaseException as error:
        progress(-have)
        if isinstance(error, urllib.error.HTTPError) and error.code == 416:
            out.truncate(0)  # The part is longer than the file: it is not part of it.
        raise
