"""A faulty checkpoint is refused in one line that names the file and what to do, from its headers only."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from src.mlc_llm import checkpoint_files
from src.mlc_llm.checkpoint_config import CheckpointError
from src.mlc_llm.checkpoint_files import INDEX, SINGLE, check_fit, find, read_header, read_headers


def write(path: Path, tensors: dict[str, Any], dtype: str = "F32", fill: bytes = b"") -> Path:
    """Writes a safetensors file; a tensor is an array, or a shape of zeros that take no disk space."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, value in tensors.items():
        shape = list(value.shape if isinstance(value, np.ndarray) else value)
        size = int(np.prod(shape, dtype=np.int64)) * checkpoint_files.BITS.get(dtype, 8) // 8
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        start = file.tell()
        for name, value in tensors.items():
            if isinstance(value, np.ndarray):
                file.seek(start + header[name]["data_offsets"][0])
                file.write(value.tobytes())
        file.truncate(start + end)
    return path


def index(folder: Path, files: dict[str, str]) -> Path:
    path = folder / INDEX
    path.write_text(json.dumps({"metadata": {}, "weight_map": files}))
    return path


def refused(call: Callable[[], Any], start: str, *parts: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        call()
    message = str(caught.value)
    assert message.startswith(start) and "\n" not in message, message
    assert all(part in message for part in parts), message


def test_tensors_are_read_one_at_a_time(tmp_path: Path) -> None:
    values = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.ones(4, np.float32)}
    tensors = checkpoint_files.Tensors(read_header(write(tmp_path / SINGLE, values)))
    assert list(tensors) == ["a", "b"] and len(tensors) == 2
    for name, value in values.items():
        np.testing.assert_array_equal(tensors[name], value)
    # Nothing was kept.
    write(tmp_path / SINGLE, {"b": values["b"] + 1, "a": values["a"]})
    np.testing.assert_array_equal(tensors["b"], values["b"] + 1)


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32", "F64", "F8_E4M3", "I32", "U8", "BOOL"])
def test_every_type_is_read(tmp_path: Path, dtype: str) -> None:
    (tensor,) = read_header(write(tmp_path / SINGLE, {"a": (2, 3)}, dtype))
    assert tensor.read().shape == (2, 3) and tensor.read().dtype.itemsize * 8 == checkpoint_files.BITS[dtype]


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda data: data[:-1], "it is cut short"),
        (lambda data: data + b"x", "it is damaged"),
        (lambda data: data[:20], "expected a safetensors file with a header"),
        (lambda data: data[:3], "expected a safetensors file with a header, found 3 bytes"),
        (lambda data: b"version https://git-lfs.github.com/spec/v1\n", "with a header, found something else"),
        (lambda data: data.replace(b'"F32"', b'"F99"'), "expected a type of BF16, BOOL"),
        (lambda data: data.replace(b"[2, 3]", b"[2, 4]"), "expected 32 bytes for shape [2, 4] of F32, found 24"),
        (lambda data: data.replace(b'"shape"', b'"shapf"'), "expected type, shape and place"),
        (lambda data: data.replace(b'{"d', b"{,d"), "expected a header in JSON"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, damage: Callable[[bytes], bytes], found: str) -> None:
    path = write(tmp_path / SINGLE, {"a": np.ones((2, 3), np.float32)})
    path.write_bytes(damage(path.read_bytes()))
    refused(lambda: read_header(path), f"{path}: ", found, "take a checkpoint" if "F99" in found else "")


def raw(path: Path, header: str, data: bytes = bytes(32)) -> Path:
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + data)
    return path


def entry(shape: Any, offsets: Any, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    ("tensors", "name", "found"),
    [
        ({"a": entry([4], [0, 16]), "b": entry([4], [0, 16]), "c": entry([4], [16, 32])}, "b", "16, found it at 0"),
        ({"a": entry([4], [0, 16]), "b": entry([5], [12, 32])}, "b", "at byte 16, found it at 12"),
        ({"b": entry([4], [16, 32])}, "b", "at byte 0, found it at 16"),
        ({"b": entry([3], [20, 32]), "a": entry([4], [0, 16])}, "b", "at byte 16, found it at 20"),
    ],
)
def test_tensors_neither_overlap_nor_leave_holes(
    tmp_path: Path, tensors: dict[str, Any], name: str, found: str
) -> None:
    path = raw(tmp_path / SINGLE, json.dumps(tensors))
    refused(lambda: read_header(path), f"{path}: {name}: expected each tensor where the one before it ends", found)


