"""What a compiler of models runs in: a Python of its own with nothing of the machine in reach, and nvcc where the
target is a GPU.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).absolute().parents[2]
"""Where this repository's own modules are found; last among the environments of one that imports them."""


class TargetError(Exception):
    """The target is not one that can be compiled for: one line."""


def run_python(arguments: list[str], environments: list[Path], **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs this Python with nothing of the machine in reach.

    Args:
        arguments: the interpreter's.
        environments: folders of installed packages, the first wins.
        variables: more environment variables.

    Returns:
        Exit status, and in stdout what it said on both streams.
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
            # A folder of its own: nvcc names its files by process number, which two sandboxes can have in common.
            "TMPDIR": str(temporary),
            # Threads of LLVM are not bound to cores, of which an action may have fewer than the machine.
            "TVM_BIND_THREADS": "0",
            **variables,
        }
        command = [sys.executable, "-s", *arguments]
        return subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )


def architectures(nvcc: Path) -> list[str]:
    """The architectures that nvcc makes machine code for, oldest first: sm_75, sm_80, ...

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


def target_variables(target: str, compiler: Path, nvcc: Path | None) -> dict[str, str]:
    """The environment variables by which TVM finds what it calls to compile for a target: the linker, and nvcc if it is
    a GPU.

    Args:
        target: TVM target as JSON.
        compiler: C++ compiler that links, and preprocesses for nvcc.
        nvcc: nvcc, or a program of this name that starts it.

    Raises:
        TargetError: the target cannot be read, names no architecture that nvcc knows, or is a GPU and there is no nvcc.
    """
    expected = "expected a TVM target as JSON, as cpu_target() and cuda_target() of //models:defs.bzl give it"
    try:
        attributes = json.loads(target)
        kind = attributes["kind"]
    except (ValueError, TypeError, KeyError):
        raise TargetError(f"target {target!r}: {expected}") from None
    variables = {"CXX": str(compiler.absolute())}
    if kind != "cuda":
        return variables
    if nvcc is None:
        raise TargetError("target of kind cuda: expected nvcc, found none; give --nvcc")
    if nvcc.name != "nvcc":
        raise TargetError(f"{nvcc}: expected a program with the name nvcc, by which TVM calls it")
    found, known = attributes.get("arch"), architectures(nvcc)
    # sm_90a and sm_100f are sm_90 and sm_100 with instructions that only they have; nvcc lists them without.
    if not isinstance(found, str) or found.rstrip("af") not in known:
        raise TargetError(
            f"target of kind cuda: expected one of the architectures {', '.join(known)}, found {found}; give"
            " cuda_target(arch = ...) one of them"
        )
    return variables | {
        # nvcc alone: its steps are programs of its own folders, and it starts them by the C library's system(), whose
        # /bin/sh needs no PATH.
        "PATH": str(nvcc.absolute().parent),
        "NVCC_PREPEND_FLAGS": f"-ccbin={compiler.absolute()}",
        # TVM's other way, NVRTC, needs a Python package with CUDA's bindings.
        "TVM_CUDA_COMPILE_MODE": "nvcc",
    }
