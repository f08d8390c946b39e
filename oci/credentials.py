"""Registry credentials as `podman login` and `docker login` store them.

Formats: containers-auth.json(5), and Docker's config.json.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

from fetch import errors, programs, strict_json

# Where each tool keeps them, in containers-auth.json(5)'s order; Docker's file comes last.
_PLACES = [
    ("REGISTRY_AUTH_FILE", ""),
    ("XDG_RUNTIME_DIR", "containers/auth.json"),
    ("XDG_CONFIG_HOME", "containers/auth.json"),
    ("HOME", ".config/containers/auth.json"),
    ("DOCKER_CONFIG", "config.json"),
    ("HOME", ".docker/config.json"),
]


# Docker Hub's names, the key of its entry in Docker's file, and the host that answers for it.
_DOCKER_HUB = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
_DOCKER_HUB_KEY = "https://index.docker.io/v1/"
_DOCKER_HUB_API = "registry-1.docker.io"


class CredentialsError(Exception):
    """A file with credentials is unusable; the message names it."""


@dataclasses.dataclass(frozen=True)
class Login:
    """What one registry wants: a user and a password, or an identity token (OAuth 2.0's refresh token)."""

    user: str = ""
    password: str = dataclasses.field(default="", repr=False)
    identity_token: str = dataclasses.field(default="", repr=False)


def api_host(host: str) -> str:
    """The host that serves a registry's API; Docker Hub has another than the one in its images' names."""
    return _DOCKER_HUB_API if host in _DOCKER_HUB else host


def _key(host: str) -> str:
    """The key under which Docker's clients (oras, cosign) look for a registry's entry."""
    return _DOCKER_HUB_KEY if host in _DOCKER_HUB else host


def login(host: str, config: pathlib.Path, environment: dict[str, str]) -> Login | None:
    """The login for a registry, or None.

    Args:
        host: with its port, as images' names have it.
        config: what `docker_config` writes.
        environment: for a credential helper that the file names.

    Raises:
        CredentialsError: the entry is malformed, or the helper failed.
    """
    content, key = json.loads(config.read_text(encoding="utf-8")), _key(host)
    if entry := content.get("auths", {}).get(key):
        try:
            user, _, password = base64.b64decode(entry.get("auth", ""), validate=True).decode().partition(":")
        except (binascii.Error, TypeError, UnicodeDecodeError) as error:
            raise CredentialsError(f"{key}: expected base64 of user:password as `auth`, found {error}") from None
        return Login(user, password, entry.get("identitytoken", ""))
    if helper := content.get("credHelpers", {}).get(key):
        return _ask(helper, key, environment)
    return None


def _ask(helper: str, host: str, environment: dict[str, str]) -> Login | None:
    """What a credential helper knows (protocol: github.com/docker/docker-credential-helpers)."""
    program = f"docker-credential-{helper}"
    try:
        answer = strict_json.parse(programs.run([program, "get"], given=host, environment=environment))
        user, secret = answer["Username"], answer["Secret"]
        if not isinstance(user, str) or not isinstance(secret, str):
            raise TypeError("no text")
    except programs.ProgramError as error:
        # The protocol's way to say that it has none.
        if "credentials not found" in error.output + error.said:
            return None
        reason = " ".join((error.said or error.output).split())
        raise CredentialsError(f"{program}: failed for {host}: {errors.one_line(reason, 500)}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise CredentialsError(f"{program}: expected the credentials of {host}, found {error!r:.200}") from None
    return Login(identity_token=secret) if user == "<token>" else Login(user, secret)


def files(environment: dict[str, str]) -> list[pathlib.Path]:
    """The files that exist, most specific first."""
    candidates = [
        pathlib.Path(environment[name], rest) if rest else pathlib.Path(environment[name])
        for name, rest in _PLACES
        if environment.get(name)
    ]
    return [path for path in dict.fromkeys(candidates) if _is_readable(path)]


def _is_readable(path: pathlib.Path) -> bool:
    """Whether there is a file. After `sudo -u` and `su`, variables name folders that another user closed."""
    try:
        return path.is_file()
    except OSError:
        return False


def advice(repository: str, environment: dict[str, str]) -> str:
    """What to do if a registry rejects the credentials for a repository, or wants some."""
    host = repository.partition("/")[0]
    login = f"log in with `podman login {host}` or `docker login {host}`"
    found = ", ".join(map(str, files(environment)))
    if not found:
        return f"found no file with any; {login}"
    if not _entry(repository, environment):
        return f"found none for {repository} in {found}; {login}"
    return f"those in {found} were rejected; {login}"


def _entry(repository: str, environment: dict[str, str]) -> dict[str, dict]:
    """The one entry that applies to a repository, in the form of Docker's config.json.

    The most specific file that has one counts, and in it the entry for the longest part of the repository's name
    (containers-auth.json(5): HOST/TEAM before HOST). Docker's store for every host (`credsStore`) comes last: it may be
    left over from an engine that is gone.

    Raises:
        CredentialsError: a file is not JSON.
    """
    host, *names = repository.split("/")
    stores = []
    for path in files(environment):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            # First the helper for this host, as for Docker and podman: an entry may be older.
            for key, helper in content.get("credHelpers", {}).items():
                if _names(key, host, []):
                    return {"credHelpers": {_key(host): helper}}
            for count in range(len(names), -1, -1):
                for key, entry in content.get("auths", {}).items():
                    if _names(key, host, names[:count]) and (entry.get("auth") or entry.get("identitytoken")):
                        return {"auths": {_key(host): entry}}
            store = content.get("credsStore")
        except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
            raise CredentialsError(
                f"{path}: expected credentials as `podman login` writes them, found {error}; remove it and log in again"
            ) from None
        if store and shutil.which(f"docker-credential-{store}", path=environment.get("PATH")):
            stores.append(store)
    return {"credHelpers": {_key(host): stores[0]}} if stores else {}


def _names(key: str, host: str, names: list[str]) -> bool:
    """Whether a key names these parts of a repository: HOST/TEAM/NAME as podman writes it, or an old Docker's URL."""
    _, separator, address = key.partition("://")
    parts = [address.partition("/")[0]] if separator else key.split("/")
    return _key(parts[0]) == _key(host) and parts[1:] == names


@contextlib.contextmanager
def docker_config(repository: str, environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """The environment in which Docker's clients (oras, cosign) see the entry for one repository, and no other.

    They know one entry per host, and prefer a helper to it. Only the owner can read the file, which is deleted
    afterwards.

    Args:
        repository: HOST/NAME.
        environment: the user's.

    Raises:
        CredentialsError: a file is not JSON.
    """
    entry = _entry(repository, environment)
    folder = tempfile.mkdtemp(prefix="credentials-")
    try:
        target = os.open(os.path.join(folder, "config.json"), os.O_WRONLY | os.O_CREAT, 0o600)
        with open(target, "w", encoding="utf-8") as file:
            json.dump(entry, file)
        yield {**environment, "DOCKER_CONFIG": folder}
    finally:
        shutil.rmtree(folder)