@pytest.mark.parametrize("size", ["4", 4, [4.9], [4.0], [True, 4], [-2, -2], [[4]], [None]])
def test_sizes_are_whole_numbers(tmp_path: Path, size: Any) -> None:
    path = raw(tmp_path / SINGLE, json.dumps({"a": entry(size, [0, 16]), "b": entry([4], [16, 32])}))
    refused(lambda: read_header(path), f"{path}: a: expected type, shape and place, found {{'dtype': ", "copy it again")


@pytest.mark.parametrize("offsets", [[0.0, 16.0], [False, 16], ["0", "16"], [-16, 0], [0, 16, 16], [0], 16])
def test_places_are_whole_numbers(tmp_path: Path, offsets: Any) -> None:
    path = raw(tmp_path / SINGLE, json.dumps({"a": entry([4], offsets), "b": entry([4], [16, 32])}))
    refused(lambda: read_header(path), f"{path}: a: expected type, shape and place, found {{'dtype': ", "copy it again")


def test_tensors_may_be_in_any_order_and_empty(tmp_path: Path) -> None:
    tensors = {"c": entry([4], [16, 32]), "b": entry([0, 7], [16, 16]), "a": entry([4], [0, 16])}
    path = raw(tmp_path / SINGLE, json.dumps(tensors))
    assert [(tensor.name, tensor.shape) for tensor in read_header(path)] == [("a", (4,)), ("b", (0, 7)), ("c", (4,))]
    assert read_header(raw(path, "{}", b"")) == []


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ('{"a": {"dtype": "F32", "shape": [Infinity], "data_offsets": [0, 16]}}', "a: expected type, shape and place"),
        ('{"a": {"dtype": "F32", "shape": [NaN], "data_offsets": [0, 16]}}', "a: expected type, shape and place"),
        ('{"a": {"dtype": ["F32"], "shape": [4], "data_offsets": [0, 16]}}', "a: expected a type of BF16"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "expected a header in JSON, found: "),
    ],
)
def test_an_absurd_header_is_refused(tmp_path: Path, header: str, found: str) -> None:
    path = raw(tmp_path / SINGLE, header)
    refused(lambda: read_header(path), f"{path}: {found}")


@pytest.mark.parametrize("name", ["a\n\x1b[31m", "\u202eweight", "\ud800"])
def test_names_are_shown_in_printable_characters(tmp_path: Path, name: str) -> None:
    shown = ascii(name)[1:-1]
    path = raw(tmp_path / SINGLE, json.dumps({name: entry([4], [0, 99])}))
    refused(lambda: read_header(path), f"{path}: {shown}: expected 16 bytes")
    raw(tmp_path / SINGLE, json.dumps({"a": entry([4], [0, 16], name)}))
    refused(lambda: read_header(path), f"{path}: a: expected a type of ", f"found {shown}; take")
    write(tmp_path / SINGLE, {"a": (4,)})
    refused(lambda: read_headers(index(tmp_path, {name: SINGLE})), f"{path}: expected the tensor {shown}, found none")
    refused(lambda: check_fit(path, {}, {"x": [name]}, {}, {}), f"{path}: ", f"found none named {shown};")


@pytest.mark.parametrize("end", ["gguf", "safetensors"])
def test_names_of_files_are_shown_in_printable_characters(tmp_path: Path, end: str) -> None:
    (tmp_path / f"\n\x1b[31m.{end}").touch()
    refused(lambda: find(tmp_path), f"{tmp_path}", rf"\n\x1b[31m.{end}")
    weights = index(tmp_path, {"a": "no\npe\x1b[31m.safetensors"})
    refused(lambda: read_headers(weights), rf"{tmp_path}/no\npe\x1b[31m.safetensors: expected weights")


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    write(tmp_path / "1.safetensors", {"a": (2,)})
    weights = index(tmp_path, {"a": "1.safetensors", "b": "2.safetensors"})
    refused(
        lambda: read_headers(weights),
        f"{tmp_path}/2.safetensors: expected weights, found: No such file",
        "copy it again",
    )


