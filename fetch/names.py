"""The one gate for names from outside that become paths: manifests, indexes and archives are written by others.

Standard library only, as the launcher runs it on the machine's own Python.
"""

from __future__ import annotations

import re

from fetch import errors

# Enough for file names, versions with an epoch and project names of every ecosystem here. A name starts with a letter
# or a digit, so it is never hidden, an option, "." or "..". It has no separator, blank, control or non-ASCII character.
_BASE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~!%@=,:-]{0,199}")
# A path whose parts Bazel also takes as names of targets.
_PART = r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,149}"
_TARGET_PATH = re.compile(rf"(?:{_PART}/){{0,9}}{_PART}")
# Files that Bazel reads, on file systems that ignore case too.
_OF_BAZEL = re.compile(r"(?:build|module|repo|workspace)(?:\.bazel|\.bzlmod)?", re.IGNORECASE)
_SHA256 = re.compile(r"[0-9a-f]{64}")


class UnsafeNameError(errors.UserError):
    """A name from outside is not what it must be to become a path. The message shows it escaped."""


def is_base_name(value: object) -> bool:
    """Says whether `value` is a plain base name, for what leaves others out instead of refusing them."""
    return isinstance(value, str) and bool(_BASE_NAME.fullmatch(value))


def base_name(value: object, what: str) -> str:
    """Returns `value` if it is a plain base name.

    Args:
      value: what a file from outside has; need not be a string.
      what: what the name is for, for the message.

    Raises:
      UnsafeNameError: it is anything else.
    """
    return _checked(_BASE_NAME, value, what, "a plain file name")


def is_target_path(value: object) -> bool:
    """Says whether `value` is a relative path of plain names whose last one can lie next to a BUILD file.

    Every name starts with a letter, a digit or "_" and has only characters of a target; the last one is none that
    Bazel reads itself, such as BUILD or MODULE.bazel.
    """
    if not isinstance(value, str) or not _TARGET_PATH.fullmatch(value):
        return False
    return not _OF_BAZEL.fullmatch(value.rpartition("/")[2])


def sha256(value: object, what: str, prefix: str = "") -> str:
    """Returns the 64 lower-case hexadecimal digits in `value`.

    Args:
      value: what a file from outside has; need not be a string.
      what: what the hash is of, for the message.
      prefix: what must come before the digits: "sha256:" in a digest of OCI.

    Raises:
      UnsafeNameError: it is anything else.
    """
    digits = value[len(prefix) :] if isinstance(value, str) and value.startswith(prefix) else None
    return _checked(_SHA256, digits, what, f"{prefix} and 64 hexadecimal digits".removeprefix(" and "), value)


def _checked(pattern: re.Pattern[str], value: object, what: str, expected: str, shown: object = None) -> str:
    if isinstance(value, str) and pattern.fullmatch(value):
        return value
    text = ascii(value if shown is None else shown)
    raise UnsafeNameError(f"{what}: expected {expected}, found {text[:120]}{'…' if len(text) > 120 else ''}")
