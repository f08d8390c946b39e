"""Converts a checkpoint's weights in little memory, after checking them.

Upstream keeps a whole file of the checkpoint in memory and copies each tensor up to seven times. Here a tensor is read
when it is its turn, and its bytes are encoded, written and hashed in blocks. The files are those of upstream, byte for
byte.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import tqdm
from tvm.contrib import tvmjs
from tvm.runtime import DataType

import tvm

from . import checkpoint_files
from .after_import import after_import
from .checkpoint_files import FOR_IMAGES, Tensors, check_fit, find, read_header, read_headers

logger = logging.getLogger(__name__)

BLOCK = 1 << 20
"""Numbers to encode at once."""


SLICE = 32 << 20
"""Bytes of a weight to quantize at once."""


def as_numpy(tensor: Any) -> np.ndarray:
    """Returns the values of a tensor on the CPU, without copying them where NumPy has the type."""
    try:
        return np.from_dlpack(tensor)
    except (BufferError, RuntimeError, TypeError):
        return tensor.numpy()


class _Kept:
    """A converted tensor that is already on the CPU, where upstream would copy it to, and that only one may take.

    Upstream's variables hold their last tensor while they wait for the next.
    """

    def __init__(self, tensor: Any) -> None:
        self._tensor = tensor
        self.shape = tensor.shape
        self.dtype = tensor.dtype

    def copyto(self, _device: Any) -> _Kept:
        return self

    def take(self) -> Any:
        tensor, self._tensor = self._tensor, None
        return tensor


def load_parameter(loader: Any, name: str, device: Any) -> Any:
    """Makes a parameter of the model of the tensors that upstream's mapping names, and holds on to none of them."""
    names = loader.extern_param_map.param_map[name]
    for path in {loader.torch_to_path[source] for source in names} - set(loader.cached_files):
        loader._load_file(path)
    with loader.stats.timer("map_time_sec"):
        # No variable holds the tensors.
        values = loader.extern_param_map.map_func[name](
            *(loader.cached_files[loader.torch_to_path[source]][source] for source in names)
        )
    return tvm.runtime.tensor(values, device=device) if device else tvm.runtime.tensor(values)


def load(loader: Any, device: Any, preshard_funcs: Mapping[str, Any] | None = None) -> Iterator[tuple[str, Any]]:
    """Yields all parameters of the model, quantized, and counts them on stderr.

    Replaces HuggingFaceLoader.load, which holds a tensor while it makes the next.
    """
    from mlc_llm.loader import huggingface_loader
    from mlc_llm.support import preshard

    names = huggingface_loader._loading_order(loader.extern_param_map, loader.torch_to_path)
    for name in tqdm.tqdm(names, unit="tensor", mininterval=1):
        for part, tensor in loader._load_or_quantize(name, load_parameter(loader, name, device), device):
            if preshard_funcs and part in preshard_funcs:
                for shard, piece in enumerate(preshard_funcs[part](tensor)):
                    yield preshard._sharded_param_name(part, shard), piece
            else:
                yield part, _Kept(tensor) if tensor.device == tvm.cpu() else tensor
            del tensor
    loader.stats.log_time_info("HF")
    loader.stats.log_mem_usage()


def load_file(upstream: Callable[..., None]) -> Callable[..., None]:
    """Wraps HuggingFaceLoader._load_file: of a safetensors file only the header is read."""

    @functools.wraps(upstream)
    def load(loader: Any, path: Path) -> None:
        if path.suffix != ".safetensors":
            upstream(loader, path)
            return
        loader.cached_files[path] = Tensors(read_header(path))
        for tensor in loader.cached_files[path].headers.values():
            if tensor.name not in loader.extern_param_map.unused_params:
                loader.stats.total_param_num += int(np.prod(tensor.shape, dtype=np.int64))

    return load


