"""TVM's weight shards load back bit for bit, and the error of a damaged shard names it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from tvm.contrib import tvmjs

import tvm

CPU = tvm.cpu().dlpack_device_type()


def call(name: str, *arguments: object) -> Any:
    return tvm.get_global_func(name)(*arguments)


@pytest.fixture(autouse=True)
def clean_cache() -> Iterator[None]:
    yield
    call("vm.builtin.tensor_cache.clear")


@pytest.fixture
def weights() -> dict[str, np.ndarray]:
    random = np.random.default_rng(3)
    return {
        "param_0": random.standard_normal((64, 256)).astype("float32"),
        "param_1": random.integers(-100, 100, (7,)).astype("int8"),
        "param_2": random.standard_normal((600, 1024)).astype("float16"),
        "param_3": random.standard_normal((3, 5, 2)).astype("float32"),
    }


def dump(weights: dict[str, np.ndarray], folder: Path, **options: object) -> list[dict]:
    tvmjs.dump_tensor_cache(weights, str(folder), show_progress=False, shard_cap_mb=1, **options)
    return json.loads((folder / "tensor-cache.json").read_text())["records"]


def test_round_trip_over_several_shards(weights: dict[str, np.ndarray], tmp_path: Path) -> None:
    assert len(dump(weights, tmp_path, encode_format="raw")) >= 2
    call("vm.builtin.tensor_cache.load", str(tmp_path), CPU, 0)
    for name, value in weights.items():
        loaded = call("vm.builtin.tensor_cache.get", name).numpy()
        assert loaded.dtype == value.dtype
        np.testing.assert_array_equal(loaded, value)
    in_order = call("vm.builtin.param_array_from_cache", "param", -1)
    assert [tuple(tensor.shape) for tensor in in_order] == [value.shape for value in weights.values()]
    by_name = call("vm.builtin.param_array_from_cache_by_name", ["param_3", "param_0"])
    np.testing.assert_array_equal(by_name[1].numpy(), weights["param_0"])


def test_bfloat16_storage_decodes_to_the_rounded_float32(weights: dict[str, np.ndarray], tmp_path: Path) -> None:
    dump(weights, tmp_path)
    call("vm.builtin.tensor_cache.load", str(tmp_path), CPU, 0)
    rounded = weights["param_0"].astype(ml_dtypes.bfloat16).astype("float32")
    np.testing.assert_array_equal(call("vm.builtin.tensor_cache.get", "param_0").numpy(), rounded)


def test_clear_and_remove(weights: dict[str, np.ndarray], tmp_path: Path) -> None:
    dump(weights, tmp_path)
    call("vm.builtin.tensor_cache.load", str(tmp_path), CPU, 0)
    call("vm.builtin.tensor_cache.remove", "param_0")
    assert call("vm.builtin.tensor_cache.get", "param_0") is None
    call("vm.builtin.tensor_cache.clear")
    assert call("vm.builtin.tensor_cache.get", "param_1") is None


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: b"", lambda data: data + b"\0"])
def test_a_shard_of_the_wrong_size_is_refused(
    change: Callable[[bytes], bytes], weights: dict[str, np.ndarray], tmp_path: Path
) -> None:
    shard = tmp_path / dump(weights, tmp_path, encode_format="raw")[-1]["dataPath"]
    shard.write_bytes(change(shard.read_bytes()))
    with pytest.raises(ValueError, match="corrupted parameter shard"):
        call("vm.builtin.tensor_cache.load", str(tmp_path), CPU, 0)


def test_a_missing_shard_is_named(weights: dict[str, np.ndarray], tmp_path: Path) -> None:
    shard = tmp_path / dump(weights, tmp_path)[0]["dataPath"]
    shard.unlink()
    with pytest.raises(RuntimeError, match=shard.name):
        call("vm.builtin.tensor_cache.load", str(tmp_path), CPU, 0)


def test_a_broken_index_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tensor-cache.json").write_text('{"records": [')
    with pytest.raises((ValueError, RuntimeError), match="parse JSON"):
        call("vm.builtin.tensor_cache.load", str(tmp_path), CPU, 0)
