"""What the card can do without TVM: rates of copies, matrix products, decoding and all-reduces. measure.py sends the
requests (protocol.py).

    python3 ceilings.py --nvidia-libraries SITE_PACKAGES

Calls CUDA, cuBLAS and NCCL directly, and PyTorch if the running Python has it.
"""

from __future__ import annotations

import argparse
import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gpu
import numpy as np
import protocol

_HOST_TO_DEVICE, _DEVICE_TO_HOST, _DEVICE_TO_DEVICE = 1, 2, 3
_FLOAT32, _BFLOAT16 = 0, 14  # cudaDataType
_COMPUTE_FLOAT32 = 68  # CUBLAS_COMPUTE_32F
_DEFAULT_ALGORITHM = -1  # CUBLAS_GEMM_DEFAULT
_NCCL = "nvidia/nccl/lib/libnccl.so.2"
_NCCL_FLOAT16, _NCCL_SUM = 6, 0  # ncclDataType_t, ncclRedOp_t

SEED = 20261
_SUM_TOLERANCE = 5e-3
"""Largest relative error of sums in float16, as in worker.py. The machine's Python may lack comparison.py's imports."""


def bfloat16(size: int, random: np.random.Generator) -> np.ndarray:
    """size × size normal numbers as bits of bfloat16, truncated from float32: NumPy has no such type."""
    return (random.standard_normal((size, size), dtype="float32").view("uint32") >> 16).astype("uint16")