def rows_at_once(rows: int, row_bytes: int, limit: int = SLICE) -> int:
    """Returns how many rows to quantize at once: one number of them, if possible, because each shape is compiled."""
    most = max(1, min(rows, limit // max(1, row_bytes)))
    even = next(count for count in range(most, 0, -1) if rows % count == 0)
    return even if even * 4 >= most else most


def quantize_in_slices(upstream: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    """Wraps GroupQuantize.quantize_weight, whose temporary arrays are four times as large as the weight.

    A group is part of a row, so some rows at a time give the same numbers.
    """

    @functools.wraps(upstream)
    def quantize_weight(quantization: Any, weight: Any, axis: int = -1, output_transpose: bool = False) -> list[Any]:
        rows, *others = map(int, weight.shape)
        row_bytes = math.prod(others) * DataType(weight.dtype).itemsize
        at_once = rows_at_once(rows, row_bytes)
        if weight.device != tvm.cpu() or output_transpose or axis in (0, -len(weight.shape)) or at_once == rows:
            return upstream(quantization, weight, axis, output_transpose)
        values = as_numpy(weight)
        whole: list[np.ndarray] = []
        for start in range(0, rows, at_once):
            part = tvm.runtime.tensor(values[start : start + at_once])
            for number, made in enumerate(map(as_numpy, upstream(quantization, part, axis, output_transpose))):
                if not start:
                    whole.append(np.empty((rows, *made.shape[1:]), made.dtype))
                whole[number][start : start + at_once] = made
        return [tvm.runtime.tensor(array) for array in whole]

    return quantize_weight


class Shards:
    """Writes the shards of tvmjs.dump_tensor_cache, with the same content."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        self._pending: list[dict[str, Any]] = []
        self._blocks: list[bytes] = []
        self._size = 0
        self.records: list[dict[str, Any]] = []

    def add(self, record: dict[str, Any], blocks: Iterator[Any]) -> None:
        """Adds a tensor.

        Args:
            record: its entry in tensor-cache.json, with nbytes and without byteOffset.
            blocks: its bytes.
        """
        size = record["nbytes"]
        if self._size + size >= self._limit:
            if size * 2 >= self._limit:
                self._write([{**record, "byteOffset": 0}], size, blocks)
                return
            self.finish()
        self._pending.append({**record, "byteOffset": self._size})
        self._blocks += [bytes(block) for block in blocks]
        self._size += size

    def finish(self) -> None:
        """Writes the tensors that share a shard."""
        if self._size:
            self._write(self._pending, self._size, iter(self._blocks))
        self._pending, self._blocks, self._size = [], [], 0

    def _write(self, tensors: list[dict[str, Any]], size: int, blocks: Iterator[Any]) -> None:
        name = f"params_shard_{len(self.records)}.bin"
        digest = hashlib.md5(usedforsecurity=False)
        with (self._folder / name).open("wb") as file:
            for block in blocks:
                digest.update(block)
                file.write(block)
        self.records.append(
            {
                "dataPath": name,
                "format": "raw-shard",
                "nbytes": size,
                "records": tensors,
                "md5sum": digest.hexdigest(),
            }
        )


def encode(values: np.ndarray, half: bool) -> Iterator[Any]:
    """Yields the bytes of an array in blocks.

    Args:
        values: the array.
        half: whether to round each float32 to a bfloat16.
    """
    flat = values.reshape(-1)
    for start in range(0, flat.size, BLOCK):
        block = flat[start : start + BLOCK]
        yield (tvmjs._convert_f32_to_bf16(block) if half else block).view(np.uint8).data


def dump(
    parameters: Iterator[tuple[str, Any]],
    cache_dir: str,
    encode_format: str = "f32-to-bf16",
    meta_data: Callable[[], dict[str, Any]] | None = None,
    shard_cap_mb: int = 32,
    show_progress: bool = False,
) -> None:
    """Writes converted tensors, in place of tvmjs.dump_tensor_cache, whose arguments it has."""
    folder = Path(cache_dir)
    folder.mkdir(parents=True, exist_ok=True)
    shards = Shards(folder, shard_cap_mb << 20)
    halved = False
    names = set()
    # Writing and hashing one tensor while the next is read; a large one would wait for memory.
    with ThreadPoolExecutor(1) as pool:
        last: Future[None] | None = None
        for name, tensor in parameters:
            if name in names:
                raise ValueError(f"Duplicate name {name} found in the cache.")
            names.add(name)
            dtype = str(tensor.dtype)
            values = as_numpy(tensor.take() if isinstance(tensor, _Kept) else tensor)
            half = encode_format == "f32-to-bf16" and dtype == "float32"
            halved |= half
            record = {
                "name": name,
                "shape": [int(length) for length in tensor.shape],
                "dtype": dtype,
                "format": encode_format,
                "nbytes": values.nbytes // 2 if half else values.nbytes,
            }
            if last:
                last.result()
            last = pool.submit(shards.add, record, encode(values, half))
            if values.nbytes >= shards._limit:
                last.result()
                last = None
            del values, tensor
        if last:
            last.result()
    shards.finish()
    metadata = meta_data() if meta_data else {}

    def write(name: str) -> None:
        with (folder / name).open("w", encoding="utf-8") as file:
            json.dump({"metadata": metadata, "records": shards.records}, file, indent=4)

    write("tensor-cache.json")
    if halved:
        for tensor in (tensor for shard in shards.records for tensor in shard["records"]):
            if tensor["dtype"] == "float32":
                tensor["format"], tensor["dtype"] = "raw", "bfloat16"
        write("tensor-cache-b16.json")


def check(config: Path, model: Any, quantization: Any, source: Path, source_format: str) -> None:
    """Compares a checkpoint with its configuration, which takes a second.

    Args:
        config: config.json.
        model: upstream's entry for the family.
        quantization: upstream's entry for the quantization.
        source: the index or file of the weights.
        source_format: upstream's name of their format.

    Raises:
        CheckpointError: they do not fit, or are damaged.
    """
    tensors = read_headers(source)
    configuration = model.config.from_file(config)
    _refuse_float8(source, tensors, configuration)
    mapping = model.source[source_format](configuration, quantization)
    shapes: dict[str, Any] = {}
    if quantization.kind in ("no-quant", "group-quant"):
        module = model.model(configuration)
        module.to(quantization.model_dtype)
        _, parameters, _ = module.export_tvm(spec=module.get_default_spec(), allow_extern=True)
        shapes = {name: tuple(parameter.shape) for name, parameter in parameters}
    harmless = [*mapping.unused_params, *(FOR_IMAGES if model.name == "gemma3" else ())]
    if not any(name.endswith("lm_head.weight") for names in mapping.param_map.values() for name in names):
        # A copy of the embeddings, which such models use.
        harmless.append("*lm_head.weight")
    check_fit(source, tensors, mapping.param_map, mapping.map_func, shapes, tuple(harmless))


def _refuse_float8(source: Path, tensors: dict[str, checkpoint_files.Tensor], configuration: Any) -> None:
    for tensor in tensors.values():
        if tensor.dtype.startswith("F8") and not getattr(configuration, "weight_block_size", None):
            raise checkpoint_files.CheckpointError(
                f"{tensor.path}: {tensor.name}: expected bfloat16, float16 or float32, found {tensor.dtype}; take the"
                " checkpoint that is not quantized"
            )


def _change_converter(module: Any) -> None:
    upstream_arguments = module._convert_args

    @functools.wraps(upstream_arguments)
    def convert_arguments(arguments: Any) -> None:
        if arguments.source.name.endswith((".safetensors", ".safetensors.index.json")):
            check(arguments.config, arguments.model, arguments.quantization, arguments.source, arguments.source_format)
        upstream_arguments(arguments)

    module._convert_args = convert_arguments
    module.tvmjs = SimpleNamespace(dump_tensor_cache=dump)


def _change_loader(module: Any) -> None:
    loader = module.HuggingFaceLoader
    loader.load = load
    loader._load_file = load_file(loader._load_file)


def _change_quantization(module: Any) -> None:
    module.GroupQuantize.quantize_weight = quantize_in_slices(module.GroupQuantize.quantize_weight)


def _change_format(module: Any) -> None:
    def guess(path: Path) -> tuple[Path, str]:
        return find(path) if path.is_dir() else path, "huggingface-safetensor"

    module._guess_weight_format = guess


def install() -> None:
    """Makes upstream's convert_weight check a checkpoint first, and convert it with this module."""
    after_import("mlc_llm.interface.convert_weight", _change_converter)
    after_import("mlc_llm.loader.huggingface_loader", _change_loader)
    after_import("mlc_llm.quantization.group_quantization", _change_quantization)
    after_import("mlc_llm.support.auto_weight", _change_format)
