"""Conversion writes upstream's bytes, from one tensor at a time, and refuses a faulty checkpoint before it begins."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tiny_model_files
from mlc_llm._mlc_bazel import convert
from mlc_llm._mlc_bazel.checkpoint_config import CheckpointError
from mlc_llm.interface.convert_weight import convert_weight
from mlc_llm.model import MODELS
from mlc_llm.quantization import QUANTIZATION
from mlc_llm.support.auto_weight import detect_weight
from safetensors import numpy as safetensors
from tvm.contrib import tvmjs

import tvm


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(tiny_model_files.CHECKPOINT / name, folder / name)
    return folder


def run(checkpoint: Path, output: Path, quantization: str = "q0f32") -> dict[str, bytes]:
    """Converts like the command; returns the files."""
    source, source_format = detect_weight(checkpoint, checkpoint / "config.json")
    output.mkdir()
    convert_weight(
        config=checkpoint / "config.json",
        quantization=QUANTIZATION[quantization],
        model=MODELS["llama"],
        device=tvm.cpu(),
        source=source,
        source_format=source_format,
        output=output,
    )
    return {path.name: path.read_bytes() for path in output.iterdir()}


def parameters() -> Iterator[tuple[str, Any]]:
    """Tensors of every type, small ones and one with a shard of its own."""
    random = np.random.default_rng(0)
    for name, shape in [("small", (3, 5)), ("scalar", (1,)), ("large", (1200, 1000)), ("last", (700, 300))]:
        values = random.standard_normal(shape).astype(np.float32)
        for dtype in ("float32", "float16", "uint32", ml_dtypes.bfloat16):
            yield f"{name}.{np.dtype(dtype).name}", tvm.runtime.tensor((values * 100).astype(dtype))
    yield "limits", tvm.runtime.tensor(np.array([np.inf, -np.inf, 3.4e38, -3.4e38, 1e-40, 0], np.float32))


def test_shards_are_those_of_upstream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert, "BLOCK", 1000)
    for name, dump in [("upstream", tvmjs.dump_tensor_cache), ("ours", convert.dump)]:
        dump(parameters(), str(tmp_path / name), meta_data=lambda: {"ParamSize": 17}, shard_cap_mb=4)
    files = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("upstream", "ours")]
    assert files[0] == files[1] and len(files[0]) > 5


def test_the_tiny_model_is_the_one_of_the_build(checkpoint: Path, tmp_path: Path) -> None:
    for name, content in run(checkpoint, tmp_path / "out").items():
        assert content == (tiny_model_files.WEIGHTS / name).read_bytes(), name


def test_files_may_be_several(checkpoint: Path, tmp_path: Path) -> None:
    whole = run(checkpoint, tmp_path / "whole")
    tensors = safetensors.load_file(checkpoint / "model.safetensors")
    (checkpoint / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {"1.safetensors": names[:9], "2.safetensors": names[9:]}
    for file, held in parts.items():
        safetensors.save_file({name: tensors[name] for name in held}, checkpoint / file)
    weight_map = {name: file for file, held in parts.items() for name in held}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    for name, content in run(checkpoint, tmp_path / "parts").items():
        if name.endswith(".json"):
            ours, theirs = json.loads(content)["metadata"], json.loads(whole[name])["metadata"]
            assert ours == theirs
        else:
            assert len(content) == len(whole[name])


@pytest.mark.parametrize("quantization", ["q4f16_1", "q4f32_1", "q3f16_1", "q4f16_0"])
def test_slices_quantize_to_the_same_numbers(
    checkpoint: Path, tmp_path: Path, quantization: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(checkpoint, tmp_path / "whole", quantization)
    rows: list[int] = []
    at_once = convert.rows_at_once

    def few_rows(*sizes: int) -> int:
        rows.append(at_once(*sizes, 4096))
        return rows[-1]

    monkeypatch.setattr(convert, "rows_at_once", few_rows)
    monkeypatch.setattr(QUANTIZATION[quantization], "_quantize_func_cache", {})
    assert run(checkpoint, tmp_path / "slices", quantization) == whole
    assert rows and max(rows) <= 64


@pytest.mark.parametrize(
    ("rows", "row_bytes", "limit", "expected"),
    [(128256, 8192, 32 << 20, 4008), (10, 1, 100, 10), (1, 1000, 10, 1), (7, 10, 60, 6), (12, 10, 50, 4)],
)
def test_slices_have_one_size_if_possible(rows: int, row_bytes: int, limit: int, expected: int) -> None:
    assert convert.rows_at_once(rows, row_bytes, limit) == expected


def test_progress_is_counted_on_stderr(checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    run(checkpoint, tmp_path / "out")
    assert "15/15" in capfd.readouterr().err


def change(folder: Path, **tensors: np.ndarray | None) -> None:
    path = folder / "model.safetensors"
    changed = safetensors.load_file(path) | {name.replace("__", "."): value for name, value in tensors.items()}
    safetensors.save_file({name: value for name, value in changed.items() if value is not None}, path)


ONE = np.zeros((64, 65), np.float32)


@pytest.mark.parametrize(
    ("tensors", "found"),
    [
        ({"model__norm__weight": None}, "found none named model.norm.weight"),
        ({"lm_head__weight": ONE}, "expected shapes that make [vocab_size, 64], the lm_head.weight"),
        ({"model__layers__0__self_attn__q_proj__weight": ONE}, "the model.layers.0.self_attn.qkv_proj.weight"),
        ({"model__layers__0__self_attn__q_proj__bias": ONE}, "found also model.layers.0.self_attn.q_proj.bias"),
        ({"model__norm__weight": np.zeros(64, ml_dtypes.float8_e4m3fn)}, "found F8_E4M3"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_before_anything_is_written(
    checkpoint: Path, tmp_path: Path, tensors: dict[str, Any], found: str
) -> None:
    change(checkpoint, **tensors)
    with pytest.raises(CheckpointError) as caught:
        run(checkpoint, tmp_path / "out")
    assert str(caught.value).startswith(f"{checkpoint}/model.safetensors: ") and found in str(caught.value)
    assert not list((tmp_path / "out").iterdir())
