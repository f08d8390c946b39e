"""Reads GGUF files that nobody has checked yet: metadata, and tensors as float32 a few rows at a time.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

import gguf
import numpy as np
import numpy.typing as npt

Value = TypeVar("Value", bool, int, float, str)
Number = TypeVar("Number", int, float)

MAX_VALUES = 1 << 22
"""Numbers and texts in a header. A vocabulary of 256 K tokens with its merges has 2 M; each takes about 200 bytes."""

CHUNK = 1 << 20
"""Weights to hold in memory as float32."""


class GgufError(Exception):
    """The file is damaged or unsupported. The message is one line with the part, what was found, and the remedy."""


class _Reader(gguf.GGUFReader):
    """The package's reader, which alone believes every count and offset: here none leads out of the file."""

    _values = 0

    @property
    def _map(self) -> Any:
        """The map of the file under NumPy's array."""
        return self.data.base

    def _get(
        self,
        offset: int,
        dtype: npt.DTypeLike,
        count: int = 1,
        override_order: Literal["I", "S", "<"] | None = None,
    ) -> npt.NDArray[Any]:
        if self.byte_order != "I":
            raise GgufError("expected little-endian numbers, found big-endian ones; convert the model again")
        kind, count = np.dtype(dtype), int(count)
        if int(offset) + kind.itemsize * count > len(self.data):
            raise GgufError(f"expected {kind.itemsize * count} bytes at offset {offset}, found the end of the file")
        self._values += 1
        if self._values > MAX_VALUES:
            raise GgufError(f"expected at most {MAX_VALUES} values in the header, found more")
        # Not a slice of the map, which takes ten times as long.
        return np.frombuffer(self._map, kind, count, int(offset))

    def _get_tensor_info_field(self, orig_offs: int) -> gguf.ReaderField:
        field = super()._get_tensor_info_field(orig_offs)
        name = ascii(bytes(field.parts[1]).decode(errors="replace"))[1:-1][:200]
        if not name:
            raise GgufError(f"expected the name of a tensor at offset {orig_offs}, found an empty one")
        shape, number = [int(size) for size in field.parts[3]], int(field.parts[4][0])
        try:
            kind = gguf.GGMLQuantizationType(number)
        except ValueError:
            raise GgufError(f"tensor {name}: {_TYPES}, found type {number}; {_OTHER_TYPE}") from None
        if kind not in _SUPPORTED:
            raise GgufError(f"tensor {name}: {_TYPES}, found {kind.name}; {_OTHER_TYPE}")
        block, size = gguf.GGML_QUANT_SIZES[kind]
        if not 1 <= len(shape) <= 2 or min(shape) < 1 or shape[0] % block:
            raise GgufError(
                f"tensor {name}: expected one or two dimensions, the first a multiple of {block} for {kind.name},"
                f" found {shape}"
            )
        # Python's integers do not overflow, NumPy's in the package do.
        if math.prod(shape) // block * size + int(field.parts[5][0]) > len(self.data):
            raise GgufError(f"tensor {name}: expected its data in the file, found that it ends beyond")
        return field


