"""The rotation for CPUs returns what TVM's does, bit by bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tvm.relax.frontend.nn.llm.position_embedding import llama_rope_with_position_map

import tvm
from src.mlc_llm.cpu_rotation import rotate_heads

SCALINGS: dict[str, dict[str, Any]] = {
    "none": {},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    "yarn": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 64,
        "beta_fast": 32,
        "beta_slow": 1,
        "inv_theta_log_scale": 0.5 / np.log(10000.0),
    },
}
TARGET = tvm.target.Target({"kind": "llvm", "mcpu": "x86-64-v2"})


def rotated(kernel: Any, qkv: np.ndarray, heads: tuple[int, int], apply: int) -> list[np.ndarray]:
    """Queries, keys and values."""
    tokens, _, size = qkv.shape
    positions = np.array([0, 1, 70, 5000, 3][:tokens], "int32")
    outs = [tvm.runtime.tensor(np.full((tokens, count, size), np.nan, qkv.dtype)) for count in (*heads, heads[1])]
    function = tvm.compile(kernel, target=TARGET)["fused_rope"]
    function(tvm.runtime.tensor(qkv), tvm.runtime.tensor(positions), *outs, apply)
    return [out.numpy() for out in outs]


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(("heads", "size", "rotary"), [((9, 3), 64, None), ((4, 4), 80, 32), ((1, 1), 16, 16)])
@pytest.mark.parametrize("apply", [0, 1])
def test_rotation(heads: tuple[int, int], size: int, rotary: int | None, dtype: str, scaling: str, apply: int) -> None:
    arguments = (10000.0, 1.0, size, *heads, dtype, SCALINGS[scaling], rotary)
    qkv = np.random.default_rng(1).standard_normal((5, heads[0] + 2 * heads[1], size)).astype(dtype)
    expected = rotated(llama_rope_with_position_map(*arguments), qkv, heads, apply)
    for ours, theirs in zip(rotated(rotate_heads(*arguments), qkv, heads, apply), expected):
        np.testing.assert_array_equal(ours, theirs)
