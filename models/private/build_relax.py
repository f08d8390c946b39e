"""Compiles the Relax module that a function in a Python file returns into a shared library.

    build_relax --environment site-packages --output add.so --source add.py --function module \\
        --target '{"kind": "llvm"}' --compiler g++

TVM's output is shown only if it fails.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from models.private.compile_environment import (
    REPOSITORY,
    TargetError,
    add_kernel_options,
    kernel_options,
    run_python,
    split_target,
    target_variables,
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--environment",
        type=Path,
        action="append",
        default=[],
        help="folder of installed packages; repeatable, the first wins",
    )
    parser.add_argument("--output", type=Path, required=True, help="the library to write")
    parser.add_argument("--source", type=Path, required=True, help="Python file")
    parser.add_argument("--function", required=True, help="name of the function in it, which returns a tvm.IRModule")
    parser.add_argument("--arguments", default="{}", help="its keyword arguments: a JSON object")
    parser.add_argument("--pass-config", default="{}", help="options of TVM's passes: a JSON object")
    parser.add_argument("--target", required=True, help="TVM target as JSON, with its host")
    parser.add_argument("--compiler", type=Path, required=True, help="C++ compiler that links")
    parser.add_argument("--nvcc", type=Path, help="nvcc, for a target of kind cuda")
    add_kernel_options(parser)
    options = parser.parse_args()
    try:
        target, architectures = split_target(options.target)
        variables = target_variables(architectures, options.compiler, options.nvcc)
    except TargetError as error:
        print(f"build_relax: {error}", file=sys.stderr)
        return 1
    command = [
        "-m",
        "models.private.compile_relax",
        *kernel_options(options),
        str(options.source),
        options.function,
        options.arguments,
    ]
    command += [target, options.pass_config, str(options.output)]
    # A separate Python, because the order of sets, which a module can depend on, is fixed when an interpreter starts.
    done = run_python(command, [*options.environment, REPOSITORY], **variables)
    if done.returncode:
        print(done.stdout.rstrip(), file=sys.stderr)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