class Ceilings:
    """The buffers of one process, and the named operations on them: by PyTorch if the name says so, otherwise by
    NVIDIA's libraries.
    """

    def __init__(self, nvidia: Path) -> None:
        self._nvidia = nvidia
        self._runtime, _, self._cublas = gpu.load(nvidia, gpu.RUNTIME, "libcublasLt.so.13", "libcublas.so.13")
        self._clock = gpu.DeviceClock(self._runtime)
        self._random = np.random.default_rng(SEED)
        self._work: dict[str, Callable[[], object]] = {}
        try:
            import torch
        except ImportError:
            torch = None
        self._torch: Any = torch
        self._model: dict[str, Any] = {}
        self._nccl: Any = None
        self._ranks: list[tuple[ctypes.c_void_p, ctypes.c_void_p]] = []  # Communicator and stream of each GPU.
        self._sums: dict[int, list[tuple[ctypes.c_void_p, ctypes.c_void_p]]] = {}

    def about(self) -> dict[str, str]:
        """Versions of CUDA's runtime, the driver's CUDA, cuBLAS, and PyTorch ("" without it)."""
        found = {}
        for name, library, function in (
            ("CUDA runtime", self._runtime, "cudaRuntimeGetVersion"),
            ("driver's CUDA", self._runtime, "cudaDriverGetVersion"),
        ):
            number = ctypes.c_int()
            _check(function, getattr(library, function)(ctypes.byref(number)))
            found[name] = f"{number.value // 1000}.{number.value % 1000 // 10}"
        number = ctypes.c_int()
        parts = []
        for part in range(3):
            _check("cublasGetProperty", self._cublas.cublasGetProperty(part, ctypes.byref(number)))
            parts.append(str(number.value))
        return {**found, "cuBLAS": ".".join(parts), "PyTorch": self._torch.__version__ if self._torch else ""}

    def _buffer(self, content: np.ndarray) -> ctypes.c_void_p:
        """Device memory with this content."""
        pointer = ctypes.c_void_p()
        _check("cudaMalloc", self._runtime.cudaMalloc(ctypes.byref(pointer), ctypes.c_size_t(content.nbytes)))
        source = content.ctypes.data_as(ctypes.c_void_p)
        _check(
            "cudaMemcpy", self._runtime.cudaMemcpy(pointer, source, ctypes.c_size_t(content.nbytes), _HOST_TO_DEVICE)
        )
        return pointer

    def prepare(self, size: int, copied: int) -> list[str]:
        """Allocates the buffers.

        Args:
            size: rows and columns of the matrices.
            copied: number of bytes to copy.

        Returns:
            The names that `seconds` accepts.
        """
        content = self._random.integers(0, 2**32, copied // 4, dtype="uint32")
        source, target = self._buffer(content), self._buffer(np.zeros_like(content))
        length = ctypes.c_size_t(copied)
        self._work["copy, cuda"] = lambda: _check(
            "cudaMemcpyAsync", self._runtime.cudaMemcpyAsync(target, source, length, _DEVICE_TO_DEVICE, None)
        )

        a, b = (self._buffer(bfloat16(size, self._random)) for _ in range(2))
        c = self._buffer(np.full((size, size), 0x7FC0, "uint16"))  # NaN
        handle, one, zero = ctypes.c_void_p(), ctypes.c_float(1), ctypes.c_float(0)
        _check("cublasCreate", self._cublas.cublasCreate_v2(ctypes.byref(handle)))
        # cuBLAS is column-major: in rows this is b @ a, which is as fast.
        arguments = (handle, 0, 0, size, size, size, ctypes.byref(one), a, _BFLOAT16, size, b, _BFLOAT16, size,
                     ctypes.byref(zero), c, _BFLOAT16, size, _COMPUTE_FLOAT32, _DEFAULT_ALGORITHM)  # fmt: skip
        self._work["gemm, cublas itself"] = lambda: _check("cublasGemmEx", self._cublas.cublasGemmEx(*arguments))

        if torch := self._torch:
            x = torch.randint(-(2**31), 2**31 - 1, (copied // 4,), dtype=torch.int32, device="cuda")
            y = torch.zeros_like(x)
            self._work["copy, torch"] = lambda: y.copy_(x)
            d, e = (torch.randn(size, size, dtype=torch.bfloat16, device="cuda") for _ in range(2))
            f = torch.full_like(d, float("nan"))
            self._work["gemm, torch"] = lambda: torch.mm(d, e, out=f)
        return list(self._work)

    def decode_prepare(self, model: dict[str, Any], batch: int, length: int) -> str:
        """Captures a step of decoding by PyTorch as a CUDA graph: a Llama with random weights in bfloat16, the next
        token by the largest logit.

        Args:
            model: `model_config` of an mlc-chat-config.json.
            batch: number of sequences.
            length: tokens of each in the cache.

        Returns:
            The name that `seconds` accepts.
        """
        torch = self._torch
        functional = torch.nn.functional
        hidden, dim = model["hidden_size"], model["head_dim"]
        heads, kv_heads = model["num_attention_heads"], model["num_key_value_heads"]
        shapes = {
            "qkv": ((heads + 2 * kv_heads) * dim, hidden),
            "o": (hidden, heads * dim),
            "gate_up": (2 * model["intermediate_size"], hidden),
            "down": (hidden, model["intermediate_size"]),
        }

        def random(*shape: int) -> Any:
            return torch.randn(shape, dtype=torch.bfloat16, device="cuda") * shape[-1] ** -0.5

        layers = range(model["num_hidden_layers"])
        if self._model.get("hidden") != hidden:
            self._model = {
                "hidden": hidden,
                "layers": [{name: random(*shapes[name]) for name in shapes} for _ in layers],
            }
            self._model["embedding"] = random(model["vocab_size"], hidden)
            tied = model["tie_word_embeddings"]
            self._model["output"] = self._model["embedding"] if tied else random(model["vocab_size"], hidden)
        known = self._model
        norm = torch.ones(hidden, dtype=torch.bfloat16, device="cuda")
        caches = [random(2, batch, kv_heads, length, dim) for _ in layers]
        angle = torch.rand(dim, device="cuda")
        cosine, sine = angle.cos().bfloat16(), angle.sin().bfloat16()
        tokens = torch.zeros(batch, dtype=torch.int64, device="cuda")

        def rotated(x: Any) -> Any:
            first, second = x.chunk(2, -1)
            return x * cosine + torch.cat([-second, first], -1) * sine

        def step() -> None:
            x = known["embedding"][tokens]
            for weights, cache in zip(known["layers"], caches):
                qkv = functional.linear(functional.rms_norm(x, (hidden,), norm), weights["qkv"])
                query, key, value = qkv.view(batch, -1, dim).split([heads, kv_heads, kv_heads], 1)
                cache[0, :, :, -1] = rotated(key)
                cache[1, :, :, -1] = value
                attention = functional.scaled_dot_product_attention(
                    rotated(query).unsqueeze(2), cache[0], cache[1], enable_gqa=True
                )
                x = x + functional.linear(attention.reshape(batch, -1), weights["o"])
                gate, up = functional.linear(functional.rms_norm(x, (hidden,), norm), weights["gate_up"]).chunk(2, -1)
                x = x + functional.linear(functional.silu(gate) * up, weights["down"])
            logits = functional.linear(functional.rms_norm(x, (hidden,), norm), known["output"])
            tokens.copy_(logits.argmax(-1))

        with torch.no_grad():
            stream = torch.cuda.Stream()
            # What it reads is made on the default stream.
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):
                    step()
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                step()
        name = f"decode, torch, batch {batch}"
        self._work[name] = graph.replay
        return name

    def allreduce_start(self) -> dict[str, int]:
        """Creates communicators for all GPUs in this process, like NCCL's own benchmark. Returns the number of GPUs and
        NCCL's version number.
        """
        self._nccl = nccl = ctypes.CDLL(str(self._nvidia / _NCCL), mode=ctypes.RTLD_GLOBAL)
        number = ctypes.c_int()
        _check("cudaGetDeviceCount", self._runtime.cudaGetDeviceCount(ctypes.byref(number)))
        communicators = (ctypes.c_void_p * number.value)()
        _check("ncclCommInitAll", nccl.ncclCommInitAll(communicators, number, None))
        for device, communicator in enumerate(communicators):
            stream = ctypes.c_void_p()
            _check("cudaSetDevice", self._runtime.cudaSetDevice(device))
            _check("cudaStreamCreate", self._runtime.cudaStreamCreate(ctypes.byref(stream)))
            self._ranks.append((ctypes.c_void_p(communicator), stream))
        _check("ncclGetVersion", nccl.ncclGetVersion(ctypes.byref(number)))
        return {"gpus": len(self._ranks), "nccl": number.value}

    def allreduce_prepare(self, size: int) -> float:
        """Puts random float16 on every GPU, checks the sum, and returns the largest relative error.

        Args:
            size: bytes per tensor.
        """
        host = self._random.standard_normal((len(self._ranks), size // 2), dtype="float32").astype("float16")
        expected = host.sum(axis=0, dtype="float64")
        buffers = []
        for device, content in enumerate(host):
            _check("cudaSetDevice", self._runtime.cudaSetDevice(device))
            buffers.append((self._buffer(content), self._buffer(np.full(size // 2, np.nan, "float16"))))
        self._sums[size] = buffers
        self._allreduce(size)
        self._wait()
        errors = []
        for _, target in buffers:
            got = np.empty(size // 2, "float16")
            _check(
                "cudaMemcpy",
                self._runtime.cudaMemcpy(
                    got.ctypes.data_as(ctypes.c_void_p), target, ctypes.c_size_t(size), _DEVICE_TO_HOST
                ),
            )
            errors.append(float(np.linalg.norm(got - expected) / np.linalg.norm(expected)))
        assert max(errors) <= _SUM_TOLERANCE, f"expected sums within {_SUM_TOLERANCE} of NumPy's, found {errors}"
        return max(errors)

    def _allreduce(self, size: int) -> None:
        """Starts an all-reduce on all GPUs."""
        _check("ncclGroupStart", self._nccl.ncclGroupStart())
        for (source, target), (communicator, stream) in zip(self._sums[size], self._ranks):
            _check(
                "ncclAllReduce",
                self._nccl.ncclAllReduce(
                    source, target, ctypes.c_size_t(size // 2), _NCCL_FLOAT16, _NCCL_SUM, communicator, stream
                ),
            )
        _check("ncclGroupEnd", self._nccl.ncclGroupEnd())

    def _wait(self) -> None:
        for _, stream in self._ranks:
            _check("cudaStreamSynchronize", self._runtime.cudaStreamSynchronize(stream))

    def allreduce(self, size: int, count: int) -> float:
        """Seconds per all-reduce over `count` in a row, after as many warm-ups; by the host's clock, until all GPUs are
        done.
        """
        return gpu.host_seconds(lambda: self._allreduce(size), self._wait, count)

    def seconds(self, name: str, count: int) -> float:
        """Seconds per operation over `count` in a row, after as many warm-ups."""
        self._clock.seconds(self._work[name], count)
        return self._clock.seconds(self._work[name], count)


def _check(name: str, status: int) -> None:
    """Raises RuntimeError unless the status that a function of NVIDIA's returned is success."""
    if status:
        raise RuntimeError(f"{name}: expected success, found status {status}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--nvidia-libraries", type=Path, required=True, help="site-packages folder with nvidia/cu13/lib"
    )
    ceilings = Ceilings(parser.parse_args().nvidia_libraries)
    names = ("about", "allreduce", "allreduce_prepare", "allreduce_start", "decode_prepare", "prepare", "seconds")
    protocol.serve({name: getattr(ceilings, name) for name in names})


if __name__ == "__main__":
    main()
