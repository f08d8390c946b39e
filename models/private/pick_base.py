"""Picks the first base image that has every NVIDIA library which a model for GPUs calls.

    pick_base --library tiny_cuda.so --image "mlc_llm_serve_cuda=device runtime" --output base

Prints which one, and why. The output is a copy of its OCI layout.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from fetch import errors
from src.mlc_llm import library_parts


def pick(calls: list[library_parts.CudaPart], images: dict[Path, set[str]]) -> Path:
    """Returns the first image with all that a library calls.

    Args:
        calls: what the library calls.
        images: OCI layout → the parts that it has, as `tvm_cuda.status()` names them.

    Raises:
        UserError: no image has all, or the library has no code for GPUs.
    """
    if not calls:
        raise errors.UserError("expected CUDA in the library of a model for GPUs, found none")
    needed = {part.name for part in calls}
    for image, parts in images.items():
        if needed <= parts:
            return image
    raise errors.UserError(
        f"expected an image with {_titles(calls)}, which the model calls, found only"
        f" {', '.join(image.name for image in images)}: name one with base = ..."
    )


def _titles(calls: list[library_parts.CudaPart]) -> str:
    return ", ".join(part.title for part in calls)


def image_argument(text: str) -> tuple[Path, set[str]]:
    """Parses LAYOUT=PART,PART."""
    path, separator, parts = text.rpartition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"expected LAYOUT=PARTS, found {text!r}")
    return Path(path), {part for part in parts.split(",") if part}


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", type=Path, required=True, metavar="FILE", help="the compiled model")
    parser.add_argument(
        "--image",
        type=image_argument,
        action="append",
        required=True,
        metavar="LAYOUT=PARTS",
        help="an OCI layout, and the parts of tvm_cuda that it has, with commas; the smallest one first",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="where to copy it to")
    options = parser.parse_args(words)
    try:
        calls = library_parts.calls(options.library)
        picked = pick(calls, dict(options.image))
        shutil.copytree(picked, options.output, dirs_exist_ok=True)
    except (errors.UserError, OSError) as error:
        errors.tell("pick_base", f"{options.library}: {error}")
        return 1
    print(f"{options.library.name} calls {_titles(calls)}: {picked.name} serves it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
