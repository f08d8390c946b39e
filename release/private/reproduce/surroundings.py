"""Records what a build action sees of the host: evidence that two builds ran in different surroundings.

    python3 surroundings.py --output surroundings.json

Runs as a build action (surroundings.bzl), never by hand: what counts is what Bazel's sandbox lets through.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import pathlib
import re
import shutil
import sys
import time

# Programs of a host's toolchain, in any version, and folders of its headers, libraries and modules.
PROGRAMS = re.compile(
    r"(([a-z0-9_]+-)*linux-gnu-)?"
    r"(gcc|g\+\+|cc|c\+\+|cpp|c89|c99|clang|clang\+\+|ld|ld\.(bfd|gold|lld)|gold|as|ar|ranlib|nm|strip|objcopy|objdump|readelf|nvcc|gcc-(ar|nm|ranlib)|make|gmake|cmake|ninja|cargo|rustc)"
    r"(-[0-9.]+)?"
)
FOLDERS = ("/usr/include", "/usr/lib/gcc", "/usr/local/include", "/usr/local/cuda", "/usr/lib/python3/dist-packages")
SEARCHED = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


def toolchain() -> list[str]:
    """Paths of the host's runnable compilers, linkers and the like, and of their folders that are not empty."""
    programs = {
        os.path.realpath(path)
        for folder in SEARCHED
        if os.path.isdir(folder)
        for path in (os.path.join(folder, name) for name in os.listdir(folder) if PROGRAMS.fullmatch(name))
        if shutil.which(path)
    }
    return sorted(programs) + [folder for folder in FOLDERS if os.path.isdir(folder) and os.listdir(folder)]


def output_base(folder: str) -> str:
    """The output base of an action that runs in `folder`; it may be inside another build's.

    >>> output_base("/base/execroot/_main")
    '/base'
    >>> output_base("/base/execroot/_main/_tmp/0/second/sandbox/linux-sandbox/7/execroot/_main")
    '/base/execroot/_main/_tmp/0/second'
    """
    match = re.fullmatch(r"(.*?)(/sandbox/[^/]+/[0-9]+)?/execroot/[^/]+", folder)
    return match[1] if match else folder


def surroundings() -> dict[str, object]:
    """Variation → what this process sees of it, with the names of second_build.VARIATIONS."""
    umask = os.umask(0)
    os.umask(umask)
    now = datetime.datetime.now(datetime.UTC)
    return {
        "clock": now.strftime("%Y-%m-%d"),
        "hostname": os.uname().nodename,
        "locale": os.environ.get("LC_ALL") or os.environ.get("LANG") or "none",
        "output_base": output_base(os.getcwd()),
        "time_zone": time.strftime("%z"),
        "toolchain": toolchain(),
        "umask": f"{umask:03o}",
        "user": f"{os.getuid()}:{os.getgid()}",
        # Inputs are links that finally lead to the sources.
        "workspace": str(pathlib.Path(os.path.realpath(__file__)).parents[3]),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=pathlib.Path, required=True, help="the file to write, JSON")
    arguments = parser.parse_args()
    arguments.output.write_text(json.dumps(surroundings(), indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
