"""Runs a program in a mount namespace whose root is a folder of unpacked Debian packages, so that it uses nothing from
the host.

    python3 enter_root.py --root FOLDER --bind OUTSIDE=INSIDE -- /usr/sbin/runc.unwrapped --version

A container runtime re-executes itself through /proc/self/exe, so naming a loader on the command line is not enough to
run it. Here its loader is where it expects it. Without root, a user namespace gives the right to mount. Only the
kernel's /dev, /proc and /sys come from the host.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import pathlib
import sys
import tempfile

# From linux/sched.h and linux/mount.h.
_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000
_MS_BIND, _MS_REC, _MS_PRIVATE = 4096, 16384, 1 << 18
BIND = _MS_BIND | _MS_REC
_MNT_DETACH = 2
_SYS_PIVOT_ROOT = 155  # x86-64

_libc = ctypes.CDLL(None, use_errno=True)


def _call(what: str, result: int) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")


def mount(source: str, target: str, kind: str | None, flags: int = 0, options: str = "") -> None:
    """mount(2)."""
    kind_bytes = kind.encode() if kind else None
    _call(
        f"mount {source} on {target}",
        _libc.mount(source.encode(), target.encode(), kind_bytes, ctypes.c_ulong(flags), options.encode()),
    )


def own_mounts(own_user: bool = False) -> None:
    """Gives this process private mounts and the right to add more, as root or through a user namespace.

    Args:
        own_user: whether root gets a user namespace, too: then what it tells the kernel stays in there.

    Raises:
        OSError: the kernel refuses; the message names the step.
    """
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0 and not own_user:
        _call("unshare the mount namespace", _libc.unshare(_CLONE_NEWNS))
    else:
        _call("unshare user and mount namespaces", _libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS))
        pathlib.Path("/proc/self/setgroups").write_text("deny")
        pathlib.Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        pathlib.Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    mount("none", "/", None, _MS_REC | _MS_PRIVATE)


def enter(root: pathlib.Path, binds: list[tuple[str, str]]) -> None:
    """Makes the packages in `root` this process's root, with more folders bound into it.

    Args:
        root: a folder with usr, and maybe lib and lib64.
        binds: pairs of a folder outside and its path inside.

    Raises:
        OSError: the kernel refuses; the message names the step.
    """
    own_mounts()
    new = tempfile.mkdtemp()
    mount("root", new, "tmpfs")
    folders = [(str(root / name), name) for name in ("lib", "lib64", "usr") if (root / name).is_dir()]
    for outside, inside in folders + [(f"/{name}", name) for name in ("dev", "proc", "sys")] + binds:
        target = os.path.join(new, inside.lstrip("/"))
        os.makedirs(target, exist_ok=True)
        mount(os.path.realpath(outside), target, None, BIND)
    for folder in ("etc", "tmp"):
        os.makedirs(os.path.join(new, folder), exist_ok=True)
    # umoci reads it when it writes a configuration for users other than root.
    pathlib.Path(new, "etc/resolv.conf").touch()
    os.mkdir(os.path.join(new, ".before"))
    _call("pivot_root", _libc.syscall(_SYS_PIVOT_ROOT, new.encode(), os.path.join(new, ".before").encode()))
    os.chdir("/")
    _call("detach the former root", _libc.umount2(b"/.before", _MNT_DETACH))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=pathlib.Path, required=True, help="folder of unpacked packages")
    parser.add_argument("--bind", action="append", default=[], metavar="OUTSIDE=INSIDE", help="folder to mount inside")
    parser.add_argument("command", nargs="+", help="absolute path of the program inside, and its arguments")
    arguments = parser.parse_args()
    try:
        enter(arguments.root, [tuple(bind.split("=", 1)) for bind in arguments.bind])
    except OSError as error:
        print(f"enter_root: {error}", file=sys.stderr)
        return 125
    os.execve(
        arguments.command[0],
        arguments.command,
        {"PATH": "/usr/sbin:/usr/bin", "XDG_RUNTIME_DIR": "/tmp", "HOME": "/tmp"},  # noqa: S108 (the root's, private)
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
