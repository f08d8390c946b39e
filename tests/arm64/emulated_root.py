"""Runs a program of arm64, and all that it starts, in a folder that is its root.

    python3 emulated_root.py ROOT EMULATOR /bin/sh -c "uname -m"

The kernel starts the emulator by itself for programs of arm64, but only those of this process's user namespace
(binfmt_misc, since Linux 6.7): nothing of the machine changes. Environment and current folder are those that the
variables ENVIRONMENT, a JSON object, and FOLDER say; `run` sets them.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

from oci import enter_root

# An ELF file for AArch64, of any ABI (Linux, Documentation/admin-guide/binfmt-misc.rst). F: the emulator is opened now,
# since its path means nothing in the image.
_MAGIC = r"\x7fELF\x02\x01\x01" + r"\x00" * 9 + r"\x02\x00\xb7\x00"
_MASK = r"\xff" * 7 + r"\x00" + r"\xff" * 8 + r"\xfe\xff\xff\xff"
_HERE = "/proc/sys/fs/binfmt_misc"


def run(
    root: pathlib.Path, emulator: str, *command: str, folder: str, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Runs a program as this one does, and returns what it has printed.

    Args:
        root: the folder that is its root.
        emulator: the path of the emulator.
        command: the program's path below the root, and its arguments.
        folder: its current folder, below the root.
        environment: its variables.
    """
    outside = {
        "ENVIRONMENT": json.dumps(environment),
        "FOLDER": folder,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "TMPDIR": os.environ["TEST_TMPDIR"],
    }
    program = [sys.executable, os.path.abspath(__file__), str(root), emulator, *command]
    return subprocess.run(program, capture_output=True, text=True, env=outside)


def main() -> int:
    root, emulator, *command = sys.argv[1:]
    interpreter = os.path.realpath(emulator)
    try:
        enter_root.own_mounts(own_user=True)
        enter_root.mount("binfmt_misc", _HERE, "binfmt_misc")
        pathlib.Path(_HERE, "register").write_text(f":arm64:M::{_MAGIC}:{_MASK}:{interpreter}:F")
        for folder in ("dev", "proc"):
            os.makedirs(os.path.join(root, folder), exist_ok=True)
            enter_root.mount(f"/{folder}", os.path.join(root, folder), None, enter_root.BIND)
        os.chroot(root)
    except OSError as error:
        print(f"emulated_root: {error}: this needs user namespaces, and Linux 6.7 or newer", file=sys.stderr)
        return 125
    os.chdir(os.environ["FOLDER"])
    os.execve(command[0], command, json.loads(os.environ["ENVIRONMENT"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