def test_a_part_whose_name_is_not_unicode_is_named(tmp_path: Path) -> None:
    weights = index(tmp_path, {"a": "\ud800.safetensors"})
    refused(lambda: read_headers(weights), f"{tmp_path}/", ".safetensors: expected weights, found: 'utf-8' codec")


def test_a_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "1.safetensors", {"a": (2,), "c": (1,)})
    write(tmp_path / "2.safetensors", {"b": (2,), "c": (1,)})
    weights = index(tmp_path, {"a": "1.safetensors", "b": "2.safetensors", "c": "1.safetensors"})
    refused(
        lambda: read_headers(weights), f"{tmp_path}/2.safetensors: c: expected each tensor in one file", "1.safetensors"
    )


def test_an_index_of_other_files_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "1.safetensors", {"a": (2,)})
    weights = index(tmp_path, {"a": "1.safetensors", "b": "1.safetensors"})
    refused(lambda: read_headers(weights), f"{tmp_path}/1.safetensors: expected the tensor b, found none")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "expected JSON with a weight_map"),
        ("{}", "expected JSON with a weight_map"),
        ('{"weight_map": []}', "expected JSON with a weight_map"),
        ('{"weight_map": {"a": "../1.safetensors"}}', "expected names of files in its folder"),
        ('{"weight_map": {"a": null}}', "expected names of files in its folder, found None"),
        ("[" * 100_000, "expected JSON with a weight_map, found: RecursionError"),
    ],
)
def test_a_damaged_index_is_refused(tmp_path: Path, text: str, found: str) -> None:
    (tmp_path / INDEX).write_text(text)
    refused(lambda: read_headers(tmp_path / INDEX), f"{tmp_path}/{INDEX}: {found}", "copy it again")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([SINGLE], SINGLE),
        ([INDEX, "model-00001-of-00002.safetensors"], INDEX),
        ([SINGLE, "training_args.bin", "optimizer.pt", "adapter_config.json"], SINGLE),
        ([SINGLE, "consolidated.safetensors"], SINGLE),
        ([SINGLE, "pytorch_model.bin", "model.Q4_1.gguf"], SINGLE),
        ([INDEX, "pytorch_model-00001-of-00002.bin"], INDEX),
    ],
)
def test_finds_the_weights(tmp_path: Path, names: list[str], expected: str) -> None:
    for name in names:
        (tmp_path / name).write_text('{"weight_map": {"a": "model-00001-of-00002.safetensors"}}')
    assert find(tmp_path) == tmp_path / expected


def test_an_index_of_the_single_file_is_the_same_set(tmp_path: Path) -> None:
    write(tmp_path / SINGLE, {"a": (2,)})
    assert find(tmp_path) == tmp_path / SINGLE
    index(tmp_path, {"a": SINGLE})
    assert find(tmp_path) == tmp_path / INDEX


@pytest.mark.parametrize(
    ("names", "start", "parts"),
    [
        ([], ": expected model.safetensors or", ["found no weights", "copy the missing file"]),
        (["model-00001-of-00002.safetensors"], ": expected", ["found only model-00001-of-00002.safetensors"]),
        (["pytorch_model.bin"], "/pytorch_model.bin: expected", ["weights of PyTorch", "save_pretrained"]),
        (["model.Q4_1.gguf"], "/model.Q4_1.gguf: expected", ["weights of gguf", "gguf_checkpoint"]),
        ([SINGLE, INDEX], ": expected one set of weights, found", [f"{INDEX} and {SINGLE}", "--source"]),
    ],
)
def test_no_weights_or_two_sets_are_refused(tmp_path: Path, names: list[str], start: str, parts: list[str]) -> None:
    for name in names:
        (tmp_path / name).write_text('{"weight_map": {"a": "1.safetensors"}}')
    refused(lambda: find(tmp_path), f"{tmp_path}{start}", *parts)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "nowhere"
    refused(lambda: find(folder), f"{folder}: expected a folder with {SINGLE} or {INDEX}, found: No such file")
    write(tmp_path / SINGLE, {"a": (2,)})
    refused(lambda: find(tmp_path / SINGLE), f"{tmp_path / SINGLE}: expected a folder", "found: Not a directory")


