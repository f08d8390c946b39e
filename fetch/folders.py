"""The user's folders; standard library only, and little of it, because the launcher imports it on every run."""

from __future__ import annotations

import os

from fetch import errors


class NoCacheError(errors.UserError):
    """There is no folder for the cache. The message names the variable that helps."""


def home() -> str | None:
    """Returns the user's home folder: $HOME, else the one in the password database, else None.

    A container may run as a user that has neither.
    """
    found = os.environ.get("HOME")
    if not found:
        try:
            import pwd

            found = pwd.getpwuid(os.getuid()).pw_dir
        except (ImportError, KeyError):
            return None
    return found if os.path.isabs(found) else None


def user_name() -> str | None:
    """Returns this user's name in the password database, or None."""
    try:
        import pwd

        return pwd.getpwuid(os.getuid()).pw_name
    except (ImportError, KeyError):
        return None


def cache() -> str:
    """Returns the launcher's cache folder: $MLC_BAZEL_CACHE, else mlc-bazel in the user's cache folder.

    Raises:
      NoCacheError: the user has no home, or the folder's name is not UTF-8, which Java and Bazel need.
    """
    found = os.environ.get("MLC_BAZEL_CACHE")
    if found:
        found = os.path.abspath(found)
    else:
        base = os.environ.get("XDG_CACHE_HOME")
        if not base or not os.path.isabs(base):  # The specification says to ignore a relative one.
            user = home()
            if not user:
                raise NoCacheError(
                    "no folder for the cache: HOME is not the path of a folder. Set MLC_BAZEL_CACHE to a folder that"
                    " you can write."
                )
            base = os.path.join(user, ".cache")
        found = os.path.join(base, "mlc-bazel")
    try:
        os.fsencode(found).decode("utf-8")
    except UnicodeDecodeError:
        raise NoCacheError(
            f"{os.fsencode(found).decode('utf-8', 'backslashreplace')}: expected a folder whose name is UTF-8. Set"
            " MLC_BAZEL_CACHE to another one."
        ) from None
    return found
