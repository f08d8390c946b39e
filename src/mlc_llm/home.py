"""Checks that TVM and mlc-llm find folders for their caches, which both look for when they are imported."""

from __future__ import annotations

import os
import sys
from pathlib import Path


class HomeError(OSError):
    """A cache has no folder. The message says which variable to set."""


def check() -> None:
    """Raises HomeError if TVM or mlc-llm could not be imported; the command mlc_llm ends with its message instead."""
    try:
        _check()
    except HomeError as error:
        # Python imports a package before it runs its command; until then, -m stands in for the command's path.
        if Path(sys.argv[0]).name == "mlc_llm" or sys.argv[0] == "-m" and "mlc_llm" in sys.orig_argv:
            sys.exit(f"mlc_llm: {error}")
        raise


def _check() -> None:
    if "XDG_CACHE_HOME" not in os.environ:
        try:
            Path.home()
        except RuntimeError:
            raise HomeError("HOME: expected the user's folder, found none; set HOME to a folder to write in") from None
    try:
        from mlc_llm.support import constants  # noqa: F401  # makes mlc-llm's cache
    except OSError as error:
        raise HomeError(
            f"{error.filename}: expected a folder for mlc-llm's cache, found: {error.strerror}; set MLC_LLM_HOME to a"
            " folder to write in"
        ) from None
    except ValueError as error:
        raise HomeError(" ".join(str(error).split())) from None
