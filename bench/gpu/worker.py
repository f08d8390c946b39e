"""Measures the TVM runtime on PYTHONPATH, without TVM's compiler. measure.py sends the requests (protocol.py).

    worker.py --modules FOLDER --nvidia-libraries SITE_PACKAGES          # on the GPU
    worker.py --modules FOLDER --device cpu        # for a trial, with modules compiled for the CPU

Requests are the methods of `Worker`. Times are in seconds. Every device call checks for errors, and results are checked
before they are timed.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import importlib.util
import json
import os
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import comparison
import gpu
import numpy as np
import protocol
import timeline

# Imported after NVIDIA's libraries are loaded, which TVM's libraries would otherwise search for.
tvm: Any = None

SEED = 20260
PAGE_SIZE = 16  # As in modules.py, which needs TVM's compiler.
_ROPE_NORMAL = 1  # RopeMode.NORMAL, which is in TVM's compiler too.
_AHEAD_BYTES = 1 << 31  # What is copied on the device before a step is timed.
_ROOM = 64  # Tokens that fit into a sequence beyond its initial ones.
TOLERANCE = 5e-3
"""Largest relative error of results in bfloat16 or float16: rounding stays below 3e-3, a wrong tile is above 1e-2."""


def error(got: np.ndarray, expected: np.ndarray) -> float:
    """Relative error, as `comparison` computes it.

    Raises:
        AssertionError: it is above TOLERANCE, or a number is not finite.
    """
    found = comparison.relative_error(got, expected)
    assert found <= TOLERANCE, f"expected a result within {TOLERANCE} of NumPy's, found {found}"
    return found


class Worker:
    """Device, modules and buffers of one process."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Loads the libraries and TVM; raises what they raise without a device."""
        global tvm
        self._modules: Path = options.modules
        if options.device == "cuda":
            (runtime,) = gpu.load(options.nvidia_libraries, gpu.RUNTIME)
            self._clock: gpu.DeviceClock | gpu.HostClock = gpu.DeviceClock(runtime)
        else:
            self._clock = gpu.HostClock()
        import tvm.runtime.vm

        import tvm as imported

        tvm = imported
        self._load_runtime(options.device)
        self._device = tvm.device(options.device, 0)
        self._random = np.random.default_rng(SEED)
        self._gemm: dict[str, Callable[[], object]] = {}
        self._copies: list[tuple[Any, Any]] = []
        self._calls: tuple[Any, ...] | None = None
        self._attention: dict[str, Any] = {}
        self._engine: Engine | None = None
        self._nvidia: Path = options.nvidia_libraries
        self._recorder: timeline.Recorder | None = None
        self._sessions: dict[str, Any] = {}
        self._sums: dict[tuple[str, int], tuple[Any, Any]] = {}

    @staticmethod
    def _load_runtime(device: str) -> None:
        """Loads what `import tvm` without the compiler does not: the official TVM's device runtime, and functions that
        models call.

        Raises:
            OSError: tvm_cuda is installed but did not load the device runtime.
        """
        folder = Path(tvm.__file__).parent / "lib"
        if device == "cuda" and not tvm.get_global_func("device_api.cuda", allow_missing=True):
            if importlib.util.find_spec("tvm_cuda"):
                import tvm_cuda

                raise OSError(
                    "; ".join(f"{name}: {part.reason}" for name, part in tvm_cuda.status().items() if not part.loaded)
                )
            ctypes.CDLL(str(folder / "libtvm_runtime_cuda.so"))
        ctypes.CDLL(str(folder / "libtvm_runtime_extra.so"))

    def about(self) -> dict[str, Any]:
        """Describes what is measured: version, folder, device, and the digest of each library."""
        compute = (
            self._device.compute_version if self._device.dlpack_device_type() != tvm.cpu().dlpack_device_type() else ""
        )
        mapped = {
            Path(line.split()[-1]).resolve()
            for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
            if ".so" in line
        }
        return {
            "tvm": tvm.__version__,
            "folder": str(Path(tvm.__file__).parent),
            "device": self._device.device_name or "CPU",
            "compute": compute,
            "libraries": {
                path.name: hashlib.sha256(path.read_bytes()).hexdigest()
                for path in sorted(mapped)
                if path.name.startswith("libtvm")
            },
        }

    def _tensor(self, array: np.ndarray) -> Any:
        return tvm.runtime.tensor(array, device=self._device)

    def _machine(self, name: str) -> Any:
        """A virtual machine for a compiled module."""
        return tvm.runtime.vm.VirtualMachine(tvm.runtime.load_module(str(self._modules / f"{name}.so")), self._device)

    # Matrix products.

    def gemm_prepare(self, size: int, kinds: list[str]) -> dict[str, Any]:
        """Prepares and checks products of two random size × size matrices.

        Args:
            size: rows and columns.
            kinds: `cublas` (bfloat16 to float32), `cublaslt` (bfloat16 to bfloat16), `generated_DTYPE` (to float32, the
              module of this name).

        Returns:
            kind → relative error of some rows against NumPy in float64, or the reason why the kind is unavailable.
        """
        bfloat16 = comparison.numpy_dtype("bfloat16")
        host = [self._random.standard_normal((size, size), dtype="float32").astype(bfloat16) for _ in range(2)]
        rows = self._random.choice(size, 4, replace=False)
        expected = host[0][rows].astype("float64") @ host[1].astype("float64")
        found: dict[str, Any] = {}
        for kind in kinds:
            dtype = (
                comparison.numpy_dtype(kind.removeprefix("generated_")) if kind.startswith("generated_") else bfloat16
            )
            try:
                work, result = self._product(kind, [self._tensor(each.astype(dtype)) for each in host], size)
            except (AttributeError, OSError, ValueError) as reason:
                found[kind] = str(reason).strip().splitlines()[-1]
                continue
            work()
            self._clock.synchronize()
            found[kind] = error(result().numpy()[rows], expected)
            self._gemm[kind] = work
        return found

    def _product(self, kind: str, inputs: list[Any], size: int) -> tuple[Callable[[], object], Callable[[], Any]]:
        """A function that multiplies, and one that returns the last product. Raises ValueError if this runtime lacks
        it.
        """
        if kind.startswith("generated_"):
            main = self._machine(kind)["main"]
            last: list[Any] = []

            def generated() -> None:
                last[:] = [main(*inputs)]

            return generated, lambda: last[0]
        output = self._tensor(comparison.poison((size, size), "float32" if kind == "cublas" else "bfloat16"))
        if kind == "cublas":
            matmul = tvm.get_global_func("tvm.contrib.cublas.matmul")
            return lambda: matmul(*inputs, output, False, False), lambda: output
        create = tvm.get_global_func("runtime.CublasJSONRuntimeCreate")
        library = create("product", json.dumps(_matmul_graph(size)), [])
        library["__init_product"]([])
        product = library["product"]
        return lambda: product(*inputs, output), lambda: output

    def gemm(self, kind: str, count: int) -> float:
        """Seconds per product over `count` in a row, after as many warm-ups."""
        work = self._gemm[kind]
        self._clock.seconds(work, count)
        return self._clock.seconds(work, count)

    # Copies.

    def copy_prepare(self, size: int, pairs: int) -> None:
        """Allocates pairs of buffers of `size` bytes, the first random and the second zero, and checks a copy."""
        words = size // 4
        for _ in range(pairs):
            source = self._random.integers(0, 2**32, words, dtype="uint32")
            self._copies.append((self._tensor(source), self._tensor(np.zeros(words, "uint32"))))
        self._copies[-1][0].copyto(self._copies[-1][1])
        assert np.array_equal(self._copies[-1][1].numpy(), source), "expected the copy to equal its source"

    def copy(self, count: int) -> float:
        """Seconds per copy from buffer to buffer on the device, over `count` rounds of all pairs."""

        def work() -> None:
            for source, target in self._copies:
                source.copyto(target)

        self._clock.seconds(work)
        return self._clock.seconds(work, count) / len(self._copies)

    # Cost of calls.

    def overhead(self, repeats: int) -> dict[str, float]:
        """Host time per call in seconds: median of `repeats`. Only `launch and wait` waits for the device.

        At most 1024 launches are queued: with a full queue the host would wait for the device.
        """
        if self._calls is None:
            library = tvm.runtime.load_module(str(self._modules / "overhead.so"))
            machine = tvm.runtime.vm.VirtualMachine(library, self._device)
            vector = self._tensor(np.arange(256, dtype="float32"))
            kernel = library.get_function("add_one", query_imports=True)
            into = self._tensor(comparison.poison((256,), "float32"))
            kernel(vector, into)
            assert np.array_equal(into.numpy(), np.arange(256, dtype="float32") + 1), "expected x + 1"
            for name, count in (("nothing", 0), ("one", 1), ("chain", 64), ("chain_symbolic", 64)):
                assert np.array_equal(machine[name](vector).numpy(), np.arange(256, dtype="float32") + count), (
                    f"expected x + {count} of {name}"
                )
            # Look the functions up once, not at every call.
            functions = {name: machine[name] for name in ("nothing", "one", "chain", "chain_symbolic")}
            self._calls = (kernel, vector, into, functions)
        kernel, vector, into, functions = self._calls

        def wait() -> None:
            kernel(vector, into)
            self._device.sync()

        found = {
            "launch": self._host_seconds(lambda: kernel(vector, into), 400, repeats),
            "launch and wait": self._host_seconds(wait, 100, repeats),
        }
        for name, count in (("nothing", 2000), ("one", 400), ("chain", 8), ("chain_symbolic", 8)):
            function = functions[name]
            found[name] = self._host_seconds(lambda function=function: function(vector), count, repeats)  # type: ignore[misc]
        return found

    def _host_seconds(self, work: Callable[[], object], count: int, repeats: int) -> float:
        """Median over `repeats` of the seconds per call, over `count` calls by the host's clock."""
        times = []
        for _ in range(repeats + 1):
            self._device.sync()
            began = time.perf_counter()
            for _ in range(count):
                work()
            times.append((time.perf_counter() - began) / count)
        return float(np.median(times[1:]))

    # Paged attention.

    def attention_prepare(
        self, module: str, batch: int, length: int, layers: int, heads: int, kv_heads: int, head_dim: int, chunk: int
    ) -> float:
        """Fills a cache with random keys and values, and checks one decoding step.

        Args:
            module: the compiled cache.
            batch: number of sequences.
            length: tokens per sequence in the cache.
            layers, heads, kv_heads, head_dim: as the module is compiled (BUILD.bazel).
            chunk: tokens to append at a time, a divisor of `length`.

        Returns:
            The relative error of one sequence's attention in the last layer.
        """
        shape = tvm.runtime.ShapeTuple
        self._attention["cache"] = None  # Free the previous cache before allocating a new one.
        tokens = batch * (length + PAGE_SIZE + _ROOM)
        self._attention.setdefault("machine", self._machine(module))
        cache = self._attention["machine"]["create"](shape([batch, tokens, chunk, PAGE_SIZE, 0]), shape([_ROPE_NORMAL]))
        self._attention |= {"cache": cache, "batch": batch}
        if "ahead" not in self._attention:
            # A copy of a millisecond, in which the host starts all layers.
            empty = np.zeros(_AHEAD_BYTES if isinstance(self._clock, gpu.DeviceClock) else 1, "uint8")
            self._attention["ahead"] = [self._tensor(empty) for _ in range(2)]
        self._attention["token_bytes"] = 2 * kv_heads * head_dim * 2  # A key and a value in float16.
        self._attention["scale"] = head_dim**-0.5
        heads_all = heads + 2 * kv_heads

        def random(tokens: int) -> list[Any]:
            return [
                self._tensor(
                    self._random.standard_normal((tokens, heads_all, head_dim), dtype="float32").astype("float16")
                )
                for _ in range(layers)
            ]

        assert length % chunk == 0, f"expected whole chunks of {chunk} tokens, found {length} tokens"
        prompt = random(chunk)
        output = self._tensor(np.zeros((chunk, heads, head_dim), "float16"))
        for sequence in range(batch):
            self._call("vm.builtin.kv_state_add_sequence", cache, sequence)
            for _ in range(length // chunk):
                self._call("vm.builtin.kv_state_begin_forward", cache, shape([sequence]), shape([chunk]))
                for layer, qkv in enumerate(prompt):
                    self._call(
                        "vm.builtin.attention_kv_cache_attention_with_fused_qkv",
                        cache,
                        layer,
                        self._attention["scale"],
                        qkv,
                        output,
                    )
                self._call("vm.builtin.kv_state_end_forward", cache)
                # The next step's page table is copied over this one's on another stream. An engine also waits here, for
                # the logits.
                self._device.sync()
        self._attention["qkv"] = random(batch)
        self._attention["output"] = self._tensor(comparison.poison((batch, heads, head_dim), "float16"))
        self._step()
        keys, values = (self._tensor(np.zeros((layers, length + 1, kv_heads, head_dim), "float16")) for _ in range(2))
        self._call("vm.builtin.attention_kv_cache_debug_get_kv", cache, 0, 0, length + 1, keys, values)
        query = _rotated(self._attention["qkv"][-1].numpy()[0, :heads].astype("float64"), length)
        expected = _attention(
            query, keys.numpy()[-1].astype("float64"), values.numpy()[-1].astype("float64"), self._attention["scale"]
        )
        return error(self._attention["output"].numpy()[0], expected)

    @staticmethod
    def _call(name: str, *arguments: object) -> Any:
        return tvm.get_global_func(name)(*arguments)

    def _step(self) -> dict[str, float]:
        """One token per sequence: seconds of the device for attention in all layers, seconds until the host had started
        it, and bytes of keys and values read. Keeps the last layer's output.
        """
        state = self._attention
        shape = tvm.runtime.ShapeTuple
        cache, batch = state["cache"], state["batch"]
        attend = tvm.get_global_func("vm.builtin.attention_kv_cache_attention_with_fused_qkv")

        host = 0.0

        def work() -> None:
            nonlocal host
            began = time.perf_counter()
            for layer, qkv in enumerate(state["qkv"]):
                attend(cache, layer, state["scale"], qkv, state["output"])
            host = time.perf_counter() - began

        self._call("vm.builtin.kv_state_begin_forward", cache, shape(range(batch)), shape([1] * batch))
        first, second = state["ahead"]
        taken = self._clock.seconds(work, ahead=lambda: first.copyto(second))
        self._call("vm.builtin.kv_state_end_forward", cache)
        tokens = self._call("vm.builtin.attention_kv_cache_get_total_sequence_length", cache)
        return {"seconds": taken, "host": host, "bytes": tokens * state["token_bytes"] * len(state["qkv"])}

    def attention(self, steps: int) -> list[dict[str, float]]:
        """For each decoding step: `seconds` of the device and `host`, in all layers, and `bytes` of keys and values.
        Removes the steps' tokens afterwards.
        """
        state = self._attention
        assert steps <= _ROOM, f"expected at most {_ROOM} steps, which fit into the cache, found {steps}"
        taken = [self._step() for _ in range(steps)]
        for sequence in range(state["batch"]):
            self._call("vm.builtin.kv_state_popn", state["cache"], sequence, steps)
        return taken

    # Several GPUs.

    def gpus(self) -> int:
        """Number of GPUs."""
        count = 0
        while tvm.cuda(count).exist:
            count += 1
        return count

    def allreduce_prepare(self, kinds: list[str], size: int) -> dict[str, float]:
        """Starts missing sessions over all GPUs, and checks the sum of random float16 tensors.

        Args:
            kinds: `threads`, `processes`.
            size: bytes per tensor.

        Returns:
            kind → relative error of worker 0's sum against NumPy in float64.
        """
        from tvm.runtime import disco

        workers = self.gpus()
        host = self._random.standard_normal((workers, size // 2), dtype="float32").astype("float16")
        expected = host.sum(axis=0, dtype="float64")
        found = {}
        for kind in kinds:
            if kind not in self._sessions:
                self._sessions[kind] = (
                    disco.ThreadedSession(workers)
                    if kind == "threads"
                    else disco.ProcessSession(workers, entrypoint="disco_worker")
                )
                self._sessions[kind].init_ccl("nccl", *range(workers))
            session = self._sessions[kind]
            source, target = session.scatter(host), session.broadcast(comparison.poison((size // 2,), "float16"))
            session.allreduce(source, target)
            got = tvm.runtime.tensor(comparison.poison((size // 2,), "float16"))
            session.copy_from_worker_0(got, target)
            session.sync_worker_0()
            found[kind] = error(got.numpy(), expected)
            self._sums[kind, size] = (source, target)
        return found

    def allreduce(self, kind: str, size: int, count: int) -> float:
        """Seconds per all-reduce over `count` in a row, after as many warm-ups; by the host's clock, until all workers
        are done.
        """
        session, (source, target) = self._sessions[kind], self._sums[kind, size]
        return gpu.host_seconds(lambda: session.allreduce(source, target), session._sync_all, count)

    # mlc-llm's engine.

    def engine_start(
        self, library: str, model: str, model_library: str, context: int, chunk: int, sequences: int
    ) -> float:
        """Starts the engine on a model; returns the seconds until it is ready.

        Args:
            library: mlc-llm's native library.
            model: folder with weights, tokenizer and mlc-chat-config.json.
            model_library: the compiled model; it fixes the number of GPUs, of which the engine takes the first.
            context: tokens of prompt and answer together.
            chunk: prompt tokens per prefill step.
            sequences: at a time.
        """
        began = time.perf_counter()
        self._engine = Engine(library, self._device, {
            "model": model,
            "model_lib": model_library,
            "mode": "server",
            "max_num_sequence": sequences,
            # With less, the engine evicts a sequence and prefills it again at every token.
            "max_total_sequence_length": 4 * context + sequences * context,
            "max_single_sequence_length": context,
            "prefill_chunk_size": chunk,
            "prefix_cache_mode": "disable",
        })  # fmt: skip
        return time.perf_counter() - began

    def engine(self, tokens: int, prompt: str, sequences: int = 1) -> dict[str, Any]:
        """Answers of `tokens` tokens at temperature 0, all at the same time: tokens and seconds of prefill and decode
        by the engine's counters, and the text of the first.
        """
        assert self._engine is not None
        return self._engine.answer(prompt, tokens, sequences)

    def step(self, tokens: int, prompt: str, sequences: int) -> dict[str, Any]:
        """What the GPU does in a step of decoding: the difference of two answers, one twice as long, over the steps
        in between.

        Args:
            tokens: of the short answer; also the number of steps.
            prompt: of each sequence.
            sequences: at a time.

        Returns:
            `kernels`: name → how often and for how many seconds; `busy`: seconds in which something ran; `span`:
            seconds from a step to the next, while recorded.
        """
        if self._recorder is None:
            self._recorder = timeline.Recorder(self._nvidia)
        short, long = (
            self._recorder.record(lambda count=count: self.engine(count, prompt, sequences))  # type: ignore[misc]
            for count in (tokens, 2 * tokens)
        )
        before, after = timeline.totals(short), timeline.totals(long)

        def span(records: list[tuple[str, int, int]]) -> float:
            return (max(end for _, _, end in records) - records[0][1]) / 1e9

        return {
            "kernels": {
                name: [(now - then) / tokens for now, then in zip(after[name], before.get(name, (0, 0.0)))]
                for name in after
            },
            "busy": (timeline.busy(long) - timeline.busy(short)) / tokens,
            "span": (span(long) - span(short)) / tokens,
        }

    def engine_stop(self) -> None:
        """Stops the engine's threads, which would keep the process alive."""
        if self._engine is not None:
            self._engine.stop()
            self._engine = None


class Engine:
    """mlc-llm's engine, through its interface for programs without Python (mlc.json_ffi): the package mlc_llm needs
    TVM's compiler.
    """

    def __init__(self, library: str, device: Any, config: dict[str, Any]) -> None:
        ctypes.CDLL(library)
        self._prepare_workers(library)
        self._answers: queue.Queue[str] = queue.Queue()
        engine = tvm.get_global_func("mlc.json_ffi.CreateJSONFFIEngine")()
        self._functions = {
            name: engine[name]
            for name in (
                "init_background_engine",
                "reload",
                "chat_completion",
                "run_background_loop",
                # fmt: skip
                "run_background_stream_back_loop",
                "exit_background_loop",
            )
        }
        self._threads = [
            threading.Thread(target=self._functions[name], daemon=True)
            for name in ("run_background_loop", "run_background_stream_back_loop")
        ]
        self._functions["init_background_engine"](device.dlpack_device_type(), device.index, self._answers.put)
        for thread in self._threads:
            thread.start()
        self._functions["reload"](json.dumps(config))

    @staticmethod
    def _prepare_workers(library: str) -> None:
        """Makes the engine start disco_worker.py for each further GPU of a shared model, since mlc_llm.cli.worker is
        missing.
        """
        import tvm_ffi
        from tvm.runtime.disco import process_pool

        os.environ["BENCH_MLC_LLM"] = library

        def create(workers: int, groups: int, _entrypoint: str) -> Any:
            return process_pool._create_process_pool(workers, groups, "disco_worker")

        tvm_ffi.register_global_func("runtime.disco.create_process_pool", create, override=True)

    def _ask(self, request: dict[str, Any], count: int = 1) -> tuple[str, dict[str, Any]]:
        """Makes a request, so many times at once. Returns the text of the first answer, and the usage at its end.

        Raises:
            queue.Empty: nothing within a minute.
            RuntimeError: the engine reports a failure.
        """
        began = time.monotonic_ns()
        names = [f"{began}-{number}" for number in range(count)]
        for name in names:
            self._functions["chat_completion"](json.dumps({"model": "bench", "stream": True, **request}), name)
        texts = dict.fromkeys(names, "")
        usages: dict[str, dict[str, Any]] = {}
        while len(usages) < count:
            for part in json.loads(self._answers.get(timeout=60)):
                for choice in part.get("choices", []):
                    texts[part["id"]] += choice["delta"].get("content") or ""
                    if choice.get("finish_reason") == "error":
                        raise RuntimeError(f"the engine failed: {texts[part['id']]}")
                if part.get("usage"):
                    usages[part["id"]] = part["usage"]
        return texts[names[0]], usages[names[0]]

    def _counters(self) -> dict[str, float]:
        request = {
            "messages": [{"role": "user", "content": ""}],
            "debug_config": {"special_request": "query_engine_metrics"},
        }
        return self._ask(request)[1]["extra"]

    def answer(self, prompt: str, tokens: int, sequences: int) -> dict[str, Any]:
        """See Worker.engine."""
        before = self._counters()
        text, usage = self._ask({
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0.0,
            "max_tokens": tokens,
            "debug_config": {"ignore_eos": True},
        }, sequences)  # fmt: skip
        after = self._counters()
        passed = {what: {"tokens": after[f"{what}_tokens_sum"] - before.get(f"{what}_tokens_sum", 0),
                         "seconds": after[f"engine_{what}_time_sum"] - before.get(f"engine_{what}_time_sum", 0)}
                  for what in ("prefill", "decode")}  # fmt: skip
        return {**passed, "prompt_tokens": usage["prompt_tokens"], "text": text}

    def stop(self) -> None:
        """Stops the engine's threads."""
        self._functions["exit_background_loop"]()
        for thread in self._threads:
            thread.join(timeout=30)


def _matmul_graph(size: int) -> dict[str, Any]:
    """The graph for TVM's cuBLASLt runtime: one product of two bfloat16 matrices."""
    matrix = {"shape": [[size, size]], "dtype": ["bfloat16"]}
    return {
        "nodes": [
            {"op": "input", "name": "a", "attrs": matrix},
            {"op": "input", "name": "b", "attrs": matrix},
            {
                "op": "kernel",
                "name": "cublas.matmul",
                "inputs": [[0, 0, 0], [1, 0, 0]],
                "attrs": {"num_outputs": 1, **matrix},
            },
        ],
        "arg_nodes": [0, 1],
        "heads": [[2, 0, 0]],
        "node_row_ptr": [0, 1, 2, 3],
    }


def _rotated(x: np.ndarray, position: int) -> np.ndarray:
    """Rotary position embedding (rotate-half form, theta 10000) of x: (heads, dim), float64."""
    half = x.shape[1] // 2
    angle = position / 10000.0 ** (np.arange(half) / half)
    first, second = x[:, :half], x[:, half:]
    return np.concatenate(
        [first * np.cos(angle) - second * np.sin(angle), second * np.cos(angle) + first * np.sin(angle)], axis=1
    )


def _attention(query: np.ndarray, keys: np.ndarray, values: np.ndarray, scale: float) -> np.ndarray:
    """Attention of one token: query (heads, dim), keys and values (tokens, kv_heads, dim), float64."""
    group = query.shape[0] // keys.shape[1]
    keys, values = (np.repeat(each, group, axis=1) for each in (keys, values))
    scores = np.einsum("hd,mhd->hm", query, keys) * scale
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.einsum("hm,mhd->hd", weights / weights.sum(axis=1, keepdims=True), values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modules", type=Path, required=True, help="folder of the compiled programs of modules.py")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--nvidia-libraries", type=Path, help="site-packages folder with nvidia/cu13/lib; not for cpu")
    options = parser.parse_args()
    os.environ.setdefault("TVM_USE_RUNTIME_LIB", "1")
    worker = Worker(options)
    names = [name for name in dir(Worker) if not name.startswith("_")]
    protocol.serve({name: getattr(worker, name) for name in names})


if __name__ == "__main__":
    main()
