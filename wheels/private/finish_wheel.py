"""Gives a wheel its build id.

    finish_wheel identify --unversioned x-1+mlc2-py3-none-any.whl --pin other=other.version \\
        --identity x.json --version x.version
    finish_wheel write --unversioned x-1+mlc2-py3-none-any.whl --identity x.json --folder dist

`identify` derives the id from content (wheels/finished.py), `write` writes dist/x-1+mlc2.b1a2b3c4d-py3-none-any.whl.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from wheels.finished import FinishedWheel, Identity, WheelError, identify


def pin(option: str) -> tuple[str, Path]:
    """Parses DISTRIBUTION=FILE."""
    distribution, equals, path = option.partition("=")
    if not distribution or not equals or not path:
        raise argparse.ArgumentTypeError(f"expected DISTRIBUTION=FILE, found {option!r}")
    return distribution, Path(path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    identifying = commands.add_parser("identify", help="derive version and pins")
    identifying.add_argument(
        "--pin",
        type=pin,
        action="append",
        default=[],
        metavar="DISTRIBUTION=FILE",
        help="require exactly the version in FILE; repeatable",
    )
    identifying.add_argument(
        "--with",
        type=Path,
        action="append",
        default=[],
        dest="others",
        metavar="WHEEL",
        help="a wheel of the same release for another Python, which gets the same version; repeatable",
    )
    identifying.add_argument("--version", type=Path, required=True, metavar="FILE", help="write the version")
    writing = commands.add_parser("write", help="write the finished wheel")
    writing.add_argument("--folder", type=Path, required=True, help="folder for the wheel")
    for command in (identifying, writing):
        command.add_argument(
            "--unversioned", type=Path, required=True, metavar="WHEEL", help="the wheel as py_wheel assembled it"
        )
        command.add_argument("--identity", type=Path, required=True, metavar="FILE", help="version and pins, JSON")
    options = parser.parse_args()
    try:
        if options.command == "identify":
            identity = identify(
                options.unversioned,
                [f"{name}=={path.read_text(encoding='utf-8').strip()}" for name, path in options.pin],
                options.others,
            )
            identity.write(options.identity)
            options.version.write_text(identity.version + "\n", encoding="utf-8")
        else:
            with FinishedWheel(options.unversioned, Identity.read(options.identity)) as wheel:
                wheel.write_to(options.folder)
    except (WheelError, OSError) as error:
        print(f"finish_wheel: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
