"""Prints facts about the Python that runs it, as JSON, for test_python_is_not_the_hosts.py."""

import ctypes  # noqa: F401  loads libffi
import json
import os
import sqlite3  # noqa: F401  loads libsqlite3
import ssl  # noqa: F401  loads libssl
import subprocess
import sys


def main() -> None:
    with open("/proc/self/maps", encoding="utf-8") as maps:
        mapped = sorted({line.split()[-1] for line in maps if "/" in line})
    shown = {
        "executable": sys.executable,
        "mapped": [path for path in mapped if ".so" in path or "bin/" in path],
        "path": sys.path,
        "prefixes": [sys.prefix, sys.exec_prefix, sys.base_prefix],
        "standard_library": os.__file__,
        "version": list(sys.version_info[:2]),
    }
    if "--child" not in sys.argv:
        shown["child"] = json.loads(
            subprocess.run([sys.executable, __file__, "--child"], stdout=subprocess.PIPE, check=True).stdout
        )
    json.dump(shown, sys.stdout)


if __name__ == "__main__":
    main()
