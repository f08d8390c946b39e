"""Writes a model's folder as mlc_model does, with random weights, for tests of what packs and serves models."""

from __future__ import annotations

import argparse
import hashlib
import json
import random
from pathlib import Path

# Bytes of a weight shard.
SHARD = 40_000


def write(folder: Path, shards: int = 3, quantization: str = "q4f16_1", seed: int = 0) -> Path:
    """Writes the folder and returns it.

    Args:
        folder: new, or empty.
        shards: number of weight shards.
        quantization: name in the configuration; the weights are the same for all.
        seed: of the first shard. Those after it are the same for each seed.
    """
    folder.mkdir(exist_ok=True)
    records = []
    for number in range(shards):
        name = f"params_shard_{number}.bin"
        data = random.Random(f"{number} {0 if number else seed}").randbytes(SHARD)
        (folder / name).write_bytes(data)
        tensor = {
            "name": f"model.layers.{number}.weight",
            "shape": [SHARD // 4],
            "dtype": "float32",
            "format": "raw",
            "nbytes": SHARD,
            "byteOffset": 0,
        }
        records.append(
            {
                "dataPath": name,
                "format": "raw-shard",
                "nbytes": SHARD,
                "records": [tensor],
                "md5sum": hashlib.md5(data).hexdigest(),
            }
        )
    documents = {
        "mlc-chat-config.json": {"version": "0.1.0", "model_type": "llama", "quantization": quantization},
        "tensor-cache.json": {"metadata": {"ParamSize": shards}, "records": records},
        "tokenizer.json": {"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}},
    }
    for name, content in documents.items():
        (folder / name).write_text(json.dumps(content))
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    write(parser.parse_args().folder)


if __name__ == "__main__":
    main()
