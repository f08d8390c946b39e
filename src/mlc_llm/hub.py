"""Downloads models from a hub by HTTPS and checks them, in place of upstream's code.

Upstream clones the model's repository with git, and writes each weight shard under the name that the repository gives
it, wherever that leads. Here a model is a list of files with plain names: its configuration, the tokenizer's files that
engines know, and the shards in tensor-cache.json, by size and MD5. Nothing else of a repository is requested.

HF://OWNER/REPOSITORY@REVISION pins a commit, a tag, a branch or a reference such as refs/pr/1. A download that was
interrupted goes on where it ended.
Variables, as in huggingface_hub:

    HF_ENDPOINT    the address of a mirror, also with http: in a trusted network
    HF_TOKEN       the token for private and gated models; goes to that address only, and only by https:

MLC_LLM_HOME, MLC_LLM_READONLY_WEIGHT_CACHE and MLC_DOWNLOAD_CACHE_POLICY work as upstream's.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import email.utils
import fcntl
import functools
import json
import logging
import os
import random
import re
import shutil
import socket
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import requests
import tqdm
import urllib3

from .model_check import CONFIG, TOKENIZERS, WEIGHTS, ModelError, check_model, file_md5, read_shards

logger = logging.getLogger(__name__)

ADDRESSES = ("HF://", "https://huggingface.co/")
"""What the address of a model on the hub begins with."""

FORMER_WEIGHTS = "ndarray-cache.json"
"""The name of tensor-cache.json in models of older versions of mlc-llm; the content is the same."""

TOKENIZER_FILES = ("added_tokens.json", "merges.txt", "tokenizer_config.json", *TOKENIZERS)
"""What `mlc_llm gen_config` copies of a tokenizer, and what engines read of it."""

# Names of owners and repositories as the hub has them, and of weight shards: neither hidden nor with a separator.
_OWNER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}")
# A commit, a tag, a branch as "team/fix", or another reference as "refs/pr/1".
_REVISION = re.compile(r"(?=.{1,100}$)[A-Za-z0-9_][A-Za-z0-9._+-]*(/[A-Za-z0-9_][A-Za-z0-9._+-]*)*")
_SHARD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,199}")
_COMMIT = re.compile(r"[0-9a-f]{40}")

# The largest known tokenizer has 35 MB.
_MOST_DOCUMENT = 64 << 20
_CHUNK = 1 << 16
_MOST_REDIRECTS = 5
_TRIES = 6
# The wait after the first try, doubled after each further one; and the longest that a hub may ask for, which counts
# requests for five minutes.
_FIRST_WAIT = 1.0
_LONGEST_WAIT = 300.0
_DOWNLOADS = 4
# For a connection and for each answer of the host; then the least that it sends in a second.
_SECONDS = 30
_SLOWEST = 1 << 10
# Between lines about progress in a log.
_LOG_SECONDS = 10.0

CONVERT = "mlc_llm gen_config and convert_weight in the image mlc_llm_dev, or the rule mlc_model"


class UnavailableError(ModelError):
    """The hub does not answer, or not with the whole model, or it cannot be stored."""


class _TryAgain(Exception):
    """The hub sent less than the file, or something is wrong there for now.

    Args:
        found: what is wrong.
        after: seconds that the hub asks to wait.
    """

    def __init__(self, found: str, after: float = 0.0) -> None:
        super().__init__(found)
        self.after = after


def _answer_in_time(connection: urllib3.connection.HTTPConnection) -> urllib3.response.BaseHTTPResponse:
    """Reads a response's headers, and hangs up if they take too long: a socket's timeout is for each read only.

    Raises:
        TimeoutError: they did.
    """
    late, sock = threading.Event(), connection.sock

    def hang_up() -> None:
        late.set()
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(_SECONDS, hang_up)
    timer.daemon = True
    timer.start()
    try:
        response = urllib3.connection.HTTPConnection.getresponse(connection)
    finally:
        timer.cancel()
    if late.is_set():  # http.client takes the end of what came for the end of the headers.
        raise TimeoutError(f"no complete headers within {_SECONDS} s")
    return response


class _HttpPool(urllib3.HTTPConnectionPool):
    ConnectionCls = type("_Http", (urllib3.connection.HTTPConnection,), {"getresponse": _answer_in_time})


class _HttpsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = type("_Https", (urllib3.connection.HTTPSConnection,), {"getresponse": _answer_in_time})


class _Adapter(requests.adapters.HTTPAdapter):
    """Connects with these pools, also through an HTTP proxy."""

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **options)
        if not proxy.lower().startswith("socks"):
            manager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}
        return manager


class _Session(requests.Session):
    """Leaves redirects to its user. Even if told not to follow one, requests reads its body whole, however long."""

    def __init__(self) -> None:
        super().__init__()
        for scheme in ("http://", "https://"):
            self.mount(scheme, _Adapter())

    def get_redirect_target(self, resp: requests.Response) -> None:
        return None


class _Bearer(requests.auth.AuthBase):
    """Sends a token, and so keeps requests from taking a password out of ~/.netrc."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: Any) -> Any:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def download(model_url: str, num_processes: int = _DOWNLOADS, force_redo: bool | None = None) -> Path:
    """Returns the folder of a model, which it downloads if the cache lacks it.

    It has the arguments of upstream's function, which `install` replaces by this one.

    Args:
        model_url: HF://OWNER/REPOSITORY[@REVISION], or https://huggingface.co/OWNER/REPOSITORY[@REVISION].
        num_processes: how many shards to download at once.
        force_redo: downloads it even if the cache has it; None: as MLC_DOWNLOAD_CACHE_POLICY says.

    Raises:
        ModelError: the address or the model is refused, or the policy forbids the download.
        UnavailableError: the hub does not have the model or does not answer.
    """
    from mlc_llm.support import constants

    owner, repository, revision = parse(model_url)
    # One folder, also for "refs/pr/1"; no revision has a percent sign.
    name = f"{repository}@{urllib.parse.quote(revision, safe='+')}" if revision else repository
    policy = constants.MLC_DOWNLOAD_CACHE_POLICY
    if policy == "OFF":
        raise ModelError(f"{model_url}: expected to download it, found MLC_DOWNLOAD_CACHE_POLICY=OFF; set it to ON")
    for cache in constants.MLC_LLM_READONLY_WEIGHT_CACHE:
        folder = Path(cache) / "hf" / owner / name
        if (folder / CONFIG).is_file():
            return folder
    redo = policy == "REDO" if force_redo is None else force_redo
    folder = Path(constants.MLC_LLM_HOME) / "model_weights/hf" / owner / name
    if folder.exists() and not redo:
        return folder
    if policy == "READONLY":
        raise ModelError(
            f"{model_url}: expected it in {folder}, found nothing; set MLC_DOWNLOAD_CACHE_POLICY to ON, or name its"
            " cache in MLC_LLM_READONLY_WEIGHT_CACHE"
        )
    # No repository has a name with a dot in front.
    partial = folder.with_name(f".{name}.partial")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.with_name(f".{name}.lock")):
            if folder.exists() and not redo:  # Another process was faster.
                return folder
            _Repository(owner, repository, partial, revision or "main").download(max(num_processes, 1))
            check_model(partial)
            if folder.exists():
                shutil.rmtree(folder)
            partial.rename(folder)
    except UnavailableError:
        raise
    except ModelError as error:
        # Shards stay: the next download checks them, and asks only for those that are missing or wrong.
        raise ModelError(f"{model_url}: refused: {error}; what was downloaded is in {partial}") from None
    except OSError as error:
        raise UnavailableError(
            f"{model_url}: expected to store it in {folder.parent}, found: {error.strerror or error}; make room there,"
            " or set MLC_LLM_HOME to a folder to write in"
        ) from None
    return folder


