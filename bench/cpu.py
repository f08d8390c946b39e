"""Part `cpu`: models on this machine's CPU: this build's kernels, TVM's own on the official wheels, and llama.cpp.

llama.cpp is compiled by the user for this CPU (README.md): what a package ships uses less of it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import commands
import convert
import cpu_process
import engine
import report

NEEDS = "//wheels/mlc_llm"
HOW = "Not measured: give `--llama-cpp=FOLDER`, a build of llama.cpp for this CPU (README.md)."
PROGRAMS = ("llama-bench", "llama-batched-bench", "llama-quantize")
TARGET = '{"kind": "llvm", "mtriple": "x86_64-unknown-linux-gnu", "mcpu": "%s"}'
OURS, UPSTREAM = TARGET % "x86-64-v2", TARGET % "x86-64-v3"
"""cpu_target's default, and what TVM's own kernels need to be fast."""

PROMPT, CHAT, ANSWER = 512, 40, 128
"""Tokens that llama.cpp gets; ours are as many, to a tenth."""

BLOCK_WEIGHTS, BLOCK_BYTES = 32, 18
"""Of GGUF's Q4_0."""

_LIMIT = 1800  # Seconds per process.


def best_bandwidth(threads: int) -> float:
    """Bytes that this machine reads from memory per second, with NumPy's product of a gigabyte with itself."""
    program = (
        "import time, numpy; a = numpy.ones(1 << 28, 'float32'); best = 1e9\n"
        "for _ in range(5):\n"
        "    began = time.perf_counter(); numpy.dot(a, a); best = min(best, time.perf_counter() - began)\n"
        "print(a.nbytes / best)"
    )
    environment = os.environ | {"OPENBLAS_NUM_THREADS": str(threads)}
    return float(commands.output([sys.executable, "-c", program], env=environment, timeout=_LIMIT))


def gguf_names(config: dict[str, object]) -> dict[str, tuple[int, ...]]:
    """Name in GGUF → shape of the weights of `convert.tensors`."""
    parts = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "mlp.down_proj": "ffn_down",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "self_attn.k_proj": "attn_k",
        "self_attn.o_proj": "attn_output",
        "self_attn.q_proj": "attn_q",
        "self_attn.v_proj": "attn_v",
    }
    made = {}
    for name, size in convert.tensors(config).items():
        stem = name.removesuffix(".weight")
        if stem in parts:
            made[f"{parts[stem]}.weight"] = size
        else:
            layer, _, rest = stem.removeprefix("model.layers.").partition(".")
            made[f"blk.{layer}.{parts[rest]}.weight"] = size
    return made


