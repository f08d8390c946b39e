"""Runs a command as another user, on a machine with another name, with files and folders replaced. Uses Linux
namespaces and needs no privilege.

    python3 namespace.py --uid 4242 --gid 4343 --hostname elsewhere --replace /usr/bin/gcc=/dev/null -- COMMAND

The new ids map to this process's own (user_namespaces(7)), so files still belong to this user. Standard library only.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import pathlib
import sys

# <sched.h> and <sys/mount.h>.
_NEWNS, _NEWUTS, _NEWUSER = 0x00020000, 0x04000000, 0x10000000
_BIND, _RECURSIVE, _PRIVATE = 0x1000, 0x4000, 0x40000

# Exit status if the kernel refuses; none of our commands uses it.
REFUSED = 77


class NamespaceError(Exception):
    """The kernel refuses; the message names the step."""


def _call(what: str, name: str, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments):
        raise NamespaceError(f"{what}: {os.strerror(ctypes.get_errno())}")


def enter(
    uid: int | None,
    gid: int | None,
    hostname: str | None,
    replaced: list[tuple[str, str]],
    empty: str,
    hidden: list[str],
) -> None:
    """Puts this process into new namespaces.

    Args:
        uid, gid: ids that it and its children see as theirs; None keeps the current ones.
        hostname: host name that they see; None keeps the current one.
        replaced: (path, other): they see `other` at `path`.
        empty: an empty folder.
        hidden: folders that they see as empty.

    Raises:
        NamespaceError: the kernel does not allow it.
    """
    old_uid, old_gid = os.getuid(), os.getgid()
    _call("new namespaces (user, mount, host name)", "unshare", _NEWUSER | _NEWNS | _NEWUTS)
    pathlib.Path("/proc/self/setgroups").write_text("deny")
    pathlib.Path("/proc/self/uid_map").write_text(f"{old_uid if uid is None else uid} {old_uid} 1")
    pathlib.Path("/proc/self/gid_map").write_text(f"{old_gid if gid is None else gid} {old_gid} 1")
    if hostname is not None:
        name = hostname.encode()
        _call("host name", "sethostname", name, len(name))
    _call("mounts", "mount", b"none", b"/", None, _RECURSIVE | _PRIVATE, None)
    for path, other in replaced + [(folder, empty) for folder in hidden]:
        _call(f"replacing {path}", "mount", os.fsencode(other), os.fsencode(os.path.realpath(path)), None, _BIND, None)


def _pair(text: str) -> tuple[str, str]:
    path, _, other = text.partition("=")
    return path, other


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--uid", type=int, help="user id that the command sees as its own")
    parser.add_argument("--gid", type=int, help="group id that the command sees as its own")
    parser.add_argument("--hostname", help="host name that the command sees")
    parser.add_argument(
        "--replace",
        type=_pair,
        action="append",
        default=[],
        metavar="PATH=OTHER",
        help="show OTHER to the command at PATH; repeated",
    )
    parser.add_argument("--empty", help="an empty folder, for --hide")
    parser.add_argument(
        "--hide", action="append", default=[], metavar="FOLDER", help="folder that the command sees as empty; repeated"
    )
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    try:
        enter(options.uid, options.gid, options.hostname, options.replace, options.empty, options.hide)
    except (NamespaceError, OSError) as error:
        print(f"namespace: {error}", file=sys.stderr)
        return REFUSED
    os.execvp(options.command[0], options.command)


if __name__ == "__main__":
    sys.exit(main())
