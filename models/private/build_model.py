"""Makes a model for mlc-llm's engine out of a checkpoint, with mlc-llm's own commands; one step of two at a time.

    build_model --environment site-packages --output tiny weights checkpoint --quantization q0f32 --conv-template chatml
    build_model --environment site-packages --output tiny.so library tiny --target '{"kind": "llvm"}' --compiler g++

Their messages are shown only when they fail.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path


class ModelError(Exception):
    """A command of mlc-llm failed: what it said, then one line."""


def mlc_llm(command: list[str], environments: list[Path], **variables: str) -> None:
    """Runs a command of mlc-llm on this Python, with nothing of the machine in reach.

    Args:
        command: sub-command and arguments.
        environments: folders of installed packages, the first wins.
        variables: more environment variables.

    Raises:
        ModelError: it exits with another status than 0.
    """
    with tempfile.TemporaryDirectory() as home:
        environment = {
            "HOME": home,
            "PATH": "/nonexistent",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONHASHSEED": "0",
            "PYTHONPATH": os.pathsep.join(str(folder.absolute()) for folder in environments),
            # Threads of LLVM are not bound to cores, of which an action may have fewer than the machine.
            "TVM_BIND_THREADS": "0",
            **variables,
        }
        done = subprocess.run(
            [sys.executable, "-s", "-m", "mlc_llm", *command], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
    if done.returncode:
        raise ModelError(f"{done.stdout.rstrip()}\nmlc_llm {command[0]} failed with exit status {done.returncode}, see above")


def checkpoint_folder(path: Path) -> Path:
    """The folder of a checkpoint, given as such or by its config.json.

    Raises:
        ModelError: there is no config.json.
    """
    folder = path if path.is_dir() else path.parent
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder}: expected a model folder as Hugging Face's hub has them, found no config.json in it")
    return folder


def make_weights(options: argparse.Namespace, rest: list[str]) -> None:
    """Writes configuration, tokenizer and converted weights into the folder options.output."""
    folder = checkpoint_folder(options.model)
    output = ["--quantization", options.quantization, "--output", str(options.output)]
    mlc_llm(["gen_config", str(folder), *output, *rest], options.environment)
    # The device only holds a weight while it is quantised.
    mlc_llm(["convert_weight", str(folder), "--device", "cpu", *output], options.environment)


def make_library(options: argparse.Namespace, rest: list[str]) -> None:
    """Compiles the model that options.model configures into the shared library options.output."""
    command = ["compile", str(options.model / "mlc-chat-config.json"), "--device", options.target, "--output", str(options.output)]
    mlc_llm(command + rest, options.environment, CXX=str(options.compiler.absolute()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environment", type=Path, action="append", default=[], help="folder of installed packages, the first wins; repeated")
    parser.add_argument("--output", type=Path, required=True, help="the folder or library to write")
    steps = parser.add_subparsers(required=True)
    weights = steps.add_parser("weights", help="convert a checkpoint; more options are those of mlc_llm gen_config")
    weights.add_argument("model", type=Path, help="folder of the checkpoint, or its config.json")
    weights.add_argument("--quantization", required=True, help="name of the quantisation")
    weights.set_defaults(make=make_weights)
    library = steps.add_parser("library", help="compile a model; more options are those of mlc_llm compile")
    library.add_argument("model", type=Path, help="folder that the step weights made")
    library.add_argument("--target", required=True, help="TVM target as JSON; without a host in it, this machine's would be taken")
    library.add_argument("--compiler", type=Path, required=True, help="C++ compiler that links")
    library.set_defaults(make=make_library)
    options, rest = parser.parse_known_args()
    try:
        options.make(options, rest)
    except ModelError as error:
        print(f"build_model: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
