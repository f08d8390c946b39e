"""Names of images in registries: HOST/NAME:TAG and HOST/NAME@DIGEST (OCI distribution specification, "Pulling
manifests").
"""

from __future__ import annotations

import re

# A host has a dot or a port, or is localhost; this is how Docker tells it from the first part of a name.
HOST = r"(?:localhost|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+|[A-Za-z0-9.-]+(?=:)|\[[0-9a-fA-F:]+\])(?::[0-9]+)?"
NAME = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
TAG = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"
DIGEST = r"sha256:[0-9a-f]{64}"


def on_this_machine(host: str) -> bool:
    """Whether a host, with or without port, is the loopback, where registries speak plain http."""
    return bool(re.fullmatch(r"(localhost|127(\.[0-9]+){3}|\[::1\])(:[0-9]+)?", host))
