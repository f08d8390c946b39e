"""Asks a registry what a tag names, and tells a free tag from a question that was not answered.

The clients (oras, skopeo) only print text for both, and their wording varies. This reads the status and the error code
(OCI distribution specification, "Pulling manifests" and "Error Codes").
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import pathlib
import re
import ssl
import urllib.error
import urllib.parse
import urllib.request
from typing import IO

from fetch import download, errors, strict_json
from fetch.credentials import origin
from oci import credentials

_MANIFESTS = ", ".join(
    [
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    ]
)
# What a registry calls a tag or a repository that it does not have: the distribution specification, and Harbor.
_FREE = frozenset({"MANIFEST_UNKNOWN", "NAME_UNKNOWN", "NOT_FOUND"})
_SECONDS = 60
# Registries accept manifests up to 4 MiB.
_LARGEST = 16 * 2**20
# The form of a registry's error codes; the rest is not repeated in messages.
_CODE = re.compile(r"[A-Z_]{1,64}")
# It becomes a part of a header.
_TOKEN = re.compile(r"[ -~]+")
_PARAMETER = re.compile(r'([a-z_]+)="([^"]*)"')


class LookupFailed(Exception):
    """The registry did not answer; the message has its status and error code, or what the network said."""


class NoRegistry(Exception):
    """Something answered 404 that is not the registry's own word for a free tag."""


def tagged_digest(repository: str, tag: str, plain: bool, environment: dict[str, str]) -> str | None:
    """The digest that a tag names, or None if the registry itself says that the tag is free.

    Args:
        repository: HOST/NAME.
        tag: to look up.
        plain: speak http instead of https.
        environment: with DOCKER_CONFIG, as `credentials.docker_config` sets it.

    Raises:
        LookupFailed, NoRegistry: any other answer, or none.
        credentials.CredentialsError: see `credentials.login`.
    """
    host, name, api = _place(repository, plain)
    url = f"{api}/manifests/{tag}"
    try:
        body = _get(url, "")
        if isinstance(body, urllib.error.HTTPError):
            if body.code == 401:
                body = _get(url, _authorization(body, url, host, name, plain, environment))
            if isinstance(body, urllib.error.HTTPError):
                _check_that_it_says_free(body, host)
                return None
    except urllib.error.HTTPError as error:
        raise LookupFailed(f"response status code {error.code} from {errors.one_line(error.url, 200)}") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise LookupFailed(errors.one_line(str(getattr(error, "reason", error)) or repr(error), 300)) from None
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def check_push(repository: str, plain: bool, environment: dict[str, str]) -> None:
    """Asks a registry to begin an upload, as every push does, and cancels it.

    Args:
        repository, plain, environment: see `tagged_digest`.

    Raises:
        LookupFailed: the registry does not let these credentials push to the repository, or does not answer.
        credentials.CredentialsError: see `credentials.login`.
    """
    host, name, api = _place(repository, plain)
    url, authorization = f"{api}/blobs/uploads/", ""
    try:
        try:
            begun = _begin(url, "")
        except urllib.error.HTTPError as error:
            if error.code != 401:
                raise
            authorization = _authorization(error, url, host, name, plain, environment, "pull,push")
            begun = _begin(url, authorization)
    except urllib.error.HTTPError as error:
        raise LookupFailed(f"response status code {error.code}: {', '.join(_codes(error)) or error.reason}") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise LookupFailed(errors.one_line(str(getattr(error, "reason", error)) or repr(error), 300)) from None
    if origin(begun) == origin(url):
        request = urllib.request.Request(begun, method="DELETE")
        if authorization:
            request.add_unredirected_header("Authorization", authorization)
        # Registries forget uploads that nothing follows.
        with contextlib.suppress(OSError, ValueError, http.client.HTTPException), _open(request):
            pass


def _begin(url: str, authorization: str) -> str:
    """Begins an upload; returns its address."""
    request = urllib.request.Request(url, data=b"", method="POST")
    if authorization:
        request.add_unredirected_header("Authorization", authorization)
    with _open(request) as response:
        return urllib.parse.urljoin(url, response.headers.get("Location", ""))


