"""Tags that look like versions, and which of them a build may set.

A version's own tag (1.2.3, v1.2.3, 1.2.3-rc1) never moves. The tag of a series (1, v1.2) moves to newer versions only.
"""

from __future__ import annotations

import re

# Wider than any one scheme: a reader takes 1, v1.2, 1.2.3-rc1, 1.2.3rc1 and 1.2.3_build5 for a version.
_LIKE_A_VERSION = re.compile(r"[vV]?[0-9]+(?:[._-].*|\.[0-9]+.*)?")
# Semantic Versioning 2.0.0.
_NUMBER = r"(?:0|[1-9][0-9]*)"
_VERSION = re.compile(rf"({_NUMBER})\.({_NUMBER})\.({_NUMBER})(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?")


def looks_like_version(tag: str) -> bool:
    """Whether a reader takes a tag for a version or a series of versions."""
    return bool(_LIKE_A_VERSION.fullmatch(tag))


def own(version: str) -> set[str]:
    """A version's own tags. Tags have no "+", so build metadata follows "_"."""
    tag = version.replace("+", "_")
    return {tag, f"v{tag}"}


def series(version: str) -> set[str]:
    """The tags of the series that a version belongs to: major, and major and minor. A pre-release belongs to none."""
    match = _VERSION.fullmatch(version)
    if not match or match[4]:
        return set()
    names = {match[1], f"{match[1]}.{match[2]}"}
    return names | {f"v{name}" for name in names}


def is_newer(version: str, than: str) -> bool:
    """Whether a version without pre-release is newer than another of its kind; False if one of them is none."""
    found, other = _VERSION.fullmatch(version), _VERSION.fullmatch(than)
    if not found or not other or found[4] or other[4]:
        return False
    return [int(found[part]) for part in (1, 2, 3)] > [int(other[part]) for part in (1, 2, 3)]
