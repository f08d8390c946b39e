"""Part `convert`: time and memory of `mlc_llm convert_weight` for shapes of real models, on one CPU.

The weights are zeros in sparse files: reading them costs no disk, converting them as much as any others.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import commands
import report

NEEDS = "//wheels/mlc_llm"
_ENVIRONMENTS = (
    "//wheels/mlc_llm:installed",
    "//wheels/tvm:installed",
    "//wheels:mlc_llm_dependencies",
    "//wheels:dependencies",
)
_TYPE_BYTES = 4  # q0f32 and q4f32_1 convert in float32.


def shape(layers: int, hidden: int, intermediate: int, heads: int, pairs: int, vocabulary: int) -> dict[str, object]:
    """The config.json of a Llama with tied embeddings; `pairs` is the number of key and value heads."""
    return {
        "hidden_act": "silu",
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "max_position_embeddings": 8192,
        "model_type": "llama",
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "num_key_value_heads": pairs,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "tie_word_embeddings": True,
        "vocab_size": vocabulary,
    }


MODELS = {
    "SmolLM2 135M": shape(30, 576, 1536, 9, 3, 49152),
    "Llama 3.2 1B": shape(16, 2048, 8192, 32, 8, 128256),
    "Llama 3.1 8B, 2 of 32 layers": shape(2, 4096, 14336, 32, 8, 128256),
}
QUANTIZATIONS = ("q0f32", "q4f32_1")


def tensors(config: dict[str, object]) -> dict[str, tuple[int, ...]]:
    """Name → shape of a Llama's weights, as Hugging Face's hub has them."""
    number = {key: value for key, value in config.items() if isinstance(value, int)}
    hidden, inner = number["hidden_size"], number["intermediate_size"]
    keys = hidden // number["num_attention_heads"] * number["num_key_value_heads"]
    made: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (number["vocab_size"], hidden),
        "model.norm.weight": (hidden,),
    }
    for layer in range(number["num_hidden_layers"]):
        made |= {
            f"model.layers.{layer}.{name}.weight": size
            for name, size in {
                "input_layernorm": (hidden,),
                "mlp.down_proj": (hidden, inner),
                "mlp.gate_proj": (inner, hidden),
                "mlp.up_proj": (inner, hidden),
                "post_attention_layernorm": (hidden,),
                "self_attn.k_proj": (keys, hidden),
                "self_attn.o_proj": (hidden, hidden),
                "self_attn.q_proj": (hidden, hidden),
                "self_attn.v_proj": (keys, hidden),
            }.items()
        }
    return made


def write_checkpoint(folder: Path, config: dict[str, object]) -> int:
    """Writes a checkpoint of zeros in bfloat16 that takes no disk space. Returns the numbers in its largest tensor."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    header, end = {}, 0
    for name, size in tensors(config).items():
        start, end = end, end + 2 * math.prod(size)
        header[name] = {"dtype": "BF16", "shape": list(size), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return max(math.prod(size) for size in tensors(config).values())


def run(command: list[str | Path], environment: dict[str, str]) -> tuple[float, int]:
    """Runs a command; returns its seconds and the most bytes that it had in memory."""
    start = time.monotonic()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"bench: expected {command[2:4]} to succeed, found exit status {process.returncode}")
    return time.monotonic() - start, usage.ru_maxrss * 1024


def measure(workspace: commands.Bazel, options: argparse.Namespace) -> tuple[str, str]:
    """This part's table, and the versions of what was measured."""
    if not workspace.compatible(NEEDS):
        return commands.NO_SOURCES, "nothing"
    commands.say("building wheels")
    workspace.output("build", *_ENVIRONMENTS)
    environment = {
        "PATH": os.defpath,
        "PYTHONPATH": os.pathsep.join(str(workspace.file(target)) for target in _ENVIRONMENTS),
        "LC_ALL": "C.UTF-8",
    }
    program: list[str | Path] = [sys.executable, "-m", "mlc_llm"]
    with commands.scratch() as scratch:
        environment["HOME"] = str(scratch)
        _, base = run([*program, "convert_weight", "--help"], environment)
        rows = []
        for number, (name, config) in enumerate(MODELS.items()):
            checkpoint = scratch / f"checkpoint{number}"
            largest = write_checkpoint(checkpoint, config) * _TYPE_BYTES
            for quantization in QUANTIZATIONS:
                commands.say(f"converting {name} to {quantization}")
                output = scratch / f"{number}_{quantization}"
                command = [*program, "convert_weight", checkpoint, "--device", "cpu", "--quantization", quantization]
                seconds, peak = run([*command, "--output", output], environment)
                rows.append(
                    [
                        name,
                        quantization,
                        report.duration(seconds),
                        report.size(peak),
                        report.size(peak - base),
                        f"{(peak - base) / largest:.1f}",
                    ]
                )
    head = ["model", "quantization", "time", "memory", "without the program's own", "in largest tensors"]
    return report.table(head, rows), "the mlc-llm of this build"
