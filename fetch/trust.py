"""A Java trust store from the machine's CA bundle, because Java has its own list of trusted authorities."""

from __future__ import annotations

import os

from fetch import errors

_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT")
_USUAL = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")


def bundle() -> str | None:
    """The machine's bundle of certificate authorities (PEM), or None if it has none."""
    for candidate in (*map(os.environ.get, _VARIABLES), *_USUAL):
        if candidate and os.path.isfile(candidate):
            return candidate
    return None


def store(cache: str) -> str | None:
    """The path of the trust store for Java, written again if the bundle has changed; None without a bundle.

    Raises:
      errors.UserError: the bundle is damaged.
    """
    source = bundle()
    if not source:
        return None
    status = os.stat(source)
    folder = os.path.join(cache, "trust")
    path = os.path.join(folder, f"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}.jks")
    if not os.path.exists(path):
        os.makedirs(folder, exist_ok=True)
        with open(source, encoding="utf-8", errors="replace") as file:
            try:
                data = encode(certificates(file.read()))
            except ValueError as error:
                raise errors.UserError(damaged(source)) from error
        temporary = f"{path}.{os.getpid()}"
        with open(temporary, "wb") as out:
            out.write(data)
        os.replace(temporary, path)
    return path


def damaged(source: str) -> str:
    """The message about a bundle that cannot be read."""
    return (
        f"{source}: expected certificates in PEM, found a damaged file. Repair it (update-ca-certificates), or set"
        " SSL_CERT_FILE to another one."
    )


def certificates(pem: str) -> list[bytes]:
    """The certificates (DER) in a PEM text, in order and without duplicates. Raises ValueError if one is damaged."""
    import base64
    import re

    bodies = re.findall(r"-----BEGIN (?:TRUSTED )?CERTIFICATE-----(.+?)-----END", pem, re.DOTALL)
    return list(dict.fromkeys(base64.b64decode(body) for body in bodies))


def encode(entries: list[bytes], password: str = "changeit") -> bytes:  # noqa: S107 (Java's own)
    """A key store of trusted certificates in Java's format (JKS, version 2).

    Layout, big-endian: magic 0xFEEDFEED, version, count; per entry tag 2, alias, milliseconds, "X.509", length, DER;
    last SHA-1 of the password in UTF-16, a fixed phrase and everything before.
    """
    import hashlib
    import struct

    def text(value: str) -> bytes:
        return struct.pack(">H", len(value)) + value.encode("ascii")

    parts = [struct.pack(">III", 0xFEEDFEED, 2, len(entries))]
    for number, der in enumerate(entries):
        parts += [
            struct.pack(">I", 2),
            text(f"ca-{number}"),
            struct.pack(">Q", 0),
            text("X.509"),
            struct.pack(">I", len(der)),
            der,
        ]
    data = b"".join(parts)
    return (
        data + hashlib.sha1(password.encode("utf-16-be") + b"Mighty Aphrodite" + data, usedforsecurity=False).digest()
    )
