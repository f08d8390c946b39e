"""Runs tools/bazel's launcher with parts of the machine replaced: driver.py <workspace root> <arguments…>.

The environment variable FAKE is a JSON object: upstream (URLs to probe), needed_bytes, disk_bytes (what a build
takes), machine (architecture), file_limit (bytes), apt (folder), no_user (the password database does not have the user)
and sockets (a file that gets a line for each name looked up and each connection). FAKE_NO_LINKS makes the file system
one without hard links.
"""

import errno
import json
import os
import pwd
import resource
import sys

sys.path.insert(0, sys.argv[1])

from fetch import credentials
from fetch.debian import archive as debian
from tools.launcher import doctor, install, profile, start

fake = json.loads(os.environ["FAKE"])
install._NEEDED_BYTES = fake.get("needed_bytes", 1)
doctor._DISK_BYTES = fake.get("disk_bytes", 1)
debian.verified_text = lambda signed, what: signed.decode()
credentials._APT = fake.get("apt", "/nonexistent")
profile.UPSTREAM = fake.get("upstream", {})
if "sockets" in fake:
    log = open(fake["sockets"], "a")  # noqa: SIM115 (open until the end)

    def watch(event: str, arguments: tuple) -> None:
        if event.startswith("socket.") and event not in ("socket.__new__", "socket.gethostname"):
            print(event, *arguments, file=log, flush=True)

    sys.addaudithook(watch)
if "FAKE_NO_LINKS" in os.environ:  # As on a file system without hard links.

    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    setattr(os, "link", refuse)  # noqa: B010 (mypy knows another type)
if "machine" in fake:
    here = (*os.uname()[:4], fake["machine"])
    os.uname = lambda: os.uname_result(here)
if fake.get("no_user"):
    users: dict = {}
    pwd.getpwuid = users.__getitem__
if "file_limit" in fake:  # Writing more than this to one file fails, like on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (fake["file_limit"], fake["file_limit"]))
start.main(sys.argv[2:])
