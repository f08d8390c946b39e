"""Writes the C source of a stub of CUDA's driver library, so that programs can link on machines without a driver.

    make_driver_stub cuda.h --output driver_stub.c
    make_driver_stub cuda.h --driver-version 12080 --output old_driver.c    # for tests: CUDA 12.8 without a GPU

Like NVIDIA's stubs, each function returns CUDA_ERROR_STUB_LIBRARY (34), so that the first call fails in a program that
loads the stub by mistake.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

# CUresult CUDAAPI cuInit(unsigned int Flags);
_DECLARATION = re.compile(r"\bCUresult\s+CUDAAPI\s+(cu[A-Z]\w*)\s*\(")
# #define cuDeviceTotalMem                    cuDeviceTotalMem_v2
_RENAMED = re.compile(r"^\s*#\s*define\s+(cu[A-Z]\w*)\s+(cu[A-Z]\w*)\s*$", re.M)
# #define cuMemcpyHtoD __CUDA_API_PTDS(cuMemcpyHtoD_v2)
_PER_THREAD = re.compile(r"^\s*#\s*define\s+(cu[A-Z]\w*)\s+__CUDA_API_PT[DS]SZ?\w*\((cu[A-Z]\w*)\)\s*$", re.M)

STUB_LIBRARY = 34
NO_DEVICE = 100


def functions(header: str) -> list[str]:
    """Returns the sorted names of the library's functions: those that cuda.h declares, and what macros rename them to.

    Raises:
        ValueError: the file declares none, so it is not cuda.h.
    """
    renamed = {match[1]: match[2] for pattern in (_RENAMED, _PER_THREAD) for match in pattern.finditer(header)}
    declared = set(_DECLARATION.findall(header))
    if "cuInit" not in declared:
        raise ValueError("expected the declarations of CUDA's driver API, found no cuInit: is this cuda.h?")
    return sorted(declared | {new for old, new in renamed.items() if old in declared})


def source(names: list[str], driver_version: int | None = None) -> str:
    """Returns the C source of the library.

    Args:
        names: the functions.
        driver_version: what cuDriverGetVersion returns, such as 13000 for CUDA 13.0. All other functions then report
          that there is no GPU. None makes a stub.
    """
    lines = ["// Names of CUDA's driver API; see make_driver_stub.py."]
    for name in names:
        if driver_version is not None and name == "cuDriverGetVersion":
            lines.append(f"int {name}(int* version) {{ *version = {driver_version}; return 0; }}")
        else:
            lines.append(f"int {name}(void) {{ return {STUB_LIBRARY if driver_version is None else NO_DEVICE}; }}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("header", type=Path, help="cuda.h")
    parser.add_argument(
        "--driver-version", type=int, metavar="N", help="imitate a driver for CUDA N (13000 is 13.0) without a GPU"
    )
    parser.add_argument("--output", type=Path, required=True, help="the source to write")
    options = parser.parse_args()
    try:
        options.output.write_text(
            source(functions(options.header.read_text(encoding="utf-8")), options.driver_version) + "\n",
            encoding="utf-8",
        )
    except (OSError, ValueError) as error:
        print(f"make_driver_stub: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
