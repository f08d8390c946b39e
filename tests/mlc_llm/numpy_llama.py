"""Llama in NumPy and float64, a reference for the compiled model.

It favors clarity: no cache, no batch, and every position is computed again. A float32 model differs from it only by
rounding errors.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


class Llama:
    """The model in a checkpoint folder with config.json and a model.safetensors of bfloat16 or float32."""

    def __init__(self, folder: Path) -> None:
        self.config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self.weights = read_safetensors(folder / "model.safetensors")

    def logits(self, tokens: Sequence[int]) -> np.ndarray:
        """Scores of the next token: (positions, vocabulary); row i follows token i."""
        epsilon = self.config["rms_norm_eps"]
        x = self.weights["model.embed_tokens.weight"][np.asarray(tokens)]
        for index in range(self.config["num_hidden_layers"]):
            prefix = f"model.layers.{index}."
            layer = {
                name.removeprefix(prefix): weight for name, weight in self.weights.items() if name.startswith(prefix)
            }
            x = x + self._attention(rms_norm(x, layer["input_layernorm.weight"], epsilon), layer)
            x = x + feed_forward(rms_norm(x, layer["post_attention_layernorm.weight"], epsilon), layer)
        return rms_norm(x, self.weights["model.norm.weight"], epsilon) @ self.weights["lm_head.weight"].T

    def next_logits(self, tokens: Sequence[int]) -> np.ndarray:
        """Scores of the token that follows all of these: (vocabulary,)."""
        return self.logits(tokens)[-1]

    def continued(self, tokens: Sequence[int], count: int) -> list[int]:
        """The next `count` tokens, the best one each time."""
        sequence = list(tokens)
        for _ in range(count):
            sequence.append(int(self.next_logits(sequence).argmax()))
        return sequence[len(tokens) :]

    def _attention(self, x: np.ndarray, layer: dict[str, np.ndarray]) -> np.ndarray:
        """Causal self-attention of x: (positions, hidden); groups of query heads share a key and value head."""
        size, positions = self.config["head_dim"], len(x)
        query, key, value = (
            (x @ layer[f"self_attn.{name}_proj.weight"].T).reshape(positions, -1, size) for name in "qkv"
        )
        query, key = rotate(query, self.config["rope_theta"]), rotate(key, self.config["rope_theta"])
        shared = query.shape[1] // key.shape[1]
        key, value = key.repeat(shared, axis=1), value.repeat(shared, axis=1)
        scores = np.einsum("qhd,khd->hqk", query, key) / np.sqrt(size)
        future = np.triu(np.ones((positions, positions), bool), k=1)
        output = np.einsum("hqk,khd->qhd", np.exp(log_softmax(np.where(future, -np.inf, scores))), value)
        return output.reshape(positions, -1) @ layer["self_attn.o_proj.weight"].T


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file, in float64.

    The file has eight bytes with the length of a JSON header, the header, and the data.
    """
    content = path.read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    header: dict[str, Any] = json.loads(content[8 : 8 + length])
    header.pop("__metadata__", None)
    weights = {}
    for name, entry in header.items():
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        if entry["dtype"] == "BF16":  # The upper half of a float32.
            values = (np.frombuffer(content[begin:end], "<u2").astype("<u4") << 16).view("<f4")
        else:
            assert entry["dtype"] == "F32", f"{path}: {name}: expected BF16 or F32, found {entry['dtype']}"
            values = np.frombuffer(content[begin:end], "<f4")
        weights[name] = values.reshape(entry["shape"]).astype("float64")
    return weights


def rms_norm(x: np.ndarray, weight: np.ndarray, epsilon: float) -> np.ndarray:
    """Every row scaled to a mean square of one, then by the weight."""
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + epsilon) * weight


def rotate(x: np.ndarray, theta: float) -> np.ndarray:
    """Rotary position embedding (rotate-half form) of x: (positions, heads, head size)."""
    half = x.shape[-1] // 2
    angle = np.arange(len(x))[:, None, None] * theta ** (-np.arange(half) / half)
    first, second = x[..., :half], x[..., half:]
    return np.concatenate(
        [first * np.cos(angle) - second * np.sin(angle), second * np.cos(angle) + first * np.sin(angle)], axis=-1
    )


def log_softmax(x: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def feed_forward(x: np.ndarray, layer: dict[str, np.ndarray]) -> np.ndarray:
    """The SwiGLU network."""
    gate, up = (x @ layer[f"mlp.{name}_proj.weight"].T for name in ("gate", "up"))
    return (gate / (1.0 + np.exp(-gate)) * up) @ layer["mlp.down_proj.weight"].T
