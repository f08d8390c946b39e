"""Reads a checkpoint's weights one tensor at a time, after comparing all their headers with its configuration.

Upstream notices a fault of a checkpoint when it gets there, after minutes, and keeps whole files in memory. The format
of the files is https://huggingface.co/docs/safetensors: eight bytes with the length of a header, the header in JSON,
and the tensors' bytes.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .checkpoint_config import CheckpointError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"

IGNORE = "MLC_IGNORE_TENSORS"

BITS = {
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}
"""The types of tensors that can be read."""

NUMPY = {"BF16": "bfloat16", "BOOL": "bool", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}
"""Types whose name in NumPy is not made of the letter and the number; ml_dtypes has those that NumPy lacks."""

MAX_HEADER_BYTES = 100_000_000
"""The limit of the safetensors library."""

FAMILIES = {"ggml": "gguf", "gguf": "gguf", "bin": "PyTorch", "pt": "PyTorch", "pth": "PyTorch", "ckpt": "PyTorch"}
"""Maps the end of a file's name to another format of weights."""

REMEDIES = {
    "PyTorch": "mlc-llm reads safetensors only: take those of the same model, or write them with"
    " AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(OTHER)",
    "gguf": "mlc-llm reads safetensors only: convert the file with the rule gguf_checkpoint of //models:defs.bzl",
}

HARMLESS = ("*.rotary_emb.inv_freq",)
"""Tensors that follow from the configuration. Upstream's families name those of their own."""

FOR_IMAGES = ("*vision_tower.*", "*vision_model.*", "*visual.*", "*multi_modal_projector.*", "*embed_vision.*")
"""Tensors that no text passes through."""


@dataclasses.dataclass(frozen=True)
class Tensor:
    """Where a tensor is, from the header of its file."""

    name: str
    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    """Position of its first byte in the file."""

    def read(self) -> np.ndarray:
        """Returns its values. This is the only memory that it takes."""
        import ml_dtypes  # noqa: F401 - registers the types' names with NumPy

        name = NUMPY.get(self.dtype) or self.dtype.replace("F", "float").replace("U", "uint").replace("I", "int")
        values = np.fromfile(self.path, dtype=np.dtype(name), count=math.prod(self.shape), offset=self.start)
        return values.reshape(self.shape)


class Tensors(Mapping[str, np.ndarray]):
    """The tensors of a file by name, each read when it is asked for and not kept."""

    def __init__(self, tensors: list[Tensor]) -> None:
        self.headers = {tensor.name: tensor for tensor in tensors}

    def __getitem__(self, name: str) -> np.ndarray:
        return self.headers[name].read()

    def __iter__(self) -> Iterator[str]:
        return iter(self.headers)

    def __len__(self) -> int:
        return len(self.headers)


def _size(value: Any) -> int:
    """Returns a number of a header, which JSON might also have as a fraction, a text or true."""
    if type(value) is not int or value < 0:
        raise ValueError(value)
    return value