def parse(address: str) -> tuple[str, str, str]:
    """Returns owner, repository and revision of a model's address; the revision is empty if there is none.

    Raises:
        ModelError: the address is malformed.
    """
    rest = next((address[len(begin) :] for begin in ADDRESSES if address.startswith(begin)), "")
    path, at, revision = rest.partition("@")
    parts = path.removesuffix("/").split("/")  # A browser's address line ends with one.
    if len(parts) != 2 or not all(map(_OWNER.fullmatch, parts)) or at and not _REVISION.fullmatch(revision):
        raise ModelError(
            f"{address[:200]!r}: expected HF://OWNER/REPOSITORY or HF://OWNER/REPOSITORY@REVISION, found something"
            " else; correct it"
        )
    return parts[0], parts[1], revision


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Waits until no other process has this lock, then holds it."""
    # In a folder that others can write, a link would lead elsewhere.
    with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _progress(what: str, size: int, have: int) -> Iterator[Callable[[int], object]]:
    """Shows the progress of a download: a bar on a terminal, else lines, because logs show no line before its end.

    Args:
        what: the name of the model.
        size: bytes of all shards.
        have: how many of them an earlier download left.

    Yields:
        A function to call with the number of bytes that came; threads may.
    """
    if sys.stderr.isatty():
        with tqdm.tqdm(total=size, initial=have, unit="B", unit_scale=True, desc=what) as bar:
            yield bar.update
        return
    lock, done, said = threading.Lock(), have, time.monotonic()

    def say(text: str) -> None:
        print(f"{what}: {text}", file=sys.stderr, flush=True)

    def update(count: int) -> None:
        nonlocal done, said
        with lock:
            done += count
            if time.monotonic() - said >= _LOG_SECONDS:
                said = time.monotonic()
                say(f"{done / 1e6:,.1f} of {size / 1e6:,.1f} MB ({done * 100 // max(size, 1)} %)")

    say(f"downloading {(size - have) / 1e6:,.1f} MB" + (f" of {size / 1e6:,.1f} MB, the rest is here" if have else ""))
    yield update
    say("downloaded")


class _Repository:
    """A repository of a model on the hub.

    Args:
        owner: its owner's name.
        name: its name.
        folder: the folder to download into.
        revision: a commit, a tag or a branch.
    """

    def __init__(self, owner: str, name: str, folder: Path, revision: str = "main") -> None:
        self._endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"
        parts = urllib.parse.urlsplit(self._endpoint)
        if parts.scheme not in ("https", "http") or not parts.hostname or parts.username is not None:
            raise UnavailableError(
                "HF_ENDPOINT: expected https://HOST without a login, found something else; correct it"
            )
        self._schemes = ("https",) if parts.scheme == "https" else ("https", "http")
        self._path = f"{owner}/{name}"
        # All files are of the commit that the first one is of, where the hub tells it.
        self._revision = revision
        self._folder = folder
        self._stopped = threading.Event()

    def download(self, at_once: int) -> None:
        """Downloads all files of the model; those whose size and hash are right are there already."""
        if self._folder.is_symlink() or self._folder.exists() and not self._folder.is_dir():
            self._folder.unlink()
        self._folder.mkdir(exist_ok=True)
        config = self._document(CONFIG)
        weights = self._document(WEIGHTS) if config is not None else None
        if weights is None and config is not None:
            weights = self._document(FORMER_WEIGHTS)
        if config is None and self._document("config.json") is not None:
            raise UnavailableError(
                f"{self._endpoint}/{self._path}: expected a model for mlc-llm with {CONFIG}, found a checkpoint with"
                f" config.json; convert it: {CONVERT}"
            )
        if config is None or weights is None:
            raise UnavailableError(
                f"{self._endpoint}/{self._path}: expected {CONFIG} and {WEIGHTS}, found no such files; are name and"
                " revision right?"
            )
        self._write(CONFIG, config)
        self._write(WEIGHTS, weights)
        shards = self._shards()
        keep = {CONFIG, WEIGHTS, *shards}
        for path in self._folder.iterdir():
            if path.name not in keep:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        for name in self._tokenizer_files(config):
            content = self._document(name)
            if content is not None:
                self._write(name, content)
        self._download_shards(shards, at_once)

    def _shards(self) -> dict[str, dict[str, Any]]:
        """Returns the weight shards by name.

        Raises:
            ModelError: a name is not plain, or another file's.
        """
        shards: dict[str, dict[str, Any]] = {}
        taken = {name.lower() for name in (CONFIG, WEIGHTS, *TOKENIZER_FILES)}
        for shard in read_shards(self._folder):
            name = shard["dataPath"]
            if not _SHARD.fullmatch(name):
                raise ModelError(f"{WEIGHTS}: expected plain names of weight shards, found {ascii(name)[:200]}")
            if name.lower() in taken:  # Some file systems see no difference.
                raise ModelError(f"{WEIGHTS}: expected one file of each name, found another {name}")
            taken.add(name.lower())
            shards[name] = shard
        return shards

    def _tokenizer_files(self, config: bytes) -> list[str]:
        """Returns what to ask for of the tokenizer: what the configuration lists, or else all that there may be."""
        try:
            listed = json.loads(config).get("tokenizer_files")
        except (ValueError, RecursionError, AttributeError) as error:
            raise ModelError(
                f"{CONFIG}: expected a JSON object, found another document ({type(error).__name__})"
            ) from None
        known = [name for name in TOKENIZER_FILES if isinstance(listed, list) and name in listed]
        return known or list(TOKENIZER_FILES)

    def _download_shards(self, shards: dict[str, dict[str, Any]], at_once: int) -> None:
        size = sum(shard["nbytes"] for shard in shards.values())
        have = sum(path.stat().st_size for name in shards if (path := self._folder / name).is_file())
        free = shutil.disk_usage(self._folder).free
        if size - have > free:
            raise UnavailableError(
                f"{self._path}: expected room for {size - have} bytes in {self._folder.parent}, found {free}; make room"
            )
        with (
            _progress(self._path, size, have) as progress,
            concurrent.futures.ThreadPoolExecutor(at_once) as pool,
        ):
            futures = [pool.submit(self._shard, name, shard, progress) for name, shard in shards.items()]
            try:
                for future in concurrent.futures.as_completed(futures):
                    future.result()
            except BaseException:
                self._stopped.set()
                pool.shutdown(cancel_futures=True)
                raise

    def _shard(self, name: str, shard: dict[str, Any], progress: Callable[[int], object]) -> None:
        """Downloads one weight shard, or the rest of it."""
        path, size, md5 = self._folder / name, shard["nbytes"], shard.get("md5sum")
        damaged = 0

        def once() -> None:
            nonlocal damaged
            if path.is_symlink():
                path.unlink()
            # Without a hash nothing tells whether the rest is of the same file.
            have = path.stat().st_size if md5 and path.is_file() else 0
            if have < size or not have:
                with self._get(name, {"Range": f"bytes={have}-"} if have else {}) as response:
                    part = response.headers.get("Content-Range", "") if response.status_code == 206 else ""
                    goes_on = have > 0 and part.startswith(f"bytes {have}-")
                    if response.status_code == 416 or response.status_code == 206 and not goes_on:
                        path.unlink(missing_ok=True)
                        raise _TryAgain("another part than the one that was asked for")
                    self._expect(response, name, 206 if goes_on else 200)
                    have = have if goes_on else 0
                    with path.open("ab" if goes_on else "wb") as file:
                        for chunk in self._content(response, name, size - have):
                            file.write(chunk)
                            progress(len(chunk))
                if path.stat().st_size < size:
                    raise _TryAgain(f"{path.stat().st_size} of {size} bytes")
            if md5 and (path.stat().st_size != size or file_md5(path) != md5):
                progress(-path.stat().st_size)
                path.unlink()
                damaged += not have
                if damaged < 2:
                    raise _TryAgain("the rest of another file" if have else "damaged bytes")
                raise ModelError(f"{name}: expected {size} bytes with md5 {md5[:80]!r}, found other ones twice")

        self._tried(name, once)

    def _document(self, name: str) -> bytes | None:
        """Returns the content of a small file; None if the repository has none of this name."""
        content: list[bytes] = []

        def once() -> bool:
            content.clear()
            with self._get(name, {}) as response:
                if response.status_code == 404:
                    return False
                self._expect(response, name, 200)
                content.extend(self._content(response, name, _MOST_DOCUMENT))
                length = response.headers.get("Content-Length", "")
                if length.isdecimal() and int(length) != sum(map(len, content)):
                    raise _TryAgain("a part of it")
            return True

        return b"".join(content) if self._tried(name, once) else None

    def _write(self, name: str, content: bytes) -> None:
        path = self._folder / name
        path.unlink(missing_ok=True)
        path.write_bytes(content)

    def _tried(self, name: str, once: Callable[[], Any]) -> Any:
        """Tries some times, as long as the connection or the hub fails, and waits longer each time."""
        for tried in range(_TRIES):
            try:
                return once()
            except (requests.RequestException, urllib3.exceptions.HTTPError, _TryAgain) as error:
                # A host's words, and addresses with signatures, are in no message.
                found = str(error) if isinstance(error, _TryAgain) else type(error).__name__
                asked = error.after if isinstance(error, _TryAgain) else 0.0
                if tried == _TRIES - 1 or asked > _LONGEST_WAIT:
                    found += f" and to wait {asked:.0f} s" if asked > _LONGEST_WAIT else ""
                    raise UnavailableError(
                        f"{self._endpoint}/{self._path}: expected {name}, found {found}; try again later, which keeps"
                        " what is here, or set HF_ENDPOINT to a mirror"
                    ) from None
            # Servers that start together do not ask again together.
            seconds = asked + _FIRST_WAIT * 2**tried * random.uniform(0.5, 1)  # noqa: S311
            logger.warning("%s: expected %s, found %s; trying again in %.0f s", self._path, name, found, seconds)
            _wait(self._stopped, seconds)

    def _expect(self, response: requests.Response, name: str, status: int) -> None:
        if response.status_code == 429 or response.status_code >= 500:
            raise _TryAgain(f"status {response.status_code}", _retry_after(response.headers))
        if response.status_code != status:
            remedy = "are name and revision right?"
            if response.status_code in (401, 403):
                # The hub answers the same for models that it does not have.
                remedy = (
                    "is the name right? For a private or gated model, accept its terms on its page and set HF_TOKEN to"
                    " a token of your account"
                )
                if os.environ.get("HF_TOKEN", "").strip():
                    remedy = "has the account of HF_TOKEN access to it (is the name right, are its terms accepted)?"
                    if self._schemes != ("https",):
                        remedy = "HF_TOKEN is sent only by https:, set HF_ENDPOINT to such an address"
            raise UnavailableError(
                f"{self._endpoint}/{self._path}: expected {name}, found status {response.status_code}; {remedy}"
            )

    def _content(self, response: requests.Response, name: str, limit: int) -> Iterator[bytes]:
        """Yields what the hub sends, as it sends it.

        Raises:
            ModelError: it is more than the limit.
            _TryAgain: it is too slow.
        """
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise ModelError(f"{name}: expected the file as it is, found an encoded one")
        # What there is; older versions of urllib3 wait until there is as much as asked for.
        read = getattr(response.raw, "read1", response.raw.read)
        start, received = time.monotonic(), 0
        while chunk := read(_CHUNK, decode_content=False):
            received += len(chunk)
            if received > limit:
                raise ModelError(f"{name}: expected at most {limit} bytes more, found that the hub sends on")
            if time.monotonic() - start > 2 * _SECONDS + received / _SLOWEST:
                raise _TryAgain(f"less than {_SLOWEST} bytes per second")
            if self._stopped.is_set():
                raise UnavailableError(f"{name}: not downloaded, because another file was not")
            yield chunk

    @contextlib.contextmanager
    def _get(self, name: str, headers: dict[str, str]) -> Iterator[requests.Response]:
        """Requests a file of the repository, and follows redirects as long as they stay encrypted."""
        revision, file = (urllib.parse.quote(each, safe="+") for each in (self._revision, name))
        url = f"{self._endpoint}/{self._path}/resolve/{revision}/{file}"
        headers = {"Accept-Encoding": "identity", "User-Agent": "mlc-llm", **headers}
        for _ in range(_MOST_REDIRECTS):
            options: dict[str, Any] = {
                "headers": headers,
                "auth": self._login(url),
                "timeout": _SECONDS,
                "stream": True,
            }
            with _Session() as session, session.get(url, **options) as response:
                commit = response.headers.get("X-Repo-Commit", "")
                if _COMMIT.fullmatch(commit) and commit != self._revision:
                    if _COMMIT.fullmatch(self._revision):
                        raise ModelError(f"{name}: expected it of commit {self._revision}, found commit {commit}")
                    self._revision = commit
                if not response.is_redirect:
                    length = response.headers.get("Content-Length", "0")
                    if not re.fullmatch("[0-9]+", length):  # http.client would wait for the end of the connection.
                        raise _TryAgain(f"the Content-Length {length[:30]!a}")
                    yield response
                    return
                to = response.headers["Location"]
            try:
                url = urllib.parse.urljoin(url, to)
                scheme = urllib.parse.urlsplit(url).scheme
            except ValueError:
                url, scheme = to, ""
            if scheme not in self._schemes:
                raise ModelError(f"{name}: expected redirects to https: only, found {ascii(url)[:100]}")
        raise _TryAgain(f"more than {_MOST_REDIRECTS} redirects")

    def _login(self, url: str) -> _Bearer | None:
        """The token, for the hub itself and nothing that it redirects to."""
        token = os.environ.get("HF_TOKEN", "").strip()
        ours, theirs = urllib.parse.urlsplit(self._endpoint), urllib.parse.urlsplit(url)
        return _Bearer(token) if token and theirs[:2] == ours[:2] and theirs.scheme == "https" else None


def _wait(stopped: threading.Event, seconds: float) -> None:
    """Waits, unless the download has failed elsewhere."""
    stopped.wait(seconds)


def _retry_after(headers: Mapping[str, str]) -> float:
    """Returns the seconds that a hub asks to wait, 0 if it does not ask (RFC 9110, section 10.2.3)."""
    asked = headers.get("Retry-After", "").strip()
    if re.fullmatch("[0-9]{1,9}", asked):
        return float(asked)
    try:
        # Both times are the hub's, whatever this machine's clock says.
        until, now = (email.utils.parsedate_to_datetime(each) for each in (asked, headers.get("Date", "")))
        return max((until - now).total_seconds(), 0.0)
    except (TypeError, ValueError, OverflowError):
        return 0.0


def ending_in_a_line(upstream: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps the command `mlc_llm serve`, so that a model that cannot be had is one line, not a traceback."""

    @functools.wraps(upstream)
    def main(*arguments: Any) -> Any:
        try:
            return upstream(*arguments)
        except ModelError as error:
            sys.exit(f"mlc_llm serve: {error}")

    return main


def install() -> None:
    """Replaces upstream's download wherever it is used: engines, `mlc_llm compile` and `mlc_llm package`."""
    from mlc_llm.cli import serve
    from mlc_llm.support import download_cache

    download_cache.download_and_cache_mlc_weights = download
    serve.main = ending_in_a_line(serve.main)
