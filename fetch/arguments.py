"""Arguments of the commands that people run: one line says what is wrong, instead of a page of usage."""

from __future__ import annotations

import argparse
import os
import pathlib
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """argparse's parser for a `bazel run` target; its first fixed arguments come from the BUILD file and are not shown."""

    def __init__(self, target: str, description: str | None, **kwargs: Any) -> None:
        super().__init__(
            prog=f"tools/bazel run {target} --",
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            # A flag that is cut short would mean another thing once there are two that start so.
            allow_abbrev=False,
            **kwargs,
        )

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; --help lists what there is\n")


def named_path(text: str) -> tuple[str, pathlib.Path]:
    """Reads NAME=PATH, the form in which BUILD files pass images and documents."""
    name, _, path = text.partition("=")
    if not path:
        raise argparse.ArgumentTypeError(f"expected NAME=PATH, found {text!r}")
    return name, pathlib.Path(path)


def user_path(text: str) -> pathlib.Path:
    """A path as the user means it: `bazel run` starts programs in another folder than the user's."""
    return pathlib.Path(os.environ.get("BUILD_WORKING_DIRECTORY", ""), text)
