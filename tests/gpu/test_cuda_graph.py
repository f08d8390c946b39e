"""Layers of a Relax program are captured in a CUDA graph once, and then launched as one."""

from collections.abc import Iterator

import numpy as np
import pytest
from comparison import ROUNDING, random_array
from conftest import Compare, Machine
from modules import GRAPH_LAYERS, GRAPH_ROWS, GRAPH_WIDTH

import tvm


def _network(x: np.ndarray, weights: list[np.ndarray]) -> np.ndarray:
    x = x.astype("float64")
    for weight in weights:
        x = np.maximum(x @ weight.astype("float64"), 0)
    return x + 1


def _weights(seed: int) -> list[np.ndarray]:
    """Scaled so that activations stay at about one."""
    scale = np.float32(np.sqrt(2 / GRAPH_WIDTH))
    return [random_array(seed + layer, (GRAPH_WIDTH, GRAPH_WIDTH), "float32") * scale for layer in range(GRAPH_LAYERS)]


@pytest.fixture
def launches(machine: Machine) -> Iterator[list[str]]:
    """Names of the kernels that the virtual machine itself launches from now on, in order."""
    started: list[str] = []

    def note(_function: object, name: str, before: bool, _result: object, *_arguments: object) -> None:
        if before and name.startswith("fused_matmul"):
            started.append(name)

    machine("captured_network").set_instrument(note)
    yield started
    machine("captured_network").set_instrument(lambda *_arguments: None)


def test_captured_layers_run_without_being_started_one_by_one(
    device: tvm.runtime.Device, machine: Machine, compare: Compare, launches: list[str]
) -> None:
    forward = machine("captured_network")["forward"]
    weights = _weights(1)
    on_device = [tvm.runtime.tensor(weight, device) for weight in weights]
    tolerance = 256 * ROUNDING["float32"]
    counts = []
    for run in range(6):
        x = random_array(100 + run, (GRAPH_ROWS, GRAPH_WIDTH), "float32")
        compare(forward(tvm.runtime.tensor(x, device), *on_device).numpy(), _network(x, weights), tolerance)
        counts.append(len(launches))
        launches.clear()
    # The result needs all layers, but the machine only launches the first, which reads the input, and the last, which
    # writes the output.
    # The first run executes the captured layers twice: once to warm up, once to capture.
    captured = GRAPH_LAYERS - 2
    assert counts == [2 + 2 * captured] + [2] * 5

    # The graph holds the addresses of the weights, not their values.
    for tensor, weight in zip(on_device, _weights(50)):
        tensor.copyfrom(weight)
    x = random_array(200, (GRAPH_ROWS, GRAPH_WIDTH), "float32")
    compare(forward(tvm.runtime.tensor(x, device), *on_device).numpy(), _network(x, _weights(50)), tolerance)
    assert len(launches) == 2