def read_header(path: Path) -> list[Tensor]:
    """Returns the tensors of a safetensors file in the order of their names, that of the safetensors library.

    Raises:
        CheckpointError: the file is not there, cut short, damaged or has a type that cannot be read.
    """
    again = "copy it again"
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            text = file.read(length) if 8 + length <= size and length <= MAX_HEADER_BYTES else b""
    except (OSError, ValueError) as error:
        found = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{path}: expected weights, found: {found}; {again}") from None
    if text[:1] != b"{":
        found = f"{size} bytes" if size < 8 or length <= MAX_HEADER_BYTES else "something else"
        raise CheckpointError(f"{path}: expected a safetensors file with a header, found {found}; {again}")
    try:
        header = json.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: expected a header in JSON, found: {error}; {again}") from None
    header.pop("__metadata__", None)
    tensors = []
    places = []
    for name, entry in header.items():
        try:
            dtype, shape = entry["dtype"], tuple(map(_size, entry["shape"]))
            first, last = map(_size, entry["data_offsets"])
        except (KeyError, TypeError, ValueError):
            raise CheckpointError(
                f"{path}: {name}: expected type, shape and place, found {entry!r:.100}; {again}"
            ) from None
        if not isinstance(dtype, str) or dtype not in BITS:
            raise CheckpointError(
                f"{path}: {name}: expected a type of {', '.join(sorted(BITS))}, found {dtype}; take a checkpoint"
                " in bfloat16 or float16"
            )
        expected = math.prod(shape) * BITS[dtype] // 8
        if last - first != expected:
            raise CheckpointError(
                f"{path}: {name}: expected {expected} bytes for shape {list(shape)} of {dtype}, found {last - first};"
                f" {again}"
            )
        tensors.append(Tensor(name, path, dtype, shape, 8 + length + first))
        places.append((first, last, name))
    end = 0
    for first, last, name in sorted(places):
        if first != end:
            raise CheckpointError(
                f"{path}: {name}: expected each tensor where the one before it ends, at byte {end}, found it at"
                f" {first}; {again}"
            )
        end = last
    end += 8 + length
    if size != end:
        what = "it is cut short" if size < end else "it is damaged"
        raise CheckpointError(f"{path}: expected {end} bytes, found {size}: {what}; {again}")
    return sorted(tensors, key=lambda tensor: tensor.name)


def find(folder: Path) -> Path:
    """Returns the weights of a checkpoint: the index of several safetensors files, else the single one.

    Like transformers, it prefers safetensors to the same weights in another format.

    Raises:
        CheckpointError: there are none, or two sets of them.
    """
    try:
        names = sorted(path.name for path in folder.iterdir() if path.is_file())
    except OSError as error:
        raise CheckpointError(
            f"{folder}: expected a folder with {SINGLE} or {INDEX}, found: {error.strerror}; correct the path"
        ) from None
    found = [name for name in (INDEX, SINGLE) if name in names]
    if found == [INDEX, SINGLE] and set(_weight_map(folder / INDEX).values()) == {SINGLE}:
        found = [INDEX]
    if len(found) == 1:
        return folder / found[0]
    if found:
        raise CheckpointError(
            f"{folder}: expected one set of weights, found {' and '.join(found)}; leave out one, or choose:"
            f" --source {folder / found[0]}"
        )
    for name in names:
        kind = FAMILIES.get(name.rpartition(".")[2])
        # What `Trainer` of transformers leaves in a checkpoint.
        if kind and not re.match("training_args|optimizer|scheduler|rng_", name):
            raise CheckpointError(
                f"{folder / name}: expected {SINGLE} or {INDEX}, found weights of {kind}; {REMEDIES[kind]}"
            )
    parts = [name for name in names if name.endswith(".safetensors")]
    raise CheckpointError(
        f"{folder}: expected {SINGLE} or {INDEX}, found {'only ' + ', '.join(parts[:3]) if parts else 'no weights'};"
        " copy the missing file"
    )


def _weight_map(index: Path) -> dict[str, str]:
    """Returns which file has a tensor, according to the index.

    Raises:
        CheckpointError: it is damaged, or names a file in another folder.
    """
    try:
        found = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = dict(found.items())
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{index}: expected JSON with a weight_map, found: {error!r:.100}; copy it again"
        ) from None
    for file in files.values():
        if not isinstance(file, str) or file in ("", ".", "..") or re.search(r"[/\\\0]", file):
            raise CheckpointError(f"{index}: expected names of files in its folder, found {file!r:.100}; copy it again")
    return files


