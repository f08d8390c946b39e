"""Who builds, and with which Bazel: only what can be shown. Standard library only: the machine's own Python runs it."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
import urllib.request
import zipfile
from collections.abc import Callable, Mapping
from http.client import HTTPException
from typing import Any

# For what cannot be shown.
UNVERIFIED = "urn:mlc-bazel:unverified"

# GitHub's OpenID Connect provider for workflows.
_ISSUER = "https://token.actions.githubusercontent.com"
_KEYS = _ISSUER + "/.well-known/jwks"
_AUDIENCE = "mlc-bazel-provenance"
_SERVER = "https://github.com/"
# EMSA-PKCS1-v1_5 with SHA-256 (RFC 8017, section 9.2, note 1).
_SHA256_INFO = bytes.fromhex("3031300d060960864801650304020105000420")
_SECONDS = 30
# A word of the server's command line.
_INSTALL_BASE = "--install_base="

Fetch = Callable[[str, Mapping[str, str]], Any]


class BuilderError(Exception):
    """A token was offered, and does not show who builds; the message says why."""


def _fetch(url: str, headers: Mapping[str, str]) -> Any:
    request = urllib.request.Request(url, headers={"User-Agent": "mlc-bazel"})
    for name, value in headers.items():
        # Unredirected: it is for this host.
        request.add_unredirected_header(name, value)
    with urllib.request.urlopen(request, timeout=_SECONDS) as response:
        return json.loads(response.read(2**20))


def identity(environment: Mapping[str, str], revision: str, fetch: Fetch = _fetch) -> str:
    """The builder's URI: the running workflow, if a token that GitHub signed says so, else `UNVERIFIED`.

    Variables such as GITHUB_WORKFLOW_REF show nothing: anyone can set them. A job gets tokens with the permission
    `id-token: write`.

    Args:
        environment: with ACTIONS_ID_TOKEN_REQUEST_URL and ACTIONS_ID_TOKEN_REQUEST_TOKEN in such a job.
        revision: the commit that is built.
        fetch: gets JSON from a URL with headers.

    Raises:
        BuilderError: there is a token, but not one that GitHub signed, for us, now and for this commit.
    """
    url, bearer = (environment.get(f"ACTIONS_ID_TOKEN_REQUEST_{name}", "") for name in ("URL", "TOKEN"))
    if not url or not bearer:
        return UNVERIFIED
    try:
        token = fetch(f"{url}&audience={_AUDIENCE}", {"Authorization": f"Bearer {bearer}"})["value"]
        claims = _verified(token, fetch(_KEYS, {})["keys"])
        expected = {"iss": _ISSUER, "aud": _AUDIENCE, "sha": revision}
        wrong = [
            f"{name}: expected {value}, found {claims.get(name)}"
            for name, value in expected.items()
            if claims.get(name) != value
        ]
        if wrong or claims["exp"] < time.time():
            raise BuilderError(f"the workflow's token is not about this build: {'; '.join(wrong) or 'it has expired'}")
        return _SERVER + str(claims["job_workflow_ref"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, HTTPException) as error:
        raise BuilderError(f"cannot verify the workflow's token: {error!r:.200}") from None


def _verified(token: str, keys: list[dict[str, str]]) -> dict[str, Any]:
    """The claims of a JSON Web Token (RFC 7519), once one of the keys (RFC 7517) has signed it with RS256.

    Raises:
        ValueError, KeyError: none has.
    """
    header, claims, signature = token.split(".")
    facts = json.loads(_bytes(header))
    if facts["alg"] != "RS256":
        raise ValueError(f"expected a token with the algorithm RS256, found {facts['alg']}")
    (key,) = [key for key in keys if key["kid"] == facts["kid"] and key["kty"] == "RSA"]
    modulus, exponent = (int.from_bytes(_bytes(key[name]), "big") for name in ("n", "e"))
    size = (modulus.bit_length() + 7) // 8
    digest = _SHA256_INFO + hashlib.sha256(f"{header}.{claims}".encode()).digest()
    expected = b"\0\1" + b"\xff" * (size - 3 - len(digest)) + b"\0" + digest
    signed = _bytes(signature)
    if len(signed) != size or pow(int.from_bytes(signed, "big"), exponent, modulus).to_bytes(size, "big") != expected:
        raise ValueError("the token's signature is not that of its key")
    content: dict[str, Any] = json.loads(_bytes(claims))
    return content


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def bazel(process: int, proc: str = "/proc") -> str:
    """The Bazel server that a process descends from, as "VERSION sha256:DIGEST", or `UNVERIFIED` if there is none.

    The digest is that of a list in the format of sha256sum: the jars of the server's class path in their order, then
    lib/modules and lib/server/libjvm.so of its Java, each under its base name. It depends on what ran, not on where it
    is installed.

    Args:
        process: for example, that of a workspace status command.
        proc: where procfs is.
    """
    try:
        words, java = _server(process, proc)
        return _described(words, java)
    except (OSError, ValueError, IndexError, zipfile.BadZipFile):
        return UNVERIFIED


def install_base(process: int, proc: str = "/proc") -> str | None:
    """The folder that the Bazel server that a process descends from was started from, or None if there is none."""
    try:
        words, _ = _server(process, proc)
    except (OSError, ValueError, IndexError):
        return None
    return next(word.partition("=")[2] for word in words if word.startswith(_INSTALL_BASE))


def _server(process: int, proc: str) -> tuple[list[str], str]:
    """The command line of the server, and the path of its Java.

    Raises:
        OSError, ValueError, IndexError: there is none.
    """
    while process > 1:
        folder = os.path.join(proc, str(process))
        with open(os.path.join(folder, "cmdline"), "rb") as file:
            words = os.fsdecode(file.read()).split("\0")
        if any(word.startswith(_INSTALL_BASE) for word in words):
            return words, os.path.realpath(os.path.join(folder, "exe"))
        with open(os.path.join(folder, "stat"), encoding="utf-8", errors="replace") as file:
            # proc_pid_stat(5): the name is in parentheses and may have any character; state and parent follow.
            process = int(file.read().rpartition(")")[2].split()[1])
    raise ValueError("no Bazel server")


def _described(words: list[str], java: str) -> str:
    after = [words.index(word) + 1 for word in ("-jar", "-cp", "-classpath") if word in words]
    jars = words[after[0]].split(":")
    home = os.path.dirname(os.path.dirname(java))
    files = [*jars, *(os.path.join(home, name) for name in ("lib/modules", "lib/server/libjvm.so"))]
    listed = "".join(f"{_sha256(file)}  {os.path.basename(file)}\n" for file in files)
    return f"{_version(jars)} sha256:{hashlib.sha256(listed.encode()).hexdigest()}"


def _version(jars: list[str]) -> str:
    for jar in jars:
        with zipfile.ZipFile(jar) as archive:
            if "build-data.properties" in archive.namelist():
                for line in archive.read("build-data.properties").decode().splitlines():
                    if line.startswith("build.label="):
                        return line.partition("=")[2].replace(" ", "-")
    return "unknown"


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
