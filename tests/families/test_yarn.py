"""YaRN turns each pair of a head's numbers at the frequency of transformers' modeling_rope_utils.py."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from tvm.relax.frontend.nn.llm import position_embedding

import mlc_llm  # noqa: F401 - changes TVM's function
import tvm
from tvm import te, tirx


def compiled(size: int, theta: float, scaling: dict[str, float]) -> np.ndarray:
    """Radians for each position of each number of a head, as compiled: (head size,)."""
    inverse = 1 / (2 * math.log(theta))  # What the cache adds.
    rotation = position_embedding.switch_rope_freq_func(
        {**scaling, "inv_theta_log_scale": inverse, "rope_type": "yarn"}
    )

    def element(number: Any) -> Any:
        _, _, (radians,) = (
            part.values() if isinstance(part, dict) else part
            for part in rotation(tirx.const(1.0, "float32"), number, size, theta, "float32")
        )
        return radians

    program = tvm.compile(te.create_prim_func([te.compute((size,), element, name="radians")]), target="llvm")
    found = tvm.runtime.tensor(np.full(size, np.nan, "float32"))
    program["main"](found)
    return found.numpy()


def expected(size: int, theta: float, scaling: dict[str, float]) -> np.ndarray:
    """The same for each pair: (head size / 2,)."""

    def pair(turns: float) -> float:
        """The pair that makes so many turns in the original context."""
        length = scaling["original_max_position_embeddings"]
        return size * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(theta))

    kept = 1 / theta ** (np.arange(0, size, 2) / size)
    low = max(math.floor(pair(scaling["beta_fast"])), 0)
    high = min(math.ceil(pair(scaling["beta_slow"])), size - 1)
    ramp = np.clip((np.arange(size // 2) - low) / (high - low), 0, 1)
    return kept / scaling["factor"] * ramp + kept * (1 - ramp)


@pytest.mark.parametrize(("size", "theta", "length"), [(128, 1e6, 16384), (64, 1e4, 4096), (32, 777.0, 1024)])
def test_both_halves_of_a_head_turn_together(size: int, theta: float, length: int) -> None:
    scaling = {"beta_fast": 32.0, "beta_slow": 1.0, "factor": 16.0, "original_max_position_embeddings": length}
    pairs = expected(size, theta, scaling)
    np.testing.assert_allclose(compiled(size, theta, scaling), np.concatenate([pairs, pairs]), rtol=1e-6)