def read_headers(weights: Path) -> dict[str, Tensor]:
    """Returns all tensors of a checkpoint by name.

    Args:
        weights: an index or a safetensors file.

    Raises:
        CheckpointError: a file is missing or damaged, the index is of other files, or two files have a tensor.
    """
    if weights.suffix != ".json":
        return {tensor.name: tensor for tensor in read_header(weights)}
    files = _weight_map(weights)
    tensors: dict[str, Tensor] = {}
    for file in dict.fromkeys(files.values()):
        for tensor in read_header(weights.parent / file):
            if tensor.name in tensors:
                raise CheckpointError(
                    f"{tensor.path}: {tensor.name}: expected each tensor in one file, found it also in"
                    f" {tensors[tensor.name].path.name}; copy both again"
                )
            tensors[tensor.name] = tensor
    for name, file in files.items():
        if name not in tensors or tensors[name].path.name != file:
            raise CheckpointError(
                f"{weights.parent / file}: expected the tensor {name}, found none; copy it and {INDEX} again"
            )
    return tensors


def ignored(name: str) -> bool:
    """Returns whether the user accepts that a tensor is not used."""
    return any(fnmatch.fnmatchcase(name, glob.strip()) for glob in os.environ.get(IGNORE, "").split(","))


def check_fit(
    weights: Path,
    tensors: Mapping[str, Tensor],
    sources: Mapping[str, list[str]],
    convert: Mapping[str, Callable[..., Any]],
    shapes: Mapping[str, tuple[int, ...] | None],
    harmless: tuple[str, ...] = (),
) -> None:
    """Compares a checkpoint with the model of its configuration.

    Args:
        weights: the index or file, for messages.
        tensors: all tensors.
        sources: maps a parameter of the model to the tensors from which it is made.
        convert: maps a parameter to the function that makes it.
        shapes: maps a parameter to its shape; None is a size that is known later only.
        harmless: globs of further tensors that may be there.

    Raises:
        CheckpointError: tensors are missing, not used, or of a shape that does not fit.
    """
    other = "config.json is of another model, or damaged: copy both again"
    used = {name for names in sources.values() for name in names}
    if missing := sorted(used - set(tensors)):
        raise CheckpointError(
            f"{weights}: expected the tensors of config.json, found none named {_few(missing)}; {other}"
        )
    extra = sorted(
        name
        for name in set(tensors) - used
        if not any(fnmatch.fnmatchcase(name, glob) for glob in (*HARMLESS, *harmless)) and not ignored(name)
    )
    if extra:
        raise CheckpointError(
            f"{tensors[extra[0]].path}: expected only the tensors of config.json, found also {_few(extra)}; mlc-llm"
            f" would compute another model. If you accept that: {IGNORE}={','.join(extra[:3])}, or in a BUILD file:"
            f" ignore_tensors = {json.dumps(extra[:3])}; both take patterns with *"
        )
    done: set[Any] = set()
    for parameter, names in sources.items():
        given = [tensors[name].shape for name in names]
        expected = shapes.get(parameter)
        # Layers are alike, so one of them is enough.
        alike = (re.sub(r"\d+", "0", parameter), tuple(given), expected)
        if expected is None or alike in done or (given == [expected]):
            continue
        done.add(alike)
        found = _converted_shape(convert[parameter], given)
        if found is None or not _equal(found, expected):
            size = ", ".join(map(str, expected))
            raise CheckpointError(
                f"{tensors[names[0]].path}: {', '.join(names)}: expected shapes that make [{size}], the {parameter} of"
                f" config.json, found {' and '.join(str(list(shape)) for shape in given)}; {other}"
            )


def _converted_shape(convert: Callable[..., Any], given: list[tuple[int, ...]]) -> tuple[int, ...] | None:
    """Returns the shape that a conversion makes of tensors with these shapes, None if it cannot."""
    # One byte for each whole tensor.
    arrays = [np.broadcast_to(np.zeros((), np.int8), shape) for shape in given]
    try:
        return tuple(convert(*arrays).shape)
    except (ValueError, IndexError, AssertionError):
        return None


def _equal(found: tuple[int, ...], expected: tuple[Any, ...]) -> bool:
    return len(found) == len(expected) and all(
        not isinstance(size, int) or length == size for length, size in zip(found, expected)
    )


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
