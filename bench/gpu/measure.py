"""Measures this build's TVM on a GPU, against the card's limits and against the official TVM. Needs no Bazel and no
network.

    ./run bench --results results.json                # in the unpacked bundle; see README.md

parts:
  rates      products of 8192 × 8192 matrices by cuBLAS through this runtime and by kernels that TVM generates,
             and copies on the device, against NVIDIA's own functions and PyTorch
  overhead   host time of kernel launches and virtual machine calls: our runtime and the official one
  attention  decoding with the paged KV cache, in bytes per second: both runtimes
  engine     tokens per second of mlc-llm's engine on models with one and eight billion random weights: both runtimes,
             PyTorch's decoding as a CUDA graph, and the bound by memory bandwidth
  timeline   how long each kernel of a step of decoding takes, on those models
  allreduce  the sum of tensors over all GPUs, through this runtime's sessions and by NCCL itself
  shards     tokens per second of those models on one GPU, and shared by several
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import machine
import protocol
import random_model
import tables

PARTS = ("rates", "overhead", "attention", "engine", "timeline", "allreduce", "shards")
SIDES = ("ours", "official")

ATTENTION = {"ours": "flashinfer_attention", "official": "paged_attention"}
"""Side → the module with a paged KV cache; the official compiler has TVM's kernels only."""
MODEL_PARTS = ("engine", "timeline", "shards")
"""Parts that need mlc-llm, which a bundle built without mlc-llm's sources lacks."""
CUDA_PARTS = ("timeline", "allreduce")
"""Parts for which the CPU has nothing: NVIDIA's recorder, and collectives."""
SESSIONS = ("threads", "processes")
GENERATED = ("generated_bfloat16", "generated_float16")
SENTENCE = "the quick brown fox jumps over a lazy dog "
"""38 tokens of the tiny tokenizer's; a request has 124 more."""

MODELS = ("1b", "8b", "8b_q4")
"""As BUILD.bazel names them; NAME_official is for the official TVM, NAME_of_2 for two GPUs."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """Sizes and repetitions: enough for a GPU, or just enough to show that it works."""

    gemm_size: int = 8192
    gemm_count: int = 50
    generated_count: int = 3
    copy_bytes: int = 2**31
    copy_count: int = 20
    rounds: int = 10
    processes: int = 5
    repeats: int = 20
    attention_model: tuple[tuple[str, int], ...] = (("layers", 4), ("heads", 32), ("kv_heads", 8), ("head_dim", 128))
    attention_cases: tuple[tuple[int, int], ...] = ((1, 32768), (16, 8192), (64, 4096))  # Sequences, tokens of each.
    attention_chunk: int = 4096
    attention_steps: int = 10
    answer_tokens: int = 256
    batches: tuple[int, ...] = (1, 4, 32, 64)
    sentences: int = 7  # Of a prompt.
    long_prompt: int = 36  # Sentences of the prompt whose prefill is measured, about 1,500 tokens.
    starts: int = 3
    context: int = 2560
    prefill_chunk: int = 2048
    allreduce_sizes: tuple[tuple[int, int], ...] = (
        (2**28, 20),
        (2**12, 500),
    )  # Bytes, repetitions; the second is the sum of one token in one layer.


PLANS = {
    "cuda": Plan(),
    "cpu": Plan(
        gemm_size=256,
        gemm_count=2,
        generated_count=2,
        copy_bytes=2**20,
        copy_count=3,
        rounds=3,
        processes=2,
        repeats=3,
        attention_steps=3,
        answer_tokens=20,
        batches=(1, 2),
        attention_model=(("layers", 2), ("heads", 4), ("kv_heads", 2), ("head_dim", 16)),
        attention_cases=((1, 128), (3, 64)),
        attention_chunk=64,
        context=512,
        prefill_chunk=128,
        sentences=2,
        long_prompt=5,
        starts=1,
    ),
}


def say(text: str) -> None:
    """Prints progress to standard error."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def turn(names: list[Any], number: int) -> list[Any]:
    """The order of a round, in which each goes first equally often."""
    start = number % len(names)
    return names[start:] + names[:start]