class Fit:
    """A model with a joined and a transposed parameter, and a checkpoint that fits it."""

    SOURCES = {"layers.0.qkv": ["q.0", "k.0"], "layers.1.qkv": ["q.1", "k.1"], "out": ["out"], "norm": ["norm"]}
    CONVERT: dict[str, Callable[..., Any]] = {
        "layers.0.qkv": lambda q, k: np.concatenate([q, k], axis=0).astype("float16"),
        "layers.1.qkv": lambda q, k: np.concatenate([q, k], axis=0).astype("float16"),
        "out": lambda x: x.T.astype("float16"),
        "norm": lambda x: (x + 1).astype("float32"),
    }
    SHAPES: dict[str, Any] = {"layers.0.qkv": (6, 8), "layers.1.qkv": (6, 8), "out": ("vocab_size", 8), "norm": (8,)}
    FILE = {"q.0": (4, 8), "k.0": (2, 8), "q.1": (4, 8), "k.1": (2, 8), "out": (8, 5), "norm": (8,)}

    def __init__(self, folder: Path) -> None:
        self.path = folder / SINGLE

    def check(
        self, changes: Mapping[str, tuple[int, ...] | None] | None = None, harmless: tuple[str, ...] = ()
    ) -> None:
        file = {name: shape for name, shape in {**self.FILE, **(changes or {})}.items() if shape is not None}
        tensors = read_headers(write(self.path, file))
        check_fit(self.path, tensors, self.SOURCES, self.CONVERT, self.SHAPES, harmless)


@pytest.fixture
def fit(tmp_path: Path) -> Fit:
    return Fit(tmp_path)


def test_a_checkpoint_that_fits_passes(fit: Fit) -> None:
    fit.check()


@pytest.mark.parametrize("name", Fit.FILE)
def test_a_missing_tensor_is_named(fit: Fit, name: str) -> None:
    refused(
        lambda: fit.check({name: None}), f"{fit.path}: expected the tensors of config.json, found none named {name};"
    )


@pytest.mark.parametrize(
    "change",
    [
        {"q.0": (5, 8)},
        {"k.1": (2, 9)},
        {"q.1": (4, 7), "k.1": (2, 7)},
        {"out": (7, 5)},
        {"norm": (9,)},
        {"norm": (8, 1)},
    ],
)
def test_a_wrong_shape_is_named(fit: Fit, change: dict[str, tuple[int, ...]]) -> None:
    found = str(list(next(iter(change.values()))))
    refused(lambda: fit.check(change), f"{fit.path}: ", "expected shapes that make", found, "copy both again")


def test_a_tensor_that_nothing_uses_is_named(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(
        lambda: fit.check({"q.bias": (4,)}),
        f"{fit.path}: expected only",
        "found also q.bias",
        "MLC_IGNORE_TENSORS=q.bias",
    )
    fit.check({"q.bias": (4,)}, harmless=("*.bias",))
    fit.check({"a.rotary_emb.inv_freq": (4,)})
    monkeypatch.setenv("MLC_IGNORE_TENSORS", "other, q.*")
    fit.check({"q.bias": (4,)})


def test_shapes_of_a_large_model_are_checked_in_little_memory(tmp_path: Path) -> None:
    """A 8B Llama's largest layer, 32 times, in a file that takes no disk space."""
    sources = {f"layers.{layer}.gate_up": [f"gate.{layer}", f"up.{layer}"] for layer in range(32)}
    path = write(tmp_path / SINGLE, {name: (14336, 4096) for names in sources.values() for name in names}, "BF16")
    assert path.stat().st_size > 7e9 and os.stat(path).st_blocks * 512 < 1e6
    calls = []

    def convert(gate: np.ndarray, up: np.ndarray) -> np.ndarray:
        calls.append(gate.nbytes)
        return np.concatenate([gate, up])

    shapes = dict.fromkeys(sources, (28672, 4096))
    check_fit(path, read_headers(path), sources, dict.fromkeys(sources, functools.partial(convert)), shapes)
    assert len(calls) == 1
