"""Makes a model for mlc-llm's engine from a checkpoint with mlc-llm's own commands, one step at a time.

    build_model --environment site-packages --output tiny weights checkpoint --quantization q0f32 --conv-template chatml
    build_model --environment site-packages --output tiny.so library tiny --target '{"kind": "llvm"}' --compiler g++

The commands' output is shown only if they fail.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from models.private.compile_environment import (
    CUDA_OPT,
    REPOSITORY,
    TargetError,
    add_kernel_options,
    kernel_options,
    run_python,
    split_target,
    target_variables,
)


class ModelError(Exception):
    """A command of mlc-llm failed. The message is its output, then one line."""


NOTE = "note: "
"""How a line begins that should be read although nothing failed."""


def mlc_llm(command: list[str], environments: list[Path], cuda: list[str] | None = None, /, **variables: str) -> None:
    """Runs a command of mlc-llm on this Python, isolated from the machine.

    Args:
        command: sub-command and arguments.
        environments: folders of installed packages; the first wins.
        cuda: if the command compiles for a GPU, options of cuda_modules.
        variables: further environment variables.

    Raises:
        ModelError: it fails.
    """
    if cuda:
        done = run_python(
            ["-m", "models.private.cuda_modules", *cuda, "mlc_llm", *command],
            [*environments, REPOSITORY],
            **variables,
        )
    else:
        done = run_python(["-m", "mlc_llm", *command], environments, **variables)
    for line in done.stdout.splitlines() if not done.returncode else ():
        if line.startswith(NOTE):
            print(f"build_model: {line.removeprefix(NOTE)}", file=sys.stderr)
    if done.returncode:
        raise ModelError(
            f"{done.stdout.rstrip()}\nmlc_llm {command[0]} failed with exit status {done.returncode}, see above"
        )


def checkpoint_folder(path: Path) -> Path:
    """Returns the folder of a checkpoint, given the folder or its config.json.

    Raises:
        ModelError: there is no config.json.
    """
    folder = path if path.is_dir() else path.parent
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"{folder}: expected a model folder like those of Hugging Face's hub, found no config.json in it"
        )
    return folder


def make_config(options: argparse.Namespace, rest: list[str]) -> None:
    """Writes the configuration, and the tokenizer if there is one, into the folder options.output."""
    command = [
        "gen_config",
        str(checkpoint_folder(options.model)),
        "--quantization",
        options.quantization,
        "--output",
        str(options.output),
    ]
    mlc_llm(command + rest, options.environment, **accepted(options))
    if options.system_message:
        path = options.output / "mlc-chat-config.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        config["conv_template"]["system_message"] = options.system_message
        path.write_text(json.dumps(config, indent=2), encoding="utf-8")


def accepted(options: argparse.Namespace) -> dict[str, str]:
    """Returns the environment variables with what a checkpoint has and the model ignores."""
    return {
        variable: ",".join(names)
        for variable, names in [
            ("MLC_IGNORE_CONFIG_KEYS", options.ignore_config_key),
            ("MLC_IGNORE_TENSORS", options.ignore_tensor),
        ]
        if names
    }


def make_weights(options: argparse.Namespace, rest: list[str]) -> None:
    """Writes configuration, tokenizer and converted weights into the folder options.output."""
    make_config(options, rest)
    # The device only stores a weight during its quantization.
    command = ["convert_weight", str(checkpoint_folder(options.model)), "--device", "cpu"]
    command += ["--quantization", options.quantization, "--output", str(options.output)]
    mlc_llm(command, options.environment, **accepted(options))


def make_library(options: argparse.Namespace, rest: list[str]) -> None:
    """Compiles the model that options.model configures into the shared library options.output."""
    target, architectures = split_target(options.target)
    variables = target_variables(architectures, options.compiler, options.nvcc)
    cuda = None
    if architectures:
        cuda = ["--target", target, "--cublas-modules", str(options.cublas_modules.absolute())]
        cuda += kernel_options(options) + ([] if options.opt else ["--optional-flashinfer"])
    command = [
        "compile",
        str(options.model / "mlc-chat-config.json"),
        "--device",
        target,
        "--output",
        str(options.output),
        "--opt",
        options.opt or (CUDA_OPT if cuda else "O2"),
    ]
    # The environment may lack the engine's library.
    mlc_llm(command + rest, options.environment, cuda, SKIP_LOADING_MLCLLM_SO="1", **variables)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--environment",
        type=Path,
        action="append",
        default=[],
        help="folder of installed packages; repeatable, the first wins",
    )
    parser.add_argument("--output", type=Path, required=True, help="the folder or library to write")
    steps = parser.add_subparsers(required=True)
    for name, make, what in [
        ("config", make_config, "configure a model that has no weights yet"),
        ("weights", make_weights, "convert a checkpoint"),
    ]:
        step = steps.add_parser(name, help=f"{what}; accepts the options of mlc_llm gen_config")
        step.add_argument("model", type=Path, help="folder of the checkpoint, or its config.json")
        step.add_argument("--quantization", required=True, help="name of the quantization")
        step.add_argument("--system-message", help="of conversations without one; default: the template's")
        for option, of in [("--ignore-config-key", "a key of config.json"), ("--ignore-tensor", "tensors, a pattern")]:
            step.add_argument(
                option, action="append", default=[], help=f"{of} that mlc-llm does not know and may ignore; repeatable"
            )
        step.set_defaults(make=make)
    library = steps.add_parser("library", help="compile a model; accepts the options of mlc_llm compile")
    library.add_argument("model", type=Path, help="folder that the step weights or config wrote")
    library.add_argument(
        "--target",
        required=True,
        help="TVM target as JSON, with its host; without one, TVM would compile for this machine",
    )
    library.add_argument("--compiler", type=Path, required=True, help="C++ compiler that links")
    library.add_argument("--nvcc", type=Path, help="nvcc, for a target of kind cuda")
    library.add_argument(
        "--cublas-modules", type=Path, help="library that saves calls of cuBLAS, for a target of kind cuda"
    )
    add_kernel_options(library)
    library.add_argument("--opt", help="mlc-llm's optimizations; default: all that this build has for the target")
    library.set_defaults(make=make_library)
    options, rest = parser.parse_known_args()
    try:
        options.make(options, rest)
    except (ModelError, TargetError) as error:
        print(f"build_model: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
