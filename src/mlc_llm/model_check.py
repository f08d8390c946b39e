"""Checks a model's files before loading them. Without this, upstream hangs on a broken file or dies from a signal.

As a command it reads every byte, which the start of an engine should not do:

    python -m mlc_llm._mlc_bazel.model_check FOLDER [LIBRARY]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
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
    make_config = f"mlc_llm gen_config CHECKPOINT --output {folder}"
    vocabulary = _read_json(folder / CONFIG, make_config).get("vocab_size", 1)
    if type(vocabulary) is not int or vocabulary < 1:
        raise ModelError(
            f"{folder / CONFIG}: vocab_size: expected a number of tokens, found {json.dumps(vocabulary)[:100]};"
            f" make it: {make_config}"
        )
    convert = _copy_again(folder)
    for shard in read_shards(folder):
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


def read_shards(folder: Path) -> list[dict[str, Any]]:
    """Returns the records of a model's weight shards (dataPath, nbytes and more), without looking for the files.

    Raises:
        ModelError: the folder has no tensor-cache.json, or one that is damaged or leads out of the folder.
    """
    cache = folder / WEIGHTS
    try:
        return _shards(_read_json(cache, f"mlc_llm convert_weight CHECKPOINT --output {folder}"))
    except _RecordError as error:
        raise ModelError(f"{cache}: {error}; {_copy_again(folder)}") from None


def _copy_again(folder: Path) -> str:
    return f"copy it again or make it: mlc_llm convert_weight CHECKPOINT --output {folder}"


class _RecordError(ValueError):
    """A record in tensor-cache.json is damaged."""


def _shards(cache: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the records of weight shards. Upstream copies tensors from the places in them without checking any.

    The format is that of TVM's `src/runtime/vm/tensor_cache_support.cc`.

    Raises:
        _RecordError: one has not the keys and types of the format, names a file in another folder, or has a tensor
            that is not inside its shard or not as large as its shape and type.
    """
    shards = _field(cache, "", "records", list)
    for number, shard in enumerate(shards):
        where = f"records[{number}]"
        path = _field(shard, where, "dataPath", str)
        if path in ("", ".", "..") or re.search(r"[/\\\0]", path):
            raise _RecordError(f"{where}.dataPath: expected the name of a file in this folder, found {path!r}")
        size = _field(shard, where, "nbytes", int)
        if "md5sum" in shard:
            _field(shard, where, "md5sum", str)
        if _field(shard, where, "format", str) != "raw-shard":
            raise _RecordError(f"{where}.format: expected 'raw-shard', found {shard['format']!r}")
        for index, tensor in enumerate(_field(shard, where, "records", list)):
            _check_tensor(tensor, f"{where}.records[{index}]", size)
    return shards


def _check_tensor(tensor: Any, where: str, shard_size: int) -> None:
    """Checks one tensor of a shard with this many bytes."""
    _field(tensor, where, "name", str)
    start, size = _field(tensor, where, "byteOffset", int), _field(tensor, where, "nbytes", int)
    if start + size > shard_size:
        raise _RecordError(
            f"{where}: expected a tensor inside the {shard_size} bytes of its shard, found bytes {start} to"
            f" {start + size}"
        )
    shape, dtype = _field(tensor, where, "shape", list), _field(tensor, where, "dtype", str)
    if len(shape) > 16 or not all(type(length) is int and 0 <= length < 1 << 63 for length in shape):
        raise _RecordError(f"{where}.shape: expected at most 16 sizes, found {str(shape)[:100]}")
    bits = re.fullmatch(r"(?:u?int|b?float)(\d{1,3})(?:_\w+)?", "uint8" if dtype == "bool" else dtype)
    if not bits:
        raise _RecordError(f"{where}.dtype: expected a type of numbers, found {dtype[:100]!r}")
    # Written in half the size: the upper 16 bits of a float32.
    halved = _field(tensor, where, "format", str) == "f32-to-bf16" and dtype == "float32"
    expected = (math.prod(shape) * (16 if halved else int(bits[1])) + 7) // 8
    if size != expected:
        raise _RecordError(f"{where}: expected {expected} bytes for shape {shape} of {dtype}, found {size}")


def _field(record: Any, where: str, key: str, kind: type) -> Any:
    """Returns a value of a record; integers are sizes and not negative."""
    value = record.get(key) if isinstance(record, dict) else None
    if type(value) is not kind or (isinstance(value, int) and value < 0):
        names = {list: "a list", str: "text", int: "a number of bytes"}
        path = f"{where}.{key}".removeprefix(".")
        raise _RecordError(f"{path}: expected {names[kind]}, found {json.dumps(value)[:100]}")
    return value


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
    except (ValueError, RecursionError) as error:
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
