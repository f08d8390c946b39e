"""Argument parsing shared by all `bazel run` programs: an error is one line instead of a page of usage."""

from __future__ import annotations

import argparse
import os
import pathlib
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """argparse's parser for a `bazel run` target; --help hides the arguments that the BUILD file passes."""

    def __init__(self, target: str, description: str | None, **kwargs: Any) -> None:
        super().__init__(
            prog=f"tools/bazel run {target} --",
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            # An abbreviation would change its meaning as soon as another flag starts with it.
            allow_abbrev=False,
            **kwargs,
        )

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; --help lists what there is\n")


def named_path(text: str) -> tuple[str, pathlib.Path]:
    """Reads NAME=PATH, as BUILD files pass images and documents."""
    name, _, path = text.partition("=")
    if not path:
        raise argparse.ArgumentTypeError(f"expected NAME=PATH, found {text!r}")
    return name, pathlib.Path(path)


def user_path(text: str) -> pathlib.Path:
    """A path relative to the user's folder: `bazel run` starts programs elsewhere."""
    return pathlib.Path(os.environ.get("BUILD_WORKING_DIRECTORY", ""), text)
