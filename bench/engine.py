"""Part `engine`: the same mlc-llm with the same compiled models on the TVM of this build and on the official TVM
wheels.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import commands
import engine_process
import report

NEEDS = "//wheels/mlc_llm"
TVM = {"ours": "//wheels/tvm:installed", "official": "//bench:official_tvm"}
_SHARED = ("//wheels:mlc_llm_dependencies", "//wheels:dependencies")
# Model → answers per batch size in one process, enough for some seconds.
MODELS = {"//models/tiny": 20, "//bench:small": 2}
_LIMIT = 300  # Seconds per process: an engine that failed can wait forever.


def figures(found: dict[str, Any]) -> dict[str, float]:
    """Row → figure of one process: seconds to start, and tokens per second as the median of its answers."""
    rows = {"start": found["start"]}
    for batch, rates in found["rates"].items():
        for what in ("prefill", "decode"):
            # There is one prompt, whatever the batch.
            if what == "decode" or batch == "1":
                rows[f"{what}, batch {batch}"] = median(each[what] for each in rates)
    return rows


def check(found: dict[str, dict[str, Any]]) -> None:
    """Checks that the sides ran different TVMs and produced the same texts.

    Args:
      found: side → what its process printed.

    Raises:
      SystemExit: they did not, so their figures cannot be compared.
    """
    ours, official = found["ours"], found["official"]
    if ours["tvm"] == official["tvm"]:
        raise SystemExit(
            f"bench: expected two TVMs, found {ours['tvm']} on both sides: look at PYTHONPATH in bench/engine.py"
        )
    if ours["tokens"] != official["tokens"]:
        raise SystemExit(
            f"bench: expected the same number of tokens on both sides, found {ours['tokens']} and {official['tokens']}"
            " (prompt, answer)"
        )
    for batch, texts in ours["texts"].items():
        if texts != official["texts"][batch]:
            raise SystemExit(
                f"bench: expected the same text on both sides, found {texts!r} and {official['texts'][batch]!r}"
            )


def rows(runs: list[dict[str, dict[str, float]]]) -> list[list[str]]:
    """A row per figure: the medians of both sides, and median, minimum and maximum of the runs' ratios.

    Args:
      runs: side → `figures`, for each run.
    """
    made = []
    for name in runs[0]["ours"]:
        pairs = [(run["ours"][name], run["official"][name]) for run in runs]
        write = report.duration if name == "start" else report.rate
        made.append([name, *(write(median(column)) for column in zip(*pairs)), report.ratios(pairs), str(len(pairs))])
    return made


def _process(tvm: Path, shared: list[Path], model: Path, library: Path, repetitions: int) -> dict[str, Any]:
    program = Path(engine_process.__file__)
    command: list[str | Path] = [
        sys.executable,
        program,
        "--model",
        model,
        "--library",
        library,
        "--repetitions",
        str(repetitions),
    ]
    environment = {
        "PATH": os.defpath,
        "PYTHONPATH": os.pathsep.join(map(str, [shared[0], tvm, *shared[1:]])),
        "LC_ALL": "C.UTF-8",
    }
    try:
        return json.loads(commands.output(command, env=environment, timeout=_LIMIT).splitlines()[-1])
    except subprocess.TimeoutExpired:
        sys.exit(
            f"bench: expected the engine of {model} on {tvm} to end within {_LIMIT} s, found it running: start"
            f" {program} by itself"
        )


def measure(workspace: commands.Bazel, options: argparse.Namespace) -> tuple[str, str]:
    """This part's tables, and the versions of what was measured."""
    if not workspace.compatible(NEEDS):
        return commands.NO_SOURCES, "nothing"
    commands.say("building wheels and models")
    environments = ["//wheels/mlc_llm:installed", *_SHARED]
    workspace.output("build", NEEDS, *environments, *TVM.values(), *MODELS)
    tvm = {side: workspace.file(target) for side, target in TVM.items()}
    shared = [workspace.file(target) for target in environments]
    text = ""
    for model, repetitions in MODELS.items():
        weights, library = (workspace.file(f"{_name(model)}.{what}") for what in ("weights", "library"))
        runs = []
        for number in range(options.engine_runs):
            commands.say(f"engine of {model}, run {number + 1} of {options.engine_runs}")
            # In turns; each side goes first equally often.
            sides = list(TVM) if number % 2 == 0 else list(reversed(TVM))
            found = {side: _process(tvm[side], shared, weights, library, repetitions) for side in sides}
            check(found)
            runs.append({side: figures(each) for side, each in found.items()})
        prompt, answer = found["ours"]["tokens"]
        what = f"`{model}`, {prompt} tokens of prompt, {answer} of answer, median"
        text += (
            report.table([what, "our TVM", "official TVM", "ours / official (range)", "processes each"], rows(runs))
            + "\n"
        )
    text += (
        "Start: lower is better. Prefill and decode, in tokens per second: higher is better. Both sides produced the"
        " same texts.\n"
    )
    versions = [
        " ".join(workspace.file(target).name.split("-")[:2])
        for target in (NEEDS, "//wheels/tvm", "@pypi//apache_tvm:whl")
    ]
    return text, ", ".join(versions)


def _name(label: str) -> str:
    """The label in its long form, with the target's name."""
    return label if ":" in label else f"{label}:{label.rsplit('/', 1)[1]}"
