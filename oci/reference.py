"""Names of images in registries: HOST/NAME:TAG and HOST/NAME@DIGEST (OCI distribution specification, "Pulling
manifests").
"""

from __future__ import annotations

import dataclasses
import re

# A host has a dot or a port, or is localhost; this is how Docker tells it from the first part of a name.
HOST = r"(?:localhost|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+|[A-Za-z0-9.-]+(?=:)|\[[0-9a-fA-F:]+\])(?::[0-9]+)?"
NAME = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
TAG = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"
DIGEST = r"sha256:[0-9a-f]{64}"

# The specification leaves the length open; registries take up to 255 characters of host and name.
_MOST = 1024


class ReferenceError(ValueError):
    """A text names no image in a registry."""


@dataclasses.dataclass(frozen=True)
class Reference:
    """An image in a registry, by its tag or by its digest; the other one is empty."""

    host: str
    name: str
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        return f"{self.host}/{self.name}" + (f":{self.tag}" if self.tag else f"@{self.digest}")


def parse(text: str) -> Reference:
    """Reads HOST/NAME:TAG or HOST/NAME@DIGEST.

    Raises:
        ReferenceError: it is neither.
    """
    match = re.fullmatch(f"({HOST})/({NAME})(?::({TAG})|@({DIGEST}))", text) if len(text) <= _MOST else None
    if not match:
        raise ReferenceError(f"expected HOST/NAME:TAG or HOST/NAME@sha256:…, found {text!r:.100}")
    return Reference(match[1], match[2], match[3] or "", match[4] or "")


def on_this_machine(host: str) -> bool:
    """Whether a host, with or without port, is the loopback, where registries speak plain http."""
    return bool(re.fullmatch(r"(localhost|127(\.[0-9]+){3}|\[::1\])(:[0-9]+)?", host))
