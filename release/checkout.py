"""What git has checked out: the commit, and whether the files are those of the commit and nothing else.

`git status` believes flags and settings of the checkout (assume-unchanged, skip-worktree, info/exclude, filters,
core.fsmonitor). This hashes every file itself and believes the commit and its .gitignore only. Standard library only:
the machine's own Python runs it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess

# No variable may point git at another repository, index or configuration; HOME has the user's safe.directory.
_VARIABLES = ("HOME", "PATH", "TMPDIR", "XDG_CONFIG_HOME")
# Neither the checkout's settings nor its replace refs may run a program or show another commit.
_OPTIONS = ("--no-replace-objects", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null")
# For one command, on files of this machine.
_SECONDS = 600


class NoCheckout(Exception):
    """There is no git, no commit, or the folder is not the root of a checkout; the message says which."""


def git(folder: str, *words: str) -> str:
    """What a git command prints.

    Raises:
        NoCheckout: there is no git, or it fails; the message is git's own.
    """
    program = shutil.which("git")
    if not program:
        raise NoCheckout("git: expected on PATH, found none. To install it: apt-get install git")
    environment = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    command = [program, "-C", folder, *_OPTIONS, *words]
    variables = {**environment, "LC_ALL": "C"}
    try:
        done = subprocess.run(command, env=variables, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        raise NoCheckout(f"git: expected an answer within {_SECONDS} s, found none") from None
    if done.returncode:
        raise NoCheckout(" ".join(done.stderr.decode(errors="replace").split()))
    return os.fsdecode(done.stdout)


def root(folder: str) -> str:
    """The root of the checkout that a folder is in.

    Raises:
        NoCheckout: it is in none.
    """
    return os.path.realpath(git(folder, "rev-parse", "--show-toplevel").rstrip("\n"))


def head(folder: str) -> str:
    """The commit that is checked out.

    Raises:
        NoCheckout: there is none.
    """
    return git(folder, "rev-parse", "--verify", "HEAD^{commit}").strip()


def differences(folder: str) -> list[str]:
    """The paths at which a checkout differs from its commit, sorted: changed, missing and untracked files.

    Files are compared as they are, without the conversions of .gitattributes. Ignored are only files that the commit's
    own root .gitignore names.

    Raises:
        NoCheckout: there is no commit.
    """
    committed = {}
    for entry in git(folder, "ls-tree", "-r", "-z", "--full-tree", "HEAD").split("\0")[:-1]:
        facts, _, path = entry.partition("\t")
        mode, _, digest = facts.split(" ")
        committed[path] = mode, digest
    changed = {
        path for path, (mode, digest) in committed.items() if _found(folder, path, len(digest)) != (mode, digest)
    }
    # Only the root's .gitignore, which is compared above: an untracked one could ignore itself.
    ignored = ["--exclude-from=" + os.path.join(os.path.realpath(folder), ".gitignore")]
    listed = git(folder, "ls-files", "-z", "--cached", "--others", *(ignored if ".gitignore" in committed else []))
    return sorted(changed | (set(listed.split("\0")[:-1]) - committed.keys()))


def _found(folder: str, path: str, digits: int) -> tuple[str, str]:
    """Mode and object name of a file as it is, in git's terms."""
    file = os.path.join(folder, path)
    try:
        status = os.lstat(file)
        if stat.S_ISLNK(status.st_mode):
            mode, content = "120000", os.fsencode(os.readlink(file))
        elif stat.S_ISREG(status.st_mode):
            mode = "100755" if status.st_mode & 0o100 else "100644"
            with open(file, "rb") as opened:
                content = opened.read()
        else:
            return "", ""
    except OSError:
        return "", ""
    digest = hashlib.sha256() if digits == 64 else hashlib.sha1(usedforsecurity=False)
    digest.update(b"blob %d\0" % len(content) + content)
    return mode, digest.hexdigest()
