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


# Docker Hub's entry in these files, and the host that answers for it.
_DOCKER_HUB = ("docker.io", "https://index.docker.io/v1/", "registry-1.docker.io")


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
    return _DOCKER_HUB[2] if host == _DOCKER_HUB[0] else host


def login(host: str, config: pathlib.Path, environment: dict[str, str]) -> Login | None:
    """The login for a registry, or None.

    Args:
        host: with its port, as images' names have it.
        config: Docker's config.json; `docker_config` writes one.
        environment: for a credential helper that the file names.

    Raises:
        CredentialsError: the entry is malformed, or the helper failed.
    """
    content = json.loads(config.read_text(encoding="utf-8"))
    keys = (_DOCKER_HUB[1], host) if host == _DOCKER_HUB[0] else (host, f"https://{host}", f"http://{host}")
    for key in keys:
        if entry := content.get("auths", {}).get(key):
            try:
                user, _, password = base64.b64decode(entry.get("auth", ""), validate=True).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError) as error:
                raise CredentialsError(f"{key}: expected base64 of user:password as `auth`, found {error}") from None
            found = Login(user, password, entry.get("identitytoken", ""))
            if found != Login():
                return found
    for key in keys:
        if helper := content.get("credHelpers", {}).get(key) or content.get("credsStore"):
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
    return [path for path in dict.fromkeys(candidates) if path.is_file()]


def advice(host: str, environment: dict[str, str]) -> str:
    """What to do if a registry rejects the credentials."""
    login = f"log in with `podman login {host}` or `docker login {host}`"
    found = files(environment)
    if not found:
        return f"found no file with any; {login}"
    return f"those in {', '.join(map(str, found))} were rejected; {login}"


@contextlib.contextmanager
def docker_config(environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """The environment in which Docker's clients (oras, cosign) see the credentials of all files.

    The most specific file wins. Only the owner can read the merged file, which is deleted afterwards.

    Raises:
        CredentialsError: a file is not JSON.
    """
    merged: dict = {}
    for path in reversed(files(environment)):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            for key in ("auths", "credHelpers"):
                merged.setdefault(key, {}).update(content.get(key, {}).items())
            if content.get("credsStore"):
                merged["credsStore"] = content["credsStore"]
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise CredentialsError(
                f"{path}: expected credentials as `podman login` writes them, found {error}; remove it and log in again"
            ) from None
    folder = tempfile.mkdtemp(prefix="credentials-")
    try:
        target = os.open(os.path.join(folder, "config.json"), os.O_WRONLY | os.O_CREAT, 0o600)
        with open(target, "w", encoding="utf-8") as file:
            json.dump(merged, file)
        yield {**environment, "DOCKER_CONFIG": folder}
    finally:
        shutil.rmtree(folder)
