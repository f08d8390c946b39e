"""Reads JSON that every other reader of the same bytes reads alike; standard library only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fetch import errors

# Far above the largest document of a release (2 MB), far below what fills the memory when it is parsed.
MOST_BYTES = 32 << 20


class StrictJSONError(errors.UserError, ValueError):
    """A text is no JSON, or JSON that two readers may take for different things."""


def parse(text: str | bytes, *, any_case: bool = False) -> Any:
    """Reads JSON in which no object has a key twice.

    Args:
        text: bytes must be UTF-8 (RFC 8259, section 8.1).
        any_case: also refuse keys that differ only in case: Go's encoding/json takes one for the other.

    Raises:
        StrictJSONError: it is anything else.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        keys = [key.casefold() if any_case else key for key, _ in pairs]
        if len(set(keys)) < len(pairs):
            twice = next(key for (key, _), folded in zip(pairs, keys) if keys.count(folded) > 1)
            kind = "twice" if [key for key, _ in pairs].count(twice) > 1 else "in two spellings"
            raise StrictJSONError(f"expected each key once, found {twice!r:.100} {kind}")
        return content

    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        return json.loads(decoded, object_pairs_hook=once)
    except StrictJSONError:
        raise
    except (ValueError, RecursionError) as error:
        raise StrictJSONError(f"expected JSON, found {error!s:.200}") from None


def read(path: Path, *, any_case: bool = False, most: int = MOST_BYTES) -> Any:
    """Reads a file as `parse` does.

    Args:
        path: the file; messages have its name.
        any_case: see `parse`.
        most: the bytes that it may have.

    Raises:
        StrictJSONError: it is larger, or no such JSON.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise StrictJSONError(f"{path.name}: expected at most {most} bytes, found more")
    try:
        return parse(content, any_case=any_case)
    except StrictJSONError as error:
        raise StrictJSONError(f"{path.name}: {error}") from None
