"""A compiled model without the engine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tvm_ffi
from tvm.contrib import tvmjs

import mlc_llm  # noqa: F401 - its library has the kernels of models for CPUs
import tvm
from tvm import relax

PAGE_SIZE = 16


class CompiledModel:
    """The library's functions on TVM's virtual machine, with weights and KV cache but without the engine.

    Args:
        library: the compiled model.
        weights: the folder with its converted weights.
        context: tokens that the cache has room for; default: as many as the model.
        device: `cpu` or `cuda`.
    """

    def __init__(self, library: Path, weights: Path, context: int = 0, device: str = "cpu") -> None:
        self.device = tvm.device(device)
        self.vm = relax.VirtualMachine(tvm.runtime.load_module(str(library)), self.device)
        self.metadata: dict[str, Any] = json.loads(self.vm["_metadata"]())
        tensors, _ = tvmjs.load_tensor_cache(str(weights), self.device)
        self.weights = [tensors[entry["name"]] for entry in self.metadata["params"]]
        self.context = context or self.metadata["context_window_size"]
        self.reset()

    def reset(self) -> None:
        """An empty cache with two sequences, 0 and 1."""
        sizes = [
            self.metadata["max_batch_size"],
            self.context,
            self.metadata["prefill_chunk_size"],
            PAGE_SIZE,
            0,
        ]
        self.cache = self.vm["create_tir_paged_kv_cache"](*(tvm_ffi.Shape([size]) for size in sizes))
        for sequence in range(2):
            self._state("add_sequence", sequence)

    def _state(self, name: str, *arguments: object) -> None:
        tvm.get_global_func("vm.builtin.kv_state_" + name)(self.cache, *arguments)

    def forward(self, function: str, tokens: dict[int, Sequence[int]]) -> np.ndarray:
        """Logits that follow the given tokens of each sequence: (sequences, vocabulary)."""
        lengths = [len(part) for part in tokens.values()]
        ids = np.concatenate([np.asarray(part, "int32") for part in tokens.values()])
        embedding = self.vm["embed"](tvm.runtime.tensor(ids, self.device), self.weights).numpy()
        shape = (len(tokens), 1, -1) if function.endswith("decode") else (1, sum(lengths), -1)
        last = (
            [tvm.runtime.tensor((np.cumsum(lengths) - 1).astype("int32"), self.device)]
            if function == "batch_prefill"
            else []
        )
        self._state("begin_forward", tvm_ffi.Shape(list(tokens)), tvm_ffi.Shape(lengths), None)
        states = tvm.runtime.tensor(embedding.reshape(shape), self.device)
        output, _ = self.vm[function](states, *last, self.cache, self.weights)
        self._state("end_forward")
        return output.numpy().reshape(len(tokens), -1)
