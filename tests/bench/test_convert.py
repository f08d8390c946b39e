"""The checkpoints that conversion is measured on have the shapes of the models that they stand for."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import convert
import pytest


@pytest.mark.parametrize(("name", "parameters"), [("SmolLM2 135M", 134_515_008), ("Llama 3.2 1B", 1_235_814_400)])
def test_the_number_of_parameters_is_the_published_one(name: str, parameters: int) -> None:
    assert sum(map(math.prod, convert.tensors(convert.MODELS[name]).values())) == parameters


def test_a_checkpoint_takes_no_disk_space(tmp_path: Path) -> None:
    name = "Llama 3.1 8B, 2 of 32 layers"
    largest = convert.write_checkpoint(tmp_path / "checkpoint", convert.MODELS[name])
    assert largest == 128256 * 4096
    weights = tmp_path / "checkpoint/model.safetensors"
    assert weights.stat().st_size > 1.9e9 and os.stat(weights).st_blocks * 512 < 1e6
    length = int.from_bytes(weights.open("rb").read(8), "little")
    header = json.loads(weights.open("rb").read(8 + length)[8:])
    assert max(entry["data_offsets"][1] for entry in header.values()) + 8 + length == weights.stat().st_size
