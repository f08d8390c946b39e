"""Shows which parts of the GPU runtime work on this machine, and why the rest does not.

python3 -m tvm_cuda           # a table; exit status 0 if TVM can use a GPU, else 1
python3 -m tvm_cuda --json    # the same for programs
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from typing import Any

import tvm
from tvm_cuda import Part, status

MOST_DEVICES = 64


def devices() -> list[dict[str, Any]]:
    """Returns name, compute capability and memory in bytes of each GPU."""
    found = []
    if status()["device runtime"].loaded:
        for index in range(MOST_DEVICES):
            device = tvm.runtime.cuda(index)
            if not device.exist:
                break
            found.append(
                {
                    "name": device.device_name,
                    "compute capability": device.compute_version,
                    "memory": device.total_global_memory,
                }
            )
    return found


def table(parts: dict[str, Part], gpus: list[dict[str, Any]]) -> str:
    """Returns a line per part and a line per GPU."""
    lines = [f"{name:<15} {part.version:<8} {'loaded' if part.loaded else part.reason}" for name, part in parts.items()]
    for index, gpu in enumerate(gpus):
        lines.append(
            f"{f'cuda({index})':<15} {gpu['compute capability']:<8} {gpu['name']}, {gpu['memory'] / 2**30:.1f} GiB"
        )
    if parts["device runtime"].loaded and not gpus:
        lines.append(
            "no GPU: the driver shows none; in a container, start it with --gpus all; else see nvidia-smi and"
            " CUDA_VISIBLE_DEVICES"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python3 -m tvm_cuda", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    parts, gpus = status(), devices()
    if options.json:
        print(
            json.dumps(
                {"parts": {name: dataclasses.asdict(part) for name, part in parts.items()}, "devices": gpus}, indent=2
            )
        )
    else:
        print(table(parts, gpus))
    return 0 if gpus else 1


if __name__ == "__main__":
    sys.exit(main())
