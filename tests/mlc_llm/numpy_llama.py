"""Llama and its relatives in NumPy and float64, a reference for the compiled model.

It favors clarity: no cache, no batch, and every position is computed again. A float32 model differs from it only by
rounding errors.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np


class Llama:
    """A model of model_type llama, mistral, qwen2 or qwen3.

    Args:
        folder: the checkpoint, with config.json and a model.safetensors of bfloat16 or float32.
        stored: what the conversion makes of a weight, such as `bfloat16`; default: the weight itself.
    """

    def __init__(self, folder: Path, stored: Callable[[np.ndarray], np.ndarray] = lambda weight: weight) -> None:
        self.config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        weights = read_safetensors(folder / "model.safetensors")
        self.weights = {name: stored(weight) for name, weight in weights.items()}

    def logits(self, tokens: Sequence[int]) -> np.ndarray:
        """Scores of the next token: (positions, vocabulary); row i follows token i."""
        x = self.embedding(tokens)
        for index in range(self.config["num_hidden_layers"]):
            prefix = f"model.layers.{index}."
            layer = {
                name.removeprefix(prefix): weight.astype("float64")
                for name, weight in self.weights.items()
                if name.startswith(prefix)
            }
            x = self.block(x, layer, index)
        head = "model.embed_tokens.weight" if self.config["tie_word_embeddings"] else "lm_head.weight"
        return self.norm(x, self.weights["model.norm.weight"]) @ self.weights[head].astype("float64").T

    def next_logits(self, tokens: Sequence[int]) -> np.ndarray:
        """Scores of the token that follows all of these: (vocabulary,)."""
        return self.logits(tokens)[-1]

    def continued(self, tokens: Sequence[int], count: int) -> list[int]:
        """The next `count` tokens, the best one each time."""
        sequence = list(tokens)
        for _ in range(count):
            sequence.append(int(self.next_logits(sequence).argmax()))
        return sequence[len(tokens) :]

    def embedding(self, tokens: Sequence[int]) -> np.ndarray:
        """What enters the first layer: (positions, hidden)."""
        return self.weights["model.embed_tokens.weight"][np.asarray(tokens)].astype("float64")

    def block(self, x: np.ndarray, layer: dict[str, np.ndarray], index: int) -> np.ndarray:
        """A layer's attention and feed-forward network, each added to its input."""
        x = x + self.attention(self.norm(x, layer["input_layernorm.weight"]), layer, index)
        return x + feed_forward(self.norm(x, layer["post_attention_layernorm.weight"]), layer)

    def norm(self, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return rms_norm(x, weight, self.config["rms_norm_eps"])

    def project(self, x: np.ndarray, layer: dict[str, np.ndarray]) -> Iterator[np.ndarray]:
        """Query, key and value of x: (positions, heads, head size)."""
        size = self.config.get("head_dim") or self.config["hidden_size"] // self.config["num_attention_heads"]
        for name in "qkv":
            head = x @ layer[f"self_attn.{name}_proj.weight"].T + layer.get(f"self_attn.{name}_proj.bias", 0.0)
            head = head.reshape(len(x), -1, size)
            norm = f"self_attn.{name}_norm.weight"  # Qwen 3 and Gemma 3 normalize each head of query and key.
            yield self.norm(head, layer[norm]) if norm in layer else head

    def rotate(self, x: np.ndarray, index: int) -> np.ndarray:
        """Rotary position embedding of a layer's query or key."""
        return rotate(x, self.config["rope_theta"])

    def scale(self, size: int) -> float:
        """Factor of the attention's scores, for heads of this size."""
        return size**-0.5

    def window(self, index: int) -> int | None:
        """How many tokens a position of this layer sees, itself included; None: all before it."""
        return None

    def attention(self, x: np.ndarray, layer: dict[str, np.ndarray], index: int) -> np.ndarray:
        """Causal self-attention of x: (positions, hidden); groups of query heads share a key and value head."""
        query, key, value = self.project(x, layer)
        query, key = self.rotate(query, index), self.rotate(key, index)
        shared = query.shape[1] // key.shape[1]
        key, value = key.repeat(shared, axis=1), value.repeat(shared, axis=1)
        scores = np.einsum("qhd,khd->hqk", query, key, optimize=True) * self.scale(query.shape[-1])
        distance = np.arange(len(x))[:, None] - np.arange(len(x))
        seen = (distance >= 0) & (distance < (self.window(index) or len(x)))
        attention = np.exp(log_softmax(np.where(seen, scores, -np.inf)))
        output = np.einsum("hqk,khd->qhd", attention, value, optimize=True)
        return output.reshape(len(x), -1) @ layer["self_attn.o_proj.weight"].T


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file, in float32.

    The file has eight bytes with the length of a JSON header, the header, and the data.
    """
    content = np.memmap(path, mode="r")
    (length,) = struct.unpack("<Q", content[:8].tobytes())
    header: dict[str, Any] = json.loads(content[8 : 8 + length].tobytes())
    header.pop("__metadata__", None)
    weights = {}
    for name, entry in header.items():
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        if entry["dtype"] == "BF16":  # The upper half of a float32.
            values = (content[begin:end].view("<u2").astype("<u4") << 16).view("<f4")
        else:
            assert entry["dtype"] == "F32", f"{path}: {name}: expected BF16 or F32, found {entry['dtype']}"
            values = content[begin:end].view("<f4")
        weights[name] = np.asarray(values.reshape(entry["shape"]))
    return weights


def bfloat16(weight: np.ndarray) -> np.ndarray:
    """Weights rounded to the nearest bfloat16, ties to even: mlc-llm stores float32 so (tvmjs, f32-to-bf16)."""
    bits = weight.astype("<f4").view("<u4")
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 << 16).view("<f4")


def q4f32_1(weight: np.ndarray) -> np.ndarray:
    """What q4f32_1 keeps of a weight: of matrices, 15 steps for each 32 neighbors of a row, their size as bfloat16."""
    if weight.ndim == 1:
        return bfloat16(weight)
    groups = weight.reshape(len(weight), -1, 32)
    step = np.abs(groups).max(axis=-1, keepdims=True) / np.float32(7)
    # Ties go to the even number of the 15, not of the 7 on either side.
    whole = np.clip(np.round(groups / np.where(step == 0, 1, step) + np.float32(7)), 0, 14) - np.float32(7)
    return (whole * bfloat16(step)).reshape(weight.shape)


def q4f16_1(weight: np.ndarray) -> np.ndarray:
    """Like `q4f32_1`, but weights and steps are float16."""
    if weight.ndim == 1:
        return weight.astype("float16").astype("float32")
    groups = weight.astype("float16").reshape(len(weight), -1, 32)
    step = np.abs(groups).max(axis=-1, keepdims=True) / np.float16(7)
    whole = np.clip(np.round(groups / np.where(step == 0, np.float16(1), step) + np.float16(7)), 0, 14) - np.float16(7)
    return (whole * step).astype("float32").reshape(weight.shape)


def rms_norm(x: np.ndarray, weight: np.ndarray, epsilon: float) -> np.ndarray:
    """Every row scaled to a mean square of one, then by the weight."""
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + epsilon) * weight


def frequencies(size: int, theta: float) -> np.ndarray:
    """Radians for each position by which the pairs of a head of this size are rotated: (size / 2,)."""
    return theta ** (-np.arange(size // 2) / (size // 2))


def rotate(x: np.ndarray, theta: float) -> np.ndarray:
    """Rotary position embedding (rotate-half form) of x: (positions, heads, head size)."""
    return rotate_by(frequencies(x.shape[-1], theta), x)


def rotate_by(frequency: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The same with other frequencies: (head size / 2,)."""
    half = x.shape[-1] // 2
    angle = np.arange(len(x))[:, None, None] * frequency
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