def _check_places(reader: gguf.GGUFReader) -> None:
    """Checks that tensors lie one after the other, as llama.cpp requires: none shares bytes with another one.

    Raises:
        GgufError: a tensor is somewhere else.
    """
    expected, alignment = int(reader.data_offset), int(reader.alignment)
    for tensor in reader.tensors:
        if tensor.data_offset != expected:
            start = int(reader.data_offset)
            raise GgufError(
                f"tensor {ascii(tensor.name)[1:-1][:200]}: expected its data at offset {expected - start}, after the"
                f" tensor before it, found {tensor.data_offset - start}: the file is damaged"
            )
        expected += -(-tensor.n_bytes // alignment) * alignment


def _can_dequantize(kind: gguf.GGMLQuantizationType) -> bool:
    """Whether the package turns a type into float32."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    item = {gguf.GGMLQuantizationType.F32: np.float32, gguf.GGMLQuantizationType.F16: np.float16}.get(kind)
    zeros = np.zeros((1, 1), item) if item else np.zeros((1, size), np.uint8)
    try:
        return bool(gguf.dequantize(zeros, kind).shape == (1, block))
    except NotImplementedError:
        return False


_SUPPORTED = frozenset(filter(_can_dequantize, gguf.GGMLQuantizationType))
_TYPES = "expected one of " + ", ".join(sorted(kind.name for kind in _SUPPORTED))
_OTHER_TYPE = "take a file with another quantization"


class GgufFile:
    """A GGUF file.

    Args:
        path: the file.

    Raises:
        GgufError: it is no GGUF file, it is damaged, it is one of several parts, or it has a tensor of an unsupported
          type.
    """

    def __init__(self, path: Path) -> None:
        try:
            reader = _Reader(path)
            self._metadata = {name: field.contents() for name, field in reader.fields.items()}
        except GgufError:
            raise
        except (ArithmeticError, LookupError, RecursionError, ValueError) as error:
            said = ascii(str(error))[1:-1][:200]
            raise GgufError(f"expected a GGUF file, found a damaged one or another format ({said})") from None
        _check_places(reader)
        self.tensors: dict[str, gguf.ReaderTensor] = {tensor.name: tensor for tensor in reader.tensors}
        self._used: set[str] = set()
        if self.get("split.count", int, 1) > 1:
            raise GgufError(
                f"split.count: expected one file, found one of {self._metadata['split.count']}; join them with"
                " llama-gguf-split --merge"
            )

    def get(self, key: str, kind: type[Value], default: Value | None = None) -> Value:
        """Returns a value of the metadata.

        Args:
            key: its name.
            kind: its type; an integer is a float, too.
            default: the value if the file has none; without a default, the file must have one.

        Raises:
            GgufError: it is missing or has another type.
        """
        self._used.add(key)
        value: Any = self._metadata.get(key, default)
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            found = "nothing" if value is None else f"{type(value).__name__} {ascii(value)[:60]}"
            raise GgufError(f"{key}: expected {kind.__name__}, found {found}")
        if isinstance(value, float):
            # 1e-05, as in the configuration that was converted, and not its neighbor 9.999999747378752e-06.
            with np.errstate(over="ignore"):
                single = float(str(np.float32(value)))
            if not math.isfinite(single):
                raise GgufError(f"{key}: expected a finite float32, found {value}")
            value = single
        return value

    def positive(self, key: str, kind: type[Number], default: Number | None = None, limit: float = math.inf) -> Number:
        """Returns a number of the metadata above 0 and below `limit`.

        Raises:
            GgufError: it is missing, has another type or is too small or large.
        """
        value = self.get(key, kind, default)
        if not 0 < value < limit:
            below = "" if limit == math.inf else f" below {limit}"
            raise GgufError(f"{key}: expected a positive number{below}, found {value}")
        return value

    def items(self, key: str, kind: type[Value]) -> list[Value]:
        """Returns a list in the metadata.

        Raises:
            GgufError: it is missing, or an item has another type or is not finite.
        """
        self._used.add(key)
        values = self._metadata.get(key)
        if not isinstance(values, list) or any(type(value) is not kind for value in values):
            raise GgufError(f"{key}: expected a list of {kind.__name__}, found {ascii(values)[:60]}")
        if kind is float and not all(map(math.isfinite, values)):
            raise GgufError(f"{key}: expected finite numbers, found others")
        return values

    def has(self, key: str) -> bool:
        """Whether the metadata has a value."""
        return key in self._metadata

    def unused(self, prefix: str) -> list[str]:
        """Returns the keys with a prefix that nobody asked for."""
        return sorted(key for key in self._metadata if key.startswith(prefix) and key not in self._used)

    def values(self, name: str, order: npt.NDArray[np.intp] | None = None) -> Iterator[npt.NDArray[np.float32]]:
        """Yields a tensor as float32, a few rows at a time.

        Args:
            name: the tensor.
            order: numbers of the rows in the order to return them; default: as in the file.

        Raises:
            GgufError: it has numbers that are not finite.
        """
        tensor = self.tensors[name]
        rows = np.atleast_2d(tensor.data)
        step = max(1, CHUNK * len(rows) // int(tensor.n_elements))
        for start in range(0, len(rows), step):
            part = rows[start : start + step] if order is None else rows[order[start : start + step]]
            values = np.ascontiguousarray(gguf.dequantize(part, tensor.tensor_type), "<f4")
            if not np.isfinite(values).all():
                raise GgufError(f"tensor {name}: expected finite numbers, found others: the file is damaged")
            yield values
