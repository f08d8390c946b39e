"""Registry credentials as `podman login` and `docker login` store them.

Formats: containers-auth.json(5), and Docker's config.json.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

# Where each tool keeps them, in containers-auth.json(5)'s order; Docker's file comes last.
_PLACES = [
    ("REGISTRY_AUTH_FILE", ""),
    ("XDG_RUNTIME_DIR", "containers/auth.json"),
    ("XDG_CONFIG_HOME", "containers/auth.json"),
    ("HOME", ".config/containers/auth.json"),
    ("DOCKER_CONFIG", "config.json"),
    ("HOME", ".docker/config.json"),
]


class CredentialsError(Exception):
    """A file with credentials is unusable; the message names it."""


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