class Bench:
    """The bundle's folders and the processes started from them."""

    def __init__(self, options: argparse.Namespace, scratch: Path) -> None:
        plan = PLANS[options.device]
        self.options, self.scratch = options, scratch
        self.plan = dataclasses.replace(plan, rounds=options.rounds) if options.rounds else plan
        self.bundle: Path = options.bundle
        self.log: Path = options.log

    def _environment(self, paths: list[Path]) -> dict[str, str]:
        """Environment for a process; from the machine's it keeps only what selects the device."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if name in ("PATH", "HOME") or name.startswith(("CUDA_VISIBLE", "NVIDIA_", "MLC_NVIDIA_DRIVER"))
        }
        nvidia = {"MLC_NVIDIA_LIBRARIES": str(self.options.nvidia_libraries)} if self.options.nvidia_libraries else {}
        # The bundle has no compiler.
        fixed = {"PYTHONUNBUFFERED": "1", "LANG": "C.UTF-8", "TVM_USE_RUNTIME_LIB": "1", **machine.NCCL_ENVIRONMENT}
        return {**kept, **nvidia, **fixed, "PYTHONPATH": os.pathsep.join(map(str, paths))}

    def worker(self, side: str, **variables: str) -> protocol.Process:
        """A process that runs the TVM of this side, with further environment variables."""
        command: list[str | Path] = [
            sys.executable,
            "-s",
            self.bundle / "bench/worker.py",
            "--modules",
            self.bundle / "modules",
            "--device",
            self.options.device,
        ]
        if self.options.nvidia_libraries:
            command += ["--nvidia-libraries", self.options.nvidia_libraries]
        # bench is for the processes that it starts for further GPUs.
        return protocol.Process(
            side,
            command,
            self._environment([self.bundle / side, self.bundle / "shared", self.bundle / "bench"]) | variables,
            self.log,
        )

    def ceilings(self) -> protocol.Process:
        """A process without TVM, on the machine's Python if it has PyTorch, otherwise on the bundle's."""
        command = [
            self.options.python,
            "-s",
            self.bundle / "bench/ceilings.py",
            "--nvidia-libraries",
            self.options.nvidia_libraries,
        ]
        if self.options.python == sys.executable:
            environment = self._environment([self.bundle / "shared"])
        else:
            environment = machine.environment() | {"PYTHONUNBUFFERED": "1", **machine.NCCL_ENVIRONMENT}
        return protocol.Process("ceilings", command, environment, self.log)

    # Each part returns what tables.py reads.

    def rates(self) -> dict[str, Any]:
        """Part rates: everything takes turns in the same rounds."""
        plan, gpu = self.plan, self.options.device == "cuda"
        with ExitStack() as stack:
            ours = stack.enter_context(self.worker("ours"))
            kinds = ["cublas", "cublaslt", *GENERATED]
            errors = ours.ask("gemm_prepare", size=plan.gemm_size, kinds=kinds)
            ours.ask("copy_prepare", size=plan.copy_bytes, pairs=1)
            found: dict[str, Any] = {
                "ours": ours.ask("about"),
                "errors": errors,
                "size": plan.gemm_size,
                "bytes": plan.copy_bytes,
                "rounds": [],
            }
            work = {
                f"gemm, {kind}": (
                    ours,
                    "gemm",
                    {"kind": kind, "count": plan.generated_count if kind in GENERATED else plan.gemm_count},
                )
                for kind in kinds
                if isinstance(errors[kind], float)
            }
            work["copy, ours"] = (ours, "copy", {"count": plan.copy_count})
            if gpu:
                ceilings = stack.enter_context(self.ceilings())
                found["ceilings"] = ceilings.ask("about")
                for name in ceilings.ask("prepare", size=plan.gemm_size, copied=plan.copy_bytes):
                    count = plan.copy_count if name.startswith("copy") else plan.gemm_count
                    work[name] = (ceilings, "seconds", {"name": name, "count": count})
            for number in range(plan.rounds):
                found["rounds"].append(
                    {name: work[name][0].ask(work[name][1], **work[name][2]) for name in turn(list(work), number)}
                )
        return found

    def overhead(self) -> dict[str, Any]:
        """Part overhead: new processes that take turns; two of them run the official runtime, to show the noise."""
        found: dict[str, Any] = {"processes": []}
        for number in range(self.plan.processes):
            with self.worker("ours") as ours, self.worker("official") as official, self.worker("official") as again:
                processes = {"ours": ours, "official": official, "official again": again}
                found["about"] = {side: processes[side].ask("about") for side in SIDES}
                self._check_sides(found["about"])
                for process in processes.values():
                    process.ask("overhead", repeats=2)
                rounds = range(2 * len(processes))
                found["processes"].append(
                    [
                        {
                            side: processes[side].ask("overhead", repeats=self.plan.repeats)
                            for side in turn(list(processes), number + each)
                        }
                        for each in rounds
                    ]
                )
        return found

    @staticmethod
    def _check_sides(about: dict[str, dict[str, Any]]) -> None:
        """Raises SystemExit if both sides have the same runtime, so that there is nothing to compare."""
        digests = [about[side]["libraries"]["libtvm_runtime.so"] for side in SIDES]
        if digests[0] == digests[1]:
            raise SystemExit(
                f"bench: expected two runtimes, found one in {' and in '.join(about[side]['folder'] for side in SIDES)}"
            )

    def attention(self) -> list[dict[str, Any]]:
        """Part attention: both sides keep a cache, ours with FlashInfer's kernels, and their steps take turns."""
        plan, cases = self.plan, []
        with self.worker("ours") as ours, self.worker("official") as official:
            processes = {"ours": ours, "official": official}
            for batch, length in plan.attention_cases:
                case = {"batch": batch, "length": length, **dict(plan.attention_model)}
                errors = {
                    side: each.ask("attention_prepare", module=ATTENTION[side], chunk=plan.attention_chunk, **case)
                    for side, each in processes.items()
                }
                for each in processes.values():
                    each.ask("attention", steps=plan.attention_steps)
                rounds = [
                    {
                        side: processes[side].ask("attention", steps=plan.attention_steps)
                        for side in turn(list(SIDES), number)
                    }
                    for number in range(plan.rounds)
                ]
                cases.append({"case": case, "errors": errors, "rounds": rounds})
        return cases

    def _model(self, name: str) -> tuple[Path, dict[str, Any]]:
        """Folder of a random model, and its configuration; the weights are written once for a model and its shards."""
        config = self.bundle / "models" / name / "mlc-chat-config.json"
        base = name.partition("_of_")[0]
        model = self.scratch / base
        if not model.exists():
            say(f"writing random weights, {base}")
            written = self.bundle / "models" / base / "mlc-chat-config.json"
            random_model.write_model(written, self.bundle / "tokenizer", model)
        if name != base:
            shared = self.scratch / name
            if not shared.exists():
                random_model.write_variant(config, model, shared)
            model = shared
        return model, json.loads(config.read_text(encoding="utf-8"))

    def _start_engine(self, process: protocol.Process, name: str, folder: str = "", sequences: int = 1) -> float:
        """Starts the engine in a process, on the first GPUs; returns the seconds until it is ready.

        Args:
          process: a worker.
          name: of the model.
          folder: of the compiled model, by default the model's.
          sequences: at a time.
        """
        (library,) = (self.bundle / "models" / (folder or name)).glob("*.so")
        return process.ask(
            "engine_start",
            library=str(self.bundle / "mlc/libmlc_llm.so"),
            model=str(self._model(name)[0]),
            model_library=str(library),
            context=self.plan.context,
            chunk=self.plan.prefill_chunk,
            sequences=sequences,
        )

    def _compiled(self) -> list[str]:
        """Names of the models to measure, and their variants, that are in the bundle."""
        names = sorted(folder.name for folder in (self.bundle / "models").iterdir())
        chosen = self.options.models
        bases = [name.partition("_of_")[0].removesuffix("_official") for name in names]
        return [name for name, base in zip(names, bases) if not chosen or base in chosen.split(",")]

    def _shared(self, name: str) -> dict[int, str]:
        """Number of GPUs → the compiled model for so many, fewest first; empty if the model is not measured."""
        compiled = self._compiled()
        parts = [each.partition("_of_") for each in compiled if name in compiled]
        return dict(sorted((int(count or 1), base + of + count) for base, of, count in parts if base == name))

    def engine(self) -> dict[str, Any]:
        """Part engine, for each model: both sides keep an engine, and their answers take turns.

        A side's answers are by batch, as text: JSON has no other keys.
        """
        plan, models = self.plan, {}
        for name in MODELS:
            if name not in self._compiled():
                continue
            config = self._model(name)[1]
            shape, quantization = config["model_config"], config["quantization"]
            found: dict[str, Any] = {
                "model": shape,
                "quantization": quantization,
                "weight_bytes": random_model.step_bytes(shape, quantization),
                "token_bytes": random_model.cache_bytes_of_token(shape),
                "products": random_model.products(shape),
                "first": [self._first_token(name) for _ in range(plan.starts)],
                "rounds": [],
            }
            with self.worker("ours") as ours, self.worker("official") as official:
                processes = {"ours": ours, "official": official}
                most = max(plan.batches)
                for side, each in processes.items():
                    self._start_engine(each, name, f"{name}_official" if side == "official" else "", most)
                say(f"engine, {name}")
                for number in range(plan.rounds + 1):
                    answers: dict[str, dict[str, Any]] = {side: {} for side in SIDES}
                    for batch in plan.batches:
                        for side in turn(list(SIDES), number):
                            answers[side][str(batch)] = processes[side].ask(
                                "engine",
                                tokens=plan.answer_tokens,
                                prompt=SENTENCE * plan.sentences,
                                sequences=batch,
                            )
                    for side in turn(list(SIDES), number):
                        answers[side]["long"] = processes[side].ask(
                            "engine", tokens=2, prompt=SENTENCE * plan.long_prompt
                        )
                    if number:  # The first answer allocates memory and captures graphs.
                        found["rounds"].append(answers)
                for each in processes.values():
                    each.ask("engine_stop")
            if self.options.device == "cuda" and quantization == "q0f16":
                found["torch"] = self._torch(shape, found["rounds"][-1]["ours"]["1"]["prompt_tokens"])
            models[name] = found
        return models

    def timeline(self) -> dict[str, Any]:
        """Part timeline, for each model and batch: a step's kernels, and its time without the recording; on the first
        of several GPUs.
        """
        plan = self.plan
        models: dict[str, dict[str, Any]] = {}
        with self.worker("ours") as ours:
            gpus = ours.ask("gpus")
        for name in (variant for base in MODELS for count, variant in self._shared(base).items() if count <= gpus):
            with self.worker("ours") as ours:
                self._start_engine(ours, name, sequences=max(plan.batches))
                say(f"timeline, {name}")
                models[name] = {}
                for batch in (min(plan.batches), max(plan.batches)):
                    request = {"prompt": SENTENCE * plan.sentences, "sequences": batch}
                    ours.ask("engine", tokens=plan.answer_tokens, **request)
                    decode = ours.ask("engine", tokens=plan.answer_tokens, **request)["decode"]
                    models[name][str(batch)] = {
                        "seconds": decode["seconds"] / decode["tokens"] * batch,
                        **ours.ask("step", tokens=plan.answer_tokens // 2, **request),
                    }
                ours.ask("engine_stop")
        return models

    def _first_token(self, name: str) -> float:
        """Seconds from the start of a process to the first token of an answer."""
        began = time.perf_counter()
        with self.worker("ours") as process:
            self._start_engine(process, name)
            process.ask("engine", tokens=1, prompt=SENTENCE)
            taken = time.perf_counter() - began
            process.ask("engine_stop")
        return taken

    def _torch(self, shape: dict[str, Any], prompt: int) -> dict[str, float]:
        """Batch → seconds of a step of decoding by PyTorch, as a CUDA graph; empty without PyTorch.

        Args:
          shape: of the model.
          prompt: tokens before the answer. Half of the answer is in the cache as well, as on average in ours.
        """
        plan, found = self.plan, {}
        with self.ceilings() as ceilings:
            if ceilings.ask("about")["PyTorch"]:
                for batch in plan.batches:
                    length = prompt + plan.answer_tokens // 2
                    name = ceilings.ask("decode_prepare", model=shape, batch=batch, length=length)
                    found[str(batch)] = ceilings.ask("seconds", name=name, count=plan.gemm_count)
        return found

    def allreduce(self) -> dict[str, Any]:
        """Part allreduce: sessions of threads, sessions of processes, and NCCL itself take turns."""
        with self.worker("ours") as ours, self.ceilings() as ceilings:
            found: dict[str, Any] = {**ceilings.ask("allreduce_start"), "sizes": []}
            work: dict[str, tuple[protocol.Process, dict[str, str]]] = {
                kind: (ours, {"kind": kind}) for kind in SESSIONS
            } | {"nccl itself": (ceilings, {})}
            for size, count in self.plan.allreduce_sizes:
                errors = ours.ask("allreduce_prepare", kinds=list(SESSIONS), size=size) | {
                    "nccl itself": ceilings.ask("allreduce_prepare", size=size)
                }
                rounds = [
                    {
                        name: work[name][0].ask("allreduce", size=size, count=count, **work[name][1])
                        for name in turn(list(work), number)
                    }
                    for number in range(self.plan.rounds)
                ]
                found["sizes"].append({"bytes": size, "errors": errors, "rounds": rounds})
        return found

    def shards(self) -> dict[str, Any]:
        """Part shards: our engines on one GPU, and on every number of GPUs with a compiled model, take turns."""
        plan, models, gpus = self.plan, {}, 1
        for name in MODELS:
            counts = self._shared(name)
            if len(counts) <= 1:
                continue
            with ExitStack() as stack:
                first = stack.enter_context(self.worker("ours"))
                gpus = first.ask("gpus")
                processes = {"1": first}
                for count in counts:
                    if 1 < count <= gpus:
                        processes[f"{count}"] = stack.enter_context(self.worker("ours"))
                        processes[f"{count}{tables.BY_NCCL}"] = stack.enter_context(
                            self.worker("ours", MLC_PEER_SUMS="0")
                        )
                for side, each in processes.items():
                    self._start_engine(each, counts[int(side.removesuffix(tables.BY_NCCL))])
                rounds = []
                for number in range(plan.rounds + 1):
                    answers = {
                        side: processes[side].ask("engine", tokens=plan.answer_tokens, prompt=SENTENCE * plan.sentences)
                        for side in turn(list(processes), number)
                    }
                    if number:
                        rounds.append(answers)
                for each in processes.values():
                    each.ask("engine_stop")
            models[name] = rounds
        return {"gpus": gpus, "models": models}


def card() -> dict[str, str]:
    """What nvidia-smi says about the first GPU, and the number of GPUs; empty without nvidia-smi."""
    names = ("name", "count", "driver_version", "memory.total", "power.limit", "clocks.max.sm", "clocks.max.memory")
    try:
        done = subprocess.run(
            ["nvidia-smi", f"--query-gpu={','.join(names)}", "--format=csv,noheader", "--id=0"],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return {}
    return dict(zip(names, done.stdout.strip().split(", ")))


def parts_of(bundle: Path, device: str) -> list[str]:
    """The parts that this bundle can measure on a device."""
    missing = () if (bundle / "models").is_dir() else MODEL_PARTS
    return [part for part in PARTS if part not in missing and (device == "cuda" or part not in CUDA_PARTS)]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="run bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--results", type=Path, required=True, metavar="FILE", help="the JSON file to write, for //tests/gpu:results"
    )
    parser.add_argument("--only", metavar="PART,...", help="parts to measure (default: all)")
    parser.add_argument("--models", metavar="MODEL,...", help=f"of {', '.join(MODELS)} (default: all)")
    parser.add_argument("--rounds", type=int, help="how often everything takes turns (default: 10)")
    parser.add_argument(
        "--log", type=Path, help="file for the output of the measured processes (default: next to --results)"
    )
    machine.add_arguments(parser)
    parser.add_argument("--bundle", type=Path, default=Path(__file__).resolve().parent.parent, help=argparse.SUPPRESS)
    parser.add_argument("--device", choices=list(PLANS), default="cuda", help=argparse.SUPPRESS)
    options = parser.parse_args()
    possible = parts_of(options.bundle, options.device)
    only = options.only.split(",") if options.only else possible
    if unknown := set(only) - set(PARTS):
        parser.error(f"--only: expected parts from {', '.join(PARTS)}, found {', '.join(sorted(unknown))}")
    if unknown := set((options.models or MODELS[0]).split(",")) - set(MODELS):
        parser.error(f"--models: expected some of {', '.join(MODELS)}, found {', '.join(sorted(unknown))}")
    if missing := [part for part in only if part in MODEL_PARTS and part not in possible]:
        parser.error(f"--only {','.join(missing)}: this bundle was built without mlc-llm's sources, so it has no model")
    options.only = only
    options.log = options.log or options.results.with_suffix(".log")
    if options.device == "cuda":
        machine.require_gpu()
        options.nvidia_libraries = machine.nvidia_libraries(options)
        has_torch = [options.python, "-c", "import numpy, torch"]
        if subprocess.run(has_torch, env=machine.environment(), stderr=subprocess.DEVNULL, check=False).returncode:
            say(f"{options.python} has no PyTorch: only cuBLAS and CUDA set the ceilings")
            options.python = sys.executable
        if "engine" not in possible:
            say(f"this bundle was built without mlc-llm's sources: {' and '.join(MODEL_PARTS)} are not measured")
    return options


def main() -> int:
    options = _arguments()
    began = datetime.datetime.now(datetime.UTC)
    found: dict[str, Any] = {
        "when": f"{began:%Y-%m-%d %H:%M} UTC",
        "device": options.device,
        "machine": card(),
        "failed": {},
    }
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(options, Path(scratch))
        for part in options.only:
            say(f"part {part}")
            try:
                found[part] = getattr(bench, part)()
            except (protocol.Failed, OSError, SystemExit) as error:
                # Measure the other parts nevertheless.
                found["failed"][part] = str(error)
                say(f"part {part} failed: {error}")
            options.results.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(tables.text(found))
    return 1 if found["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
