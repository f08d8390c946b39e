"""Checks a model's files before loading them. Without this, upstream hangs on a broken file or dies from a signal.

As a command it reads every byte, which the start of an engine should not do:

    python -m mlc_llm._mlc_bazel.model_check FOLDER [LIBRARY]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import re
import struct
import sys
from pathlib import Path
from typing import Any

from . import versions  # type: ignore[attr-defined]  # written by the build

CONFIG = "mlc-chat-config.json"
WEIGHTS = "tensor-cache.json"
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_model")
"""Files that cpp/tokenizers/tokenizers.cc accepts as a tokenizer."""

LIBRARY_SYMBOL = b"__tvm_ffi__library_bin"
"""A symbol in every library for a TVM with tvm_ffi (0.22 or newer). Older libraries have `__tvm_dev_mblob`."""

METADATA_KEY = "tvm_version"
"""The key in a model's metadata for the version of TVM that compiled it. Only this build's mlc-llm writes it."""

ELF_MACHINES = {"aarch64": 183, "x86_64": 62}
"""Maps the output of `uname -m` to ELF's e_machine."""


class ModelError(ValueError):
    """A model cannot be loaded. The message says what was expected, what was found, and the command that fixes it."""


def check_model(folder: Path, library: Path | None = None, hashes: bool = False) -> None:
    """Checks that an engine can load a model.

    Args:
        folder: folder with mlc-chat-config.json, tensor-cache.json, weight shards and tokenizer.
        library: the compiled model.
        hashes: also verify the content of weight shards, which reads all of them.

    Raises:
        ModelError: it cannot; names the first problem.
    """
    if not folder.is_dir():
        raise ModelError(
            f"{folder}: expected the folder of a model, found {'a file' if folder.exists() else 'nothing'}"
        )
    _read_json(folder / CONFIG, f"mlc_llm gen_config CHECKPOINT --output {folder}")
    convert = f"copy it again or make it: mlc_llm convert_weight CHECKPOINT --output {folder}"
    for shard in _read_json(folder / WEIGHTS, f"mlc_llm convert_weight CHECKPOINT --output {folder}").get(
        "records", []
    ):
        path = folder / shard["dataPath"]
        if not path.is_file():
            raise ModelError(f"{path}: expected a weight shard of {shard['nbytes']} bytes, found nothing; {convert}")
        size = path.stat().st_size
        if size != shard["nbytes"]:
            raise ModelError(f"{path}: expected a weight shard of {shard['nbytes']} bytes, found {size}; {convert}")
        if hashes and "md5sum" in shard:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "md5").hexdigest()
            if found != shard["md5sum"]:
                raise ModelError(f"{path}: expected md5 {shard['md5sum']}, found {found}; {convert}")
    if not any((folder / name).is_file() for name in TOKENIZERS):
        raise ModelError(
            f"{folder}: expected a tokenizer ({', '.join(TOKENIZERS)}), found none; copy it there: mlc_llm gen_config"
        )
    if library is not None:
        check_library(library, f"mlc_llm compile {folder / CONFIG} --device cpu --output {library}")


def check_library(library: Path, remedy: str) -> None:
    """Checks that a file is the library of a model without loading it, because a truncated one would kill the process.

    This reads the ELF-64 header and program headers (System V ABI, chapters 4 and 5), and searches the file's bytes for
    symbols by name.

    Args:
        library: the file.
        remedy: the command that makes the library.

    Raises:
        ModelError: it is not the library of a model.
    """
    if not library.is_file():
        raise ModelError(f"{library}: expected the library of a model, found nothing; make it: {remedy}")
    with library.open("rb") as file:
        header = file.read(64)
        if len(header) < 64 or header[:6] != b"\x7fELF\x02\x01":
            raise ModelError(
                f"{library}: expected the library of a model, an ELF file of 64 bits, found {header[:8]!r}; make it:"
                f" {remedy}"
            )
        (machine,) = struct.unpack_from("<H", header, 0x12)
        here = platform.machine()
        if machine != ELF_MACHINES.get(here, machine):
            raise ModelError(
                f"{library}: expected a library for {here}, found one for ELF machine {machine}; make it: {remedy}"
            )
        start, section_start = struct.unpack_from("<QQ", header, 0x20)
        size, count, section_size, section_count = struct.unpack_from("<HHHH", header, 0x36)
        file.seek(start)
        segments = file.read(size * count)
        ends = [
            sum(struct.unpack_from("<Q16xQ", segments, index * size + 8))
            for index in range(len(segments) // size if size else 0)
        ]
        expected = max([start + size * count, section_start + section_size * section_count, *ends])
        if library.stat().st_size < expected:
            raise ModelError(
                f"{library}: expected {expected} bytes, found {library.stat().st_size}: the file is truncated; make it:"
                f" {remedy}"
            )
        file.seek(0)
        content = file.read()
    if LIBRARY_SYMBOL not in content:
        what = "one for an older TVM" if b"__tvm_dev_mblob" in content else "a library without models"
        raise ModelError(
            f"{library}: expected a model compiled for this TVM ({LIBRARY_SYMBOL.decode()}), found {what}; make it:"
            f" {remedy}"
        )
    # The library's data contains the metadata as plain JSON. All builds of a TVM release run each other's models.
    stamp = re.search(rb'"%s": "([^"]*)"' % METADATA_KEY.encode(), content)
    if stamp and _release(stamp[1].decode()) != _release(versions.TVM):
        raise ModelError(
            f"{library}: expected a model compiled for TVM {versions.TVM}, found one for {stamp[1].decode()}; make it"
            f" again: {remedy}"
        )


def _release(version: str) -> str:
    """Returns the public part of a version (PEP 440)."""
    return version.partition("+")[0]


def _read_json(path: Path, remedy: str) -> dict[str, Any]:
    """Reads a JSON object from a file.

    Raises:
        ModelError: there is none.
    """
    if not path.is_file():
        raise ModelError(f"{path}: expected a file of the model, found nothing; make it: {remedy}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path}: expected JSON, found: {error}; make it: {remedy}") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path}: expected a JSON object, found {type(content).__name__}; make it: {remedy}")
    return content


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of a model")
    parser.add_argument("library", type=Path, nargs="?", help="its library")
    options = parser.parse_args()
    try:
        check_model(options.folder, options.library, hashes=True)
    except ModelError as error:
        print(f"model_check: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
