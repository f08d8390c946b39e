"""Measures what this build costs and produces, and prints Markdown tables for each part.

parts, with their time on 2 cores:
  builds    cold, null and one-file-changed build of the runtime: Bazel and CMake + Ninja in turns
            (5 min per cold run, and 2 min)
  native    the same for mlc-llm's libraries, its Rust tokenizers and the runtime they need
            (15 min per cold run); needs mlc-llm's sources
  image     build from nothing, null build, and one changed C++ file up to the image's digest, with critical
            paths (15 min; 5 min without mlc-llm)
  launcher  time that tools/bazel adds to a Bazel command (15 s)
  sizes     wheels, libraries and image layers (10 s once they are built);
            `tools/bazel run --config=cuda //bench` adds those for GPUs
  engine    mlc-llm's engine on our TVM and on the official one: start, prefill, decode (3 min);
            needs mlc-llm's sources
  cpu       models on this CPU: our kernels, TVM's own on the official wheels, and llama.cpp (20 min);
            needs mlc-llm's sources and --llama-cpp
  convert   `mlc_llm convert_weight` for the shapes of 135M, 1B and 8B models: time and memory (10 min);
            needs mlc-llm's sources
  push      //images:push against a bare copy of the same image, over loopback (15 s once it is built and tested)
  cold_start  from an empty store of images to the first token, step by step, for every compression of layers
            (15 min); needs mlc-llm's sources and podman; llama.cpp's server with --llama-root
  remote    TVM's runtime built locally, by one worker, by two, and from their cache in a second checkout;
            on paper by up to 256 (20 min)
  fresh     the README's build and test in a fresh clone with empty caches: wall time and download volume

Run nothing else meanwhile. Temporary folders need 5 GB.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import builds
import cold_start
import commands
import convert
import engine
import fresh
import image
import native
import overhead
import push
import remote
import report
import sizes

import cpu

PARTS = {
    "builds": builds,
    "native": native,
    "image": image,
    "launcher": overhead,
    "sizes": sizes,
    "engine": engine,
    "cpu": cpu,
    "convert": convert,
    "push": push,
    "cold_start": cold_start,
    "remote": remote,
    "fresh": fresh,
}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tools/bazel run //bench --", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", metavar="PART,...", default=",".join(PARTS), help="parts to measure (default: all)")
    parser.add_argument("--write", action="store_true", help="also replace these parts in bench/results.md")
    parser.add_argument(
        "--cold-runs", type=int, default=3, metavar="N", help="cold builds of each tool (default: %(default)s)"
    )
    parser.add_argument(
        "--runs", type=int, default=5, metavar="N", help="null and one-file builds of each tool (default: %(default)s)"
    )
    parser.add_argument(
        "--launcher-runs", type=int, default=30, metavar="N", help="calls of each kind (default: %(default)s)"
    )
    parser.add_argument(
        "--push-runs", type=int, default=5, metavar="N", help="pushes of each kind (default: %(default)s)"
    )
    parser.add_argument(
        "--engine-runs", type=int, default=5, metavar="N", help="engines of each kind and model (default: %(default)s)"
    )
    parser.add_argument(
        "--cpu-runs", type=int, default=3, metavar="N", help="processes of each kind and model (default: %(default)s)"
    )
    parser.add_argument(
        "--llama-cpp", type=Path, metavar="FOLDER", help="llama-bench, llama-batched-bench and llama-quantize"
    )
    parser.add_argument(
        "--cold-start-runs", type=int, default=3, metavar="N", help="starts of each kind (default: %(default)s)"
    )
    parser.add_argument(
        "--podman", default="podman", metavar="COMMAND", help="podman, with options of its own (default: %(default)s)"
    )
    parser.add_argument("--llama-root", type=Path, metavar="FOLDER", help="a root file system with llama-server")
    options = parser.parse_args()
    options.only = options.only.split(",")
    if unknown := set(options.only) - set(PARTS):
        parser.error(f"--only: expected parts from {', '.join(PARTS)}, found {', '.join(sorted(unknown))}")
    counts = (options.cold_runs, options.runs, options.launcher_runs, options.push_runs, options.engine_runs)
    if min(*counts, options.cpu_runs, options.cold_start_runs) < 1:
        parser.error("expected at least 1 run of everything")
    return options


def main() -> None:
    options = _arguments()
    workspace = commands.workspace()
    results = workspace.root / "bench/results.md"
    for part in options.only:
        text, versions = PARTS[part].measure(workspace, options)
        section = report.section(part, f"{report.facts(workspace.root, versions)}\n\n{text}")
        print(section, flush=True)
        if options.write:  # Now, since a later part may fail.
            old = results.read_text(encoding="utf-8") if results.exists() else ""
            results.write_text(report.merged(old, {part: section}, list(PARTS)), encoding="utf-8")
            commands.say("wrote bench/results.md")


if __name__ == "__main__":
    main()