def _place(repository: str, plain: bool) -> tuple[str, str, str]:
    """The host and name of a repository, and the address of its API."""
    host, _, name = repository.partition("/")
    if host == "docker.io" and "/" not in name:
        name = f"library/{name}"
    return host, name, f"{'http' if plain else 'https'}://{credentials.api_host(host)}/v2/{name}"


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirect that leaves encryption: what it leads to would say what the tag names."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if req.type == "https" and urllib.parse.urlsplit(newurl).scheme != "https":
            return None
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(request: urllib.request.Request) -> http.client.HTTPResponse:
    opener = download.paced(ssl.create_default_context(), _Redirects)
    answer: http.client.HTTPResponse = opener.open(request, timeout=_SECONDS)
    return answer


def _get(url: str, authorization: str) -> bytes | urllib.error.HTTPError:
    request = urllib.request.Request(url, headers={"Accept": _MANIFESTS})
    if authorization:
        # Unredirected: it is for this host.
        request.add_unredirected_header("Authorization", authorization)
    try:
        with _open(request) as response:
            body: bytes = response.read(_LARGEST + 1)
            if response.length and len(body) <= _LARGEST:
                raise ValueError(f"the connection broke: {len(body)} bytes came, and {response.length} did not")
    except urllib.error.HTTPError as error:
        return error
    if len(body) > _LARGEST:
        raise ValueError(f"{url}: expected a manifest of at most {_LARGEST} bytes, found more")
    return body


def _codes(answer: urllib.error.HTTPError) -> list[str]:
    """The registry's error codes."""
    try:
        said = [str(error["code"]) for error in strict_json.parse(answer.read(_LARGEST))["errors"]]
        return [code for code in said if _CODE.fullmatch(code)][:10]
    except (OSError, ValueError, KeyError, TypeError, http.client.HTTPException):
        return []


def _check_that_it_says_free(answer: urllib.error.HTTPError, host: str) -> None:
    codes = _codes(answer)
    if answer.code != 404:
        raise LookupFailed(
            f"response status code {answer.code}: {', '.join(codes) or errors.one_line(str(answer.reason), 100)}"
        )
    if not _FREE.intersection(codes):
        raise NoRegistry(
            f"expected the tag's manifest, or for a free tag 404 with {' or '.join(sorted(_FREE))}, found 404 with"
            f" {', '.join(codes) or 'no error code'}: look at what answers for {host}"
        )


def _authorization(
    answer: urllib.error.HTTPError,
    url: str,
    host: str,
    name: str,
    plain: bool,
    environment: dict[str, str],
    access: str = "pull",
) -> str:
    """The Authorization header that a 401 asks for: Basic (RFC 7617) or Bearer (the distribution project's "token").

    Raises:
        LookupFailed: there are no credentials, the challenge is none of the two, or it comes from elsewhere than `url`.
    """
    # The target of a redirect must not say where the password of the registry is sent.
    if origin(answer.url) != origin(url):
        raise LookupFailed(f"{host} redirects to {origin(answer.url)[1]}, which wants a login: none is sent")
    scheme, _, rest = (answer.headers.get("WWW-Authenticate") or "").partition(" ")
    login = credentials.login(host, pathlib.Path(environment["DOCKER_CONFIG"], "config.json"), environment)
    basic = ""
    if login and login.user:
        basic = "Basic " + base64.b64encode(f"{login.user}:{login.password}".encode()).decode()
    if scheme.lower() == "basic" and basic:
        return basic
    parameters = dict(_PARAMETER.findall(rest))
    realm = parameters.get("realm", "")
    if scheme.lower() != "bearer" or not realm.startswith(("https:", "http:") if plain else "https:"):
        raise LookupFailed("response status code 401: credential not found")
    asked = {"service": parameters.get("service", ""), "scope": parameters.get("scope", f"repository:{name}:{access}")}
    if login and login.identity_token:
        form = {"grant_type": "refresh_token", "client_id": "mlc-bazel", "refresh_token": login.identity_token}
        request = urllib.request.Request(realm, data=urllib.parse.urlencode(form | asked).encode())
    else:
        separator = "&" if urllib.parse.urlsplit(realm).query else "?"
        request = urllib.request.Request(realm + separator + urllib.parse.urlencode(asked))
        if basic:
            request.add_unredirected_header("Authorization", basic)
    with _open(request) as response:
        answer = strict_json.parse(response.read(_LARGEST))
    token = (answer.get("token") or answer.get("access_token")) if isinstance(answer, dict) else None
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise ValueError(f"{realm}: expected a token, found {'none' if token is None else 'another thing'}")
    return f"Bearer {token}"
