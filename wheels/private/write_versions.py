"""Writes a Python module with the versions of wheels.

write_versions --output versions.py TVM=tvm.version TVM_FFI=tvm_ffi.version
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def module(versions: dict[str, str]) -> str:
    """The module's text: a constant for each version, sorted by name."""
    constants = [f'{name} = "{version}"\n' for name, version in sorted(versions.items())]
    return '"""Versions of the wheels of the same build that this package requires."""\n\n' + "".join(constants)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="the module to write")
    parser.add_argument(
        "versions", nargs="+", metavar="NAME=FILE", help="a constant, and the file that holds its version"
    )
    options = parser.parse_args()
    files = dict(each.split("=", 1) for each in options.versions)
    versions = {name: Path(file).read_text(encoding="utf-8").strip() for name, file in files.items()}
    options.output.write_text(module(versions), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
