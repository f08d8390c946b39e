"""A hub of models with Hugging Face's HTTP interface: what a repository has, and its files by hash.

Standard library only: the repository rule runs this on the machine's own Python. Variables, as in huggingface_hub:

    HF_ENDPOINT    the hub's address (default: https://huggingface.co): a mirror, or the proxy of a package registry
    HF_TOKEN       the token for gated and private models; goes to that address only, and only by https:

src/mlc_llm/hub.py is the downloader that ships, for compiled models: it knows sizes and MD5, and trusts the hub for the
rest. Here a lock has the SHA-256 of every file.
"""

from __future__ import annotations

import dataclasses
import os
import re
import urllib.parse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fetch import credentials, download, errors, names, strict_json

_DEFAULT = "https://huggingface.co"
_REPOSITORY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}/[A-Za-z0-9_][A-Za-z0-9._-]{0,95}")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_TOKEN = re.compile(r"[!-~]+")


class HubError(errors.UserError):
    """The hub does not answer, lacks something or answers nonsense; the message says what to set."""


@dataclasses.dataclass(frozen=True)
class File:
    """A file of a repository, as the hub describes it.

    Args:
        path: within the repository.
        size: bytes.
        sha256: lower-case hexadecimal; empty for a small file, which the hub keeps in git.
    """

    path: str
    size: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Listing:
    """A revision of a repository.

    Args:
        commit: its id, 40 hexadecimal digits.
        license: as the model's card states it; empty if it does not.
        files: by path, which the hub's users choose: see `names.is_target_path`.
    """

    commit: str
    license: str
    files: Mapping[str, File]


def endpoint() -> str:
    """The hub's address, without a slash at the end.

    Raises:
        errors.UserError: HF_ENDPOINT is not an address.
    """
    address = os.environ.get("HF_ENDPOINT", "").strip().rstrip("/") or _DEFAULT
    parts = urllib.parse.urlsplit(credentials.learn(address))
    if parts.scheme not in ("https", "http") or not parts.hostname or parts.query or parts.fragment:
        raise HubError("HF_ENDPOINT: expected https://HOST, found something else; correct it")
    return parts.geturl()


def headers() -> dict[str, str]:
    """The headers of requests to `endpoint`; fetch/download.py does not send them on to other hosts.

    Raises:
        HubError: HF_TOKEN is no token.
    """
    token = os.environ.get("HF_TOKEN", "").strip()
    if not token or not endpoint().startswith("https:"):
        return {}
    if not _TOKEN.fullmatch(token):  # Otherwise http.client would refuse it, with the token in its message.
        raise HubError("HF_TOKEN: expected one word of ASCII characters, found something else; correct it")
    return {"Authorization": f"Bearer {token}"}


def repository(value: object) -> str:
    """Returns `value` if it is a repository's name: ORGANISATION/NAME.

    Raises:
        HubError: it is anything else.
    """
    if isinstance(value, str) and _REPOSITORY.fullmatch(value) and ".." not in value:
        return value
    raise HubError(f"expected a hub's repository ORGANISATION/NAME, found {ascii(value)[:120]}")


def is_commit(value: object) -> bool:
    """Whether `value` is a commit's full id."""
    return isinstance(value, str) and bool(_COMMIT.fullmatch(value))


def listing(of: str, revision: str) -> Listing:
    """What the hub has of a revision.

    Args:
        of: the repository, ORGANISATION/NAME.
        revision: a branch, a tag or a commit.

    Raises:
        HubError: the hub does not answer, has no such revision, or answers nonsense.
        errors.UserError: HF_ENDPOINT is not an address.
    """
    what = f"{repository(of)} at {ascii(revision)[1:-1]}"
    if not _REVISION.fullmatch(revision):
        raise HubError(f"{what}: expected a branch, a tag or a commit, found another revision")
    url = f"{endpoint()}/api/models/{of}/revision/{urllib.parse.quote(revision, safe='')}?blobs=true"
    try:
        body = download.read(url, {**headers(), "Accept": "application/json"})
    except download.DownloadError as error:
        raise unavailable(what, error) from error
    try:
        content = strict_json.parse(body)
        commit = content["sha"]
        if not is_commit(commit) or (is_commit(revision) and commit != revision):
            raise ValueError(f"the commit {commit!r}")
        files: dict[str, File] = {}
        for each in map(_file, content["siblings"]):
            if files.setdefault(each.path, each) is not each:
                raise ValueError(f"{each.path!r:.100} twice")
        return Listing(commit, _license(content.get("cardData")), files)
    except (AttributeError, KeyError, TypeError, ValueError, names.UnsafeNameError) as error:
        raise HubError(
            f"{what}: expected a description of the repository at {endpoint()}, found {error!r:.200}; is HF_ENDPOINT a"
            " hub?"
        ) from None


def _file(sibling: Mapping[str, Any]) -> File:
    path, size, large = sibling["rfilename"], sibling["size"], sibling.get("lfs")
    if type(path) is not str or type(size) is not int or size < 0:
        raise ValueError(f"{sibling!r}")
    sha256 = names.sha256(large["sha256"], "sha256") if large else ""
    return File(path, size, sha256)


def _license(card: Any) -> str:
    """What a model's card states as its licence; for "other" its name."""
    stated = (card or {}).get("license") or ""
    if stated == "other":
        stated = card.get("license_name") or ""
    return stated if isinstance(stated, str) and re.fullmatch(r"[A-Za-z0-9. +-]{1,80}", stated) else ""


def fetch(
    of: str,
    commit: str,
    path: str,
    sha256: str,
    size: int,
    destination: Path,
    progress: Callable[[int], None] = lambda received: None,
) -> Path:
    """Downloads one file of a commit, verified; what an earlier run left of it is resumed.

    Raises:
        HubError: the hub does not have it, has another one, or does not answer.
        errors.UserError: HF_ENDPOINT is not an address.
    """
    url = f"{endpoint()}/{repository(of)}/resolve/{commit}/{urllib.parse.quote(path)}"
    try:
        return download.fetch([url], destination, sha256, size, progress, headers())
    except download.DownloadError as error:
        if os.environ.get(download.NO_NETWORK):
            raise
        raise unavailable(f"{of} {path}", error) from error


def read(of: str, commit: str, path: str, size: int) -> bytes:
    """The content of a small file, whose hash is unknown.

    Raises:
        HubError: the hub does not have it, has another one, or does not answer.
        errors.UserError: HF_ENDPOINT is not an address.
    """
    url = f"{endpoint()}/{repository(of)}/resolve/{commit}/{urllib.parse.quote(path)}"
    try:
        content = download.read(url, headers(), limit=size)
    except download.DownloadError as error:
        raise unavailable(f"{of} {path}", error) from error
    if len(content) != size:
        raise HubError(f"{of} {path}: expected {size} bytes, found {len(content)}; run the same command again")
    return content


def unavailable(what: str, error: Exception) -> HubError:
    """The error for something that the hub did not give."""
    hint = (
        "set HF_TOKEN to the token of an account that has been granted access, or HF_ENDPOINT to a mirror"
        if re.search(r"HTTP 40[13]\b", str(error))
        else "if the name is right and this machine reaches a mirror only, set HF_ENDPOINT to it"
    )
    # A hub's login is its token.
    return HubError(f"{what}: {str(error).replace(download.LOGIN_HINT, '')}; {hint}")
