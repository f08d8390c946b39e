"""Worker process of a TVM session, with the libraries that worker.py loads. TVM's pool starts `python -m disco_worker
ID WORKERS GROUPS READ WRITE`.

TVM's own worker (tvm.exec.disco_worker) does not load mlc-llm, and mlc-llm's (mlc_llm.cli.worker) needs TVM's compiler,
which both sides lack.
Environment variables: MLC_NVIDIA_LIBRARIES, and BENCH_MLC_LLM with mlc-llm's native library if workers need it.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

import gpu


def main() -> None:
    worker, workers, groups, read, write = map(int, sys.argv[1:])
    gpu.load(Path(os.environ["MLC_NVIDIA_LIBRARIES"]), gpu.RUNTIME)
    import tvm

    ctypes.CDLL(str(Path(tvm.__file__).parent / "lib/libtvm_runtime_extra.so"))
    if library := os.environ.get("BENCH_MLC_LLM"):
        ctypes.CDLL(library)
    tvm.get_global_func("runtime.disco.WorkerProcess")(worker, workers, groups, read, write)


if __name__ == "__main__":
    main()
