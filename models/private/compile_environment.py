"""The environment for compiling models: a separate, isolated Python, and nvcc if the target is a GPU."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).absolute().parents[2]
"""The folder of this repository's modules; the last environment of a program that imports them."""


CUDA_OPT = "flashinfer=1;cublas_gemm=1;cudagraph=1"
"""The optimizations of mlc-llm for GPUs that this build has. CUDA graphs are in TVM's runtime."""


class TargetError(Exception):
    """The target cannot be compiled for. The message is one line."""


def run_python(arguments: list[str], environments: list[Path], **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs this Python isolated from the machine.

    Args:
        arguments: the arguments of the interpreter.
        environments: folders of installed packages; the first wins.
        variables: further environment variables.

    Returns:
        The exit status, and the output of both streams in stdout.
    """
    with tempfile.TemporaryDirectory() as scratch:
        home, temporary = Path(scratch, "home"), Path(scratch, "temporary")
        home.mkdir()
        temporary.mkdir()
        environment = {
            "HOME": str(home),
            "PATH": "/nonexistent",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONHASHSEED": "0",
            "PYTHONPATH": os.pathsep.join(str(folder.absolute()) for folder in environments),
            # A separate folder, because nvcc names files by process id, which can be equal in two sandboxes.
            "TMPDIR": str(temporary),
            # Do not bind threads to cores: an action may have fewer than the machine.
            "TVM_BIND_THREADS": "0",
            **variables,
        }
        command = [sys.executable, "-s", *arguments]
        return subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )


def architectures(nvcc: Path) -> list[str]:
    """Returns the architectures that nvcc generates machine code for, oldest first: sm_75, sm_80, ...

    Raises:
        TargetError: nvcc does not run.
    """
    try:
        done = subprocess.run(
            [nvcc.absolute(), "--list-gpu-code"],
            env={"PATH": str(nvcc.absolute().parent)},
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        said = f": {error.stderr.strip()}" if isinstance(error, subprocess.CalledProcessError) else ""
        raise TargetError(
            f"{nvcc}: expected nvcc, which lists its architectures; found that it does not run ({error}{said})"
        ) from None
    listed = [line.strip() for line in done.stdout.splitlines() if line.startswith("sm_")]
    return sorted(listed, key=lambda architecture: int(architecture.removeprefix("sm_")))


MULTI_ARCH = "MLC_MULTI_ARCH"
"""mlc-llm's environment variable for the architectures of a library for several: 80,90."""


def split_target(target: str) -> tuple[str, list[str]]:
    """Returns a target as TVM reads it, and the architectures of a GPU: TVM's one, and others.

    Args:
        target: what cpu_target() or cuda_target() returns.

    Raises:
        TargetError: it is neither.
    """
    try:
        attributes = json.loads(target)
        others = attributes.pop("other_archs", [])
        architectures = [attributes.get("arch"), *others] if attributes["kind"] == "cuda" else []
    except (ValueError, TypeError, KeyError, AttributeError):
        raise TargetError(
            f"target {target!r}: expected a TVM target as JSON, like those of cpu_target() and cuda_target() in"
            " //models:defs.bzl"
        ) from None
    return json.dumps(attributes) if others else target, architectures


def target_variables(found: list[str], compiler: Path, nvcc: Path | None) -> dict[str, str]:
    """Returns the environment variables that tell TVM where the linker is and, for a GPU, nvcc.

    Args:
        found: the architectures of a GPU, none for a CPU.
        compiler: the C++ compiler that links, and preprocesses for nvcc.
        nvcc: nvcc, or a program of that name that starts it.

    Raises:
        TargetError: an architecture is unknown to nvcc, or there is no nvcc.
    """
    variables = {"CXX": str(compiler.absolute())}
    if not found:
        return variables
    if nvcc is None:
        raise TargetError("target of kind cuda: expected nvcc, found none; give --nvcc")
    if nvcc.name != "nvcc":
        raise TargetError(f"{nvcc}: expected a program named nvcc, because TVM calls it by that name")
    known = architectures(nvcc)
    # sm_90a and sm_100f are sm_90 and sm_100 with additional instructions. nvcc lists them without the letter.
    for each in found:
        if not isinstance(each, str) or each.rstrip("af") not in known:
            raise TargetError(
                f"target of kind cuda: expected one of the architectures {', '.join(known)}, found {each}; give"
                " cuda_target(arch = ...) one of them"
            )
    return (
        variables
        | {
            # Only nvcc: it starts programs in its own folders, and by system(), whose /bin/sh needs no PATH.
            "PATH": str(nvcc.absolute().parent),
            "NVCC_PREPEND_FLAGS": f"-ccbin={compiler.absolute()}",
            # The alternative, NVRTC, needs a Python package with CUDA's bindings.
            "TVM_CUDA_COMPILE_MODE": "nvcc",
        }
        | ({MULTI_ARCH: ",".join(each.removeprefix("sm_") for each in found)} if len(found) > 1 else {})
    )


def add_kernel_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that name compiled kernels, which every program here passes on to the next."""
    parser.add_argument(
        "--kernels",
        action="append",
        default=[],
        metavar="NAME=OBJECT:…",
        help="kernels for a target of kind cuda, such as FlashInfer's float16_128; repeatable",
    )
    parser.add_argument(
        "--needed-library", action="append", default=[], help="shared library that those kernels call; repeatable"
    )


def kernel_options(options: argparse.Namespace) -> list[str]:
    """Returns the options that add_kernel_options read."""
    return [f"--kernels={each}" for each in options.kernels] + [
        f"--needed-library={each}" for each in options.needed_library
    ]
