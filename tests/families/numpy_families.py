"""Other families in NumPy and float64, each as what differs from Llama.

They read config.json as transformers 5 writes it. Compared once with transformers 5.24 and torch 2.15 (float64, eager)
on the checkpoints of //models/tiny:tiny_family.py, for 1 to 300 tokens: logits of up to 36 differ by at most 1.7e-4, by
transformers' rotation in float32.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy_llama import Llama, frequencies, rotate_by


class Family(Llama):
    """Qwen 2 (biases), Qwen 3 (normalized heads), Mistral (perhaps with a window in every layer) and Llama 3."""

    def window(self, index: int) -> int | None:
        return self.config.get("sliding_window")

    def rope(self, index: int) -> dict[str, Any]:
        """The parameters of a layer's rotary position embedding."""
        return self.config["rope_parameters"]

    def rotate(self, x: np.ndarray, index: int) -> np.ndarray:
        rope = self.rope(index)
        frequency = frequencies(x.shape[-1], rope["rope_theta"])
        if rope["rope_type"] == "llama3":
            frequency = llama_3(frequency, rope)
        elif rope["rope_type"] == "linear":
            frequency = frequency / rope["factor"]
        return rotate_by(frequency, x)


def llama_3(frequency: np.ndarray, rope: dict[str, Any]) -> np.ndarray:
    """Frequencies of Llama 3.1: those that turn seldom within the original context are divided by a factor."""
    turns = rope["original_max_position_embeddings"] * frequency / (2 * math.pi)
    kept = np.clip((turns - rope["low_freq_factor"]) / (rope["high_freq_factor"] - rope["low_freq_factor"]), 0, 1)
    return frequency * (kept + (1 - kept) / rope["factor"])


class Phi3(Family):
    """One matrix for query, key and value and one for both halves of SwiGLU; partial rotation; LongRoPE."""

    def __init__(self, folder: Path, stored: Callable[[np.ndarray], np.ndarray] = lambda weight: weight) -> None:
        super().__init__(folder, stored)
        heads, groups = self.config["num_attention_heads"], self.config["num_key_value_heads"]
        size = self.config["hidden_size"] // heads
        split = {
            "self_attn.qkv_proj.weight": (
                [heads * size, (heads + groups) * size],
                [f"self_attn.{letter}_proj.weight" for letter in "qkv"],
            ),
            "mlp.gate_up_proj.weight": (
                [self.config["intermediate_size"]],
                ["mlp.gate_proj.weight", "mlp.up_proj.weight"],
            ),
        }
        for index in range(self.config["num_hidden_layers"]):
            prefix = f"model.layers.{index}."
            for fused, (rows, names) in split.items():
                parts = np.split(self.weights.pop(prefix + fused), rows)
                self.weights.update({prefix + name: part for name, part in zip(names, parts, strict=True)})

    def rotate(self, x: np.ndarray, index: int) -> np.ndarray:
        rope = self.rope(index)
        rotated = int(x.shape[-1] * rope.get("partial_rotary_factor", 1.0))
        frequency = frequencies(rotated, rope["rope_theta"])
        longer = 1.0
        if rope["rope_type"] == "longrope":
            original = self.config["original_max_position_embeddings"]
            frequency = frequency / np.array(rope["long_factor" if len(x) > original else "short_factor"])
            times = self.config["max_position_embeddings"] / original
            longer = math.sqrt(1 + math.log(times) / math.log(original))
        return np.concatenate([rotate_by(frequency, x[..., :rotated]) * longer, x[..., rotated:]], axis=-1)


class Gemma3(Family):
    """Five layers with a window for each that sees everything, two more norms, scaled embeddings, GELU."""

    def __init__(self, folder: Path, stored: Callable[[np.ndarray], np.ndarray] = lambda weight: weight) -> None:
        super().__init__(folder)
        self.weights: dict[str, np.ndarray] = {
            # A norm multiplies by one more than its weight, and the conversion stores this sum.
            name: stored(weight + np.float32(1) if name.endswith("norm.weight") else weight)
            for name, weight in self.weights.items()
        }

    def _local(self, index: int) -> bool:
        return self.config["layer_types"][index] == "sliding_attention"

    def embedding(self, tokens: Sequence[int]) -> np.ndarray:
        return super().embedding(tokens) * math.sqrt(self.config["hidden_size"])

    def block(self, x: np.ndarray, layer: dict[str, np.ndarray], index: int) -> np.ndarray:
        attention = self.attention(self.norm(x, layer["input_layernorm.weight"]), layer, index)
        x = x + self.norm(attention, layer["post_attention_layernorm.weight"])
        inner = self.norm(x, layer["pre_feedforward_layernorm.weight"])
        gate, up = (inner @ layer[f"mlp.{name}_proj.weight"].T for name in ("gate", "up"))
        return x + self.norm(
            gelu(gate) * up @ layer["mlp.down_proj.weight"].T, layer["post_feedforward_layernorm.weight"]
        )

    def rope(self, index: int) -> dict[str, Any]:
        return self.config["rope_parameters"]["sliding_attention" if self._local(index) else "full_attention"]

    def scale(self, size: int) -> float:
        return self.config["query_pre_attn_scalar"] ** -0.5

    def window(self, index: int) -> int | None:
        return self.config["sliding_window"] if self._local(index) else None


def gelu(x: np.ndarray) -> np.ndarray:
    """GELU's approximation with tanh, `gelu_pytorch_tanh`."""
    return x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


def reference(folder: Path, stored: Callable[[np.ndarray], np.ndarray] = lambda weight: weight) -> Llama:
    """The model of a checkpoint; the arguments are those of Llama."""
    family = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    return {"gemma3_text": Gemma3, "phi3": Phi3}.get(family, Family)(folder, stored)
