"""What both programs of the bundle need from the machine: a GPU, NVIDIA's libraries, and NCCL without multicast."""

from __future__ import annotations

import argparse
import os
import subprocess
from pathlib import Path

import gpu

NCCL_ENVIRONMENT = {"NCCL_NVLS_ENABLE": "0"}
"""Turns off multicast over NVLink: a program that uses it and crashes can leave the NVSwitch in a state in which no GPU
of the host works until it is reset.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds --python and --nvidia-libraries."""
    parser.add_argument("--python", default="python3", help="the machine's Python (default: %(default)s)")
    parser.add_argument(
        "--nvidia-libraries",
        type=Path,
        metavar="FOLDER",
        help="site-packages folder with nvidia/cu13/lib (default: that of --python)",
    )


def environment() -> dict[str, str]:
    """Environment of the machine's Python: without the bundle's packages, which another Python cannot load."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def require_gpu() -> None:
    """Checks that this machine has a GPU.

    Raises:
        SystemExit: it has none; the message says what is missing.
    """
    try:
        count = gpu.device_count()
    except (OSError, RuntimeError) as error:
        raise SystemExit(f"run: expected an NVIDIA GPU, found none: {error}") from error
    if not count:
        raise SystemExit("run: expected an NVIDIA GPU, found none: CUDA_VISIBLE_DEVICES may hide it")


def nvidia_libraries(options: argparse.Namespace) -> Path:
    """The site-packages folder that holds NVIDIA's libraries.

    Args:
        options: what `add_arguments` parsed.

    Raises:
        SystemExit: the libraries are not there.
    """
    folder = options.nvidia_libraries
    if folder is None:
        command = [options.python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
        try:
            done = subprocess.run(command, env=environment(), stdout=subprocess.PIPE, text=True, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise SystemExit(
                f"run: --python {options.python}: expected a Python that names its site-packages: {error}"
            ) from error
        folder = Path(done.stdout.strip())
    runtime = folder / "nvidia/cu13/lib" / gpu.RUNTIME
    if not runtime.exists():
        raise SystemExit(
            f"run: --nvidia-libraries: expected a site-packages folder with NVIDIA's libraries, found no {runtime}"
        )
    return folder.absolute()