def write_gguf(path: Path, config: dict[str, Any]) -> None:
    """Writes a Llama of zeros as Q4_0, without a tokenizer."""
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("none")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
    for name, size in gguf_names(config).items():
        if len(size) == 1:
            writer.add_tensor(name, np.zeros(size, "float32"))
        else:
            blocks = np.zeros((size[0], size[1] // BLOCK_WEIGHTS * BLOCK_BYTES), "uint8")
            writer.add_tensor(name, blocks, raw_dtype=gguf.GGMLQuantizationType.Q4_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def ggml_version(folder: Path) -> str:
    """The version in the names of llama.cpp's libraries, or "of unknown version"."""
    versions = [path.name.removeprefix("libggml.so.") for path in folder.glob("libggml.so.*.*")]
    return versions[0] if versions else "of unknown version"


def weight_bytes(folder: Path) -> int:
    """Size of a model's weights: what every token reads."""
    return sum(path.stat().st_size for path in folder.glob("params_shard_*.bin"))


def llama_figures(folder: Path, model: Path, threads: int) -> dict[str, float]:
    """The figures of llama.cpp, under the names of `our_figures`."""
    environment = {"PATH": os.defpath, "LD_LIBRARY_PATH": str(folder)}
    common: list[str | Path] = ["-m", model, "-t", str(threads)]

    def run(program: str, *arguments: str) -> str:
        return commands.output([folder / program, *common, *arguments], env=environment, timeout=_LIMIT)

    tests = json.loads(run("llama-bench", "-p", f"{PROMPT},{CHAT}", "-n", str(ANSWER), "-r", "3", "-o", "json"))
    rates = {(test["n_prompt"], test["n_gen"]): test["avg_ts"] for test in tests}
    options = ["-c", "2048", "-npp", "16", "-ntg", str(ANSWER), "-npl", "4", "--output-format", "jsonl"]
    lines = [line for line in run("llama-batched-bench", *options).splitlines() if line.startswith("{")]
    return {
        "first": CHAT / rates[CHAT, 0],
        "prefill": rates[PROMPT, 0],
        "decode 1": rates[0, ANSWER],
        "decode 4": json.loads(lines[-1])["speed_tg"],
    }


def our_figures(found: dict[str, Any]) -> dict[str, float]:
    """Medians of what a process measured."""
    return {name: median(found[name]) for name in ("first", "prefill", "decode 1", "decode 4")}


ROWS = {
    "first": "first token of a short chat",
    "prefill": f"prefill, {PROMPT} tokens",
    "decode 1": "decode, batch 1",
    "decode 4": "decode, batch 4",
}


def rows(model: str, runs: list[dict[str, dict[str, float]]]) -> list[list[str]]:
    """A row per figure: medians of each side, and ours against llama.cpp as median and range of the runs.

    Args:
        model: its name.
        runs: side ("ours", "upstream", "llama") → figures, for each run. Upstream is measured in the first only.
    """
    made = []
    for name, title in ROWS.items():
        write = report.duration if name == "first" else report.rate
        pairs = [(run["ours"][name], run["llama"][name]) for run in runs]
        upstream = write(runs[0]["upstream"][name]) if "upstream" in runs[0] else ""
        ours, llama = (write(median(column)) for column in zip(*pairs))
        made.append([f"{model}: {title}", ours, upstream, llama, report.ratios(pairs)])
    return made


class _Bench:
    """The programs and folders of one measurement."""

    def __init__(self, workspace: commands.Bazel, scratch: Path, llama: Path) -> None:
        self.scratch, self.llama = scratch, llama
        self.threads = len(os.sched_getaffinity(0))
        self.smollm2 = workspace.file("//models/smollm2:checkpoint")
        self.gguf = workspace.file("@model_smollm2_gguf//:files")
        shared = [workspace.file(target) for target in ("//wheels/mlc_llm:installed", *engine._SHARED)]
        self.paths = {
            side: os.pathsep.join(map(str, [shared[0], workspace.file(target), *shared[1:]]))
            for side, target in engine.TVM.items()
        }

    def run(self, tvm: str, *arguments: str | Path) -> str:
        environment = {
            "PATH": os.defpath,
            "PYTHONPATH": self.paths[tvm],
            "LC_ALL": "C.UTF-8",
            "HOME": str(self.scratch),
            "TVM_NUM_THREADS": str(self.threads),
        }
        return commands.output([sys.executable, *arguments], env=environment, timeout=_LIMIT)

    def weights(self, checkpoint: Path, quantization: str, output: Path) -> None:
        common: list[str | Path] = [checkpoint, "--quantization", quantization, "--output", output]
        config = ["--conv-template", "chatml", "--context-window-size", "2048", "--prefill-chunk-size", "512"]
        self.run("ours", "-m", "mlc_llm", "gen_config", *common, *config, "--max-batch-size", "4")
        self.run("ours", "-m", "mlc_llm", "convert_weight", *common, "--device", "cpu")

    def library(self, model: Path, output: Path, upstream: bool = False) -> float:
        """Compiles; returns seconds."""
        began = time.perf_counter()
        self.run(
            "ours",
            cpu_process.__file__,
            "compile",
            *(["--upstream"] if upstream else []),
            model / "mlc-chat-config.json",
            "--device",
            UPSTREAM if upstream else OURS,
            "--output",
            output,
        )
        return time.perf_counter() - began

    def measure(self, model: Path, library: Path, upstream: bool = False) -> dict[str, Any]:
        # Upstream's prefill takes minutes for what ours takes a second.
        few = ["--upstream", "--repetitions", "1", "--sentences", "10", "--answer", "32"] if upstream else []
        command: list[str | Path] = [cpu_process.__file__, "measure", *few, "--model", model, "--library", library]
        return json.loads(self.run("official" if upstream else "ours", *command).splitlines()[-1])

    def quantized(self, kind: str) -> Path:
        """SmolLM2 as llama.cpp has it, in another type."""
        made = self.scratch / f"{kind}.gguf"
        environment = {"PATH": os.defpath, "LD_LIBRARY_PATH": str(self.llama)}
        command = [self.llama / "llama-quantize", "--allow-requantize", self.gguf, made, kind]
        commands.output(command, env=environment, timeout=_LIMIT)
        return made


def measure(workspace: commands.Bazel, options: argparse.Namespace) -> tuple[str, str]:
    """This part's table, and the versions of what was measured."""
    if not workspace.compatible(NEEDS):
        return commands.NO_SOURCES, "nothing"
    if not options.llama_cpp:
        return HOW, "nothing"
    llama = options.llama_cpp.absolute()
    if missing := [name for name in PROGRAMS if not (llama / name).is_file()]:
        sys.exit(f"bench: --llama-cpp={llama}: expected {', '.join(PROGRAMS)}, found no {missing[0]} (bench/README.md)")
    commands.say("building wheels")
    table, notes = [], []
    with commands.scratch() as scratch:
        bench = _Bench(workspace, scratch, llama)
        bandwidth = best_bandwidth(bench.threads)
        billion = scratch / "billion"
        # With the vocabulary of the tokenizer that it is served with.
        vocabulary = json.loads((bench.smollm2 / "config.json").read_text(encoding="utf-8"))["vocab_size"]
        config = convert.MODELS["Llama 3.2 1B"] | {"vocab_size": vocabulary}
        convert.write_checkpoint(billion, config)
        for path in bench.smollm2.glob("*token*"):
            shutil.copyfile(path, billion / path.name)
        write_gguf(scratch / "billion.gguf", config)
        for name, checkpoint, quantization, kind in [
            ("SmolLM2 135M, 4 bits", bench.smollm2, "q4f32_1", "Q4_0"),
            ("SmolLM2 135M, float32", bench.smollm2, "q0f32", "F32"),
            ("Llama 3.2 1B's layers, 4 bits", billion, "q4f32_1", ""),
        ]:
            commands.say(f"converting and compiling {name}")
            model = scratch / f"{checkpoint.name}_{quantization}"
            library, theirs = Path(f"{model}.so"), Path(f"{model}_upstream.so")
            bench.weights(checkpoint, quantization, model)
            seconds = bench.library(model, library)
            gguf = bench.quantized(kind) if kind else scratch / "billion.gguf"
            runs, memory = [], 0
            for number in range(options.cpu_runs):
                commands.say(f"{name}, run {number + 1} of {options.cpu_runs}")
                found = bench.measure(model, library)
                memory = max(memory, found["memory"])
                run = {"ours": our_figures(found), "llama": llama_figures(llama, gguf, bench.threads)}
                if number == 0 and kind:
                    bench.library(model, theirs, upstream=True)
                    run["upstream"] = our_figures(bench.measure(model, theirs, upstream=True))
                runs.append(run)
            table += rows(name, runs)
            read = weight_bytes(model) * median(run["ours"]["decode 1"] for run in runs)
            notes.append(
                f"{name}: compiled in {report.duration(seconds)}, {report.size(weight_bytes(model))} of weights,"
                f" {report.size(memory)} of memory at most; decoding reads {read / 1e9:.1f} GB/s,"
                f" {100 * read / bandwidth:.0f} % of what NumPy's product of vectors reads."
            )
            shutil.rmtree(model)
    head = ["figure, median", "this build", "TVM's own kernels, official TVM", "llama.cpp", "this build / llama.cpp"]
    text = report.table(head, table) + "\n" + "\n".join(f"* {note}" for note in notes)
    text += (
        f"\n\nllama.cpp reads Q4_0, or float32; {bench.threads} threads each. First token: lower is better. The rest"
        " are tokens per second.\n"
    )
    return text, f"llama.cpp with ggml {ggml_version(llama)}"
