#!/usr/bin/python3
"""Prints what works in this image: versions, libraries and where they are loaded from, devices, a compiled function.

Exits with 1 if something that the image promises does not work; a missing GPU is reported, not a failure.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import pathlib
import platform
import sys
from collections.abc import Callable, Iterator
from typing import Any

# The wheel recipes name what the image must contain; not all of our images have mlc-llm.
_RECIPES = pathlib.Path("/usr/local/share/wheels")
# Images that only serve pack no wheels. They have mlc-llm, and no compiler.
_ONLY_SERVES = not pathlib.Path("/usr/local/bin/build").exists()
_HAS_MLC_LLM = _ONLY_SERVES or (_RECIPES / "mlc_llm.json").is_file()
_HAS_CUDA = (_RECIPES / "apache_tvm_cuda.json").is_file()
_TINY_MODEL = pathlib.Path("/tests/mlc_llm/tiny")

_DISTRIBUTIONS = (
    "apache-tvm",
    "apache-tvm-ffi",
    "numpy",
    *(["apache-tvm-cuda"] if _HAS_CUDA else []),
    *(["mlc-llm"] if _HAS_MLC_LLM else []),
)
_REQUIRED_LIBRARIES = (
    "libtvm_ffi.so",
    "libtvm_runtime.so",
    *([] if _ONLY_SERVES else ["libtvm_runtime_extra.so", "libtvm_compiler.so"]),
)


class Failure(Exception):
    """Something that the image promises does not work."""


def versions() -> Iterator[str]:
    yield f"python {platform.python_version()} ({sys.executable})"
    for name in _DISTRIBUTIONS:
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            raise Failure(f"the distribution {name} is not installed") from None
        yield f"{name} {distribution.version} ({distribution.locate_file('')})"


def libraries() -> Iterator[str]:
    import tvm  # noqa: F401  loads the libraries

    with open("/proc/self/maps") as maps:
        paths = {line.split()[-1] for line in maps if "/libtvm" in line}
    yield from sorted(paths)
    loaded = {path.rsplit("/", 1)[-1] for path in paths}
    missing = [name for name in _REQUIRED_LIBRARIES if name not in loaded]
    if missing:
        raise Failure(f"not loaded by `import tvm`: {', '.join(missing)}")


def compiled_add() -> Iterator[str]:
    import numpy as np

    import tvm
    from tvm import te

    size = 1000
    a, b = (te.placeholder((size,), "float32", name=name) for name in "ab")
    total = te.compute((size,), lambda i: a[i] + b[i], name="total")
    function = te.create_prim_func([a, b, total]).with_attr("global_symbol", "add")
    module = tvm.compile(tvm.IRModule({"add": function}), target="llvm")
    x, y = np.arange(size, dtype="float32"), np.full(size, 0.5, "float32")
    result = tvm.runtime.empty((size,), "float32")
    module["add"](tvm.runtime.tensor(x), tvm.runtime.tensor(y), result)
    if not np.array_equal(result.numpy(), x + y):
        raise Failure("a + b compiled for the CPU differs from NumPy's")
    yield f"a + b over {size} float32, compiled by LLVM {tvm.target.codegen.llvm_version_major()}, equals NumPy's"


def devices() -> Iterator[str]:
    import tvm

    if not tvm.cpu().exist:
        raise Failure("TVM finds no CPU device")
    yield "cpu: works"
    if not _HAS_CUDA:
        yield "cuda: none; not in this image, but in those with cuda in their name"
        return
    from tvm_cuda.__main__ import devices as gpus
    from tvm_cuda.__main__ import table

    import tvm_cuda

    found = gpus()
    yield from table(tvm_cuda.status(), found).splitlines()
    if found:
        # mlc_llm_serve_cuda is for models that do not call it.
        cublas = pathlib.Path(tvm_cuda.__file__).parents[1] / "nvidia/cu13/lib/libcublas.so.13"
        yield _matrix_product(tvm) if cublas.exists() else _round_trip(tvm)


def _round_trip(tvm: Any) -> str:
    """Copies an array to the first GPU and back."""
    import numpy as np

    size = 1 << 18
    sent = np.random.default_rng(0).standard_normal(size, "float32")
    if not np.array_equal(tvm.runtime.tensor(sent, tvm.cuda(0)).numpy(), sent):
        raise Failure("an array that was copied to the GPU and back differs")
    return f"cuda: {size} float32 were copied to the GPU and back"


def _matrix_product(tvm: Any) -> str:
    """Multiplies two matrices with cuBLAS on the first GPU."""
    import numpy as np

    size = 512
    a, b = (np.random.default_rng(seed).standard_normal((size, size), "float32") for seed in (0, 1))
    result = tvm.runtime.empty((size, size), "float32", tvm.cuda(0))
    tvm.get_global_func("tvm.contrib.cublas.matmul")(
        tvm.runtime.tensor(a, tvm.cuda(0)), tvm.runtime.tensor(b, tvm.cuda(0)), result, False, False
    )
    error = np.linalg.norm(result.numpy() - a @ b) / np.linalg.norm(a @ b)
    # float32 sums of 512 products; cuBLAS may use TF32, whose products have 10 bits.
    if not error < 2e-3:
        raise Failure(f"a matrix product on the GPU differs from NumPy's by {error:.1e} of it")
    return f"cuBLAS: a product of {size}x{size} float32 matrices equals NumPy's to {error:.0e}"


def engine() -> Iterator[str]:
    from mlc_llm import MLCEngine

    started = MLCEngine(str(_TINY_MODEL), model_lib=f"{_TINY_MODEL}.so", device="cpu", mode="interactive")
    try:
        question = {"messages": [{"role": "user", "content": "Hello"}], "temperature": 0, "max_tokens": 8}
        answers = [started.chat.completions.create(**question) for _ in range(2)]
    finally:
        started.terminate()
    first, second = (answer.choices[0].message.content for answer in answers)
    if first != second or not first:
        raise Failure(f"the same question at temperature 0 was answered with {first!r}, then {second!r}")
    yield (
        f"mlc-llm answers {answers[0].usage.prompt_tokens} tokens with {answers[0].usage.completion_tokens}, on the"
        " CPU, with a tiny model"
    )


CHECKS: dict[str, Callable[[], Iterator[str]]] = {
    "versions": versions,
    "libraries": libraries,
    **({} if _ONLY_SERVES else {"compiler": compiled_add}),
    "devices": devices,
    **({"engine": engine} if _HAS_MLC_LLM else {}),
}


def main() -> int:
    argparse.ArgumentParser(
        prog="smoke", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    failures = 0
    for name, check in CHECKS.items():
        print(f"{name}:")
        try:
            for line in check():
                print(f"  {line}")
        except Exception as error:  # any failure is a result to report
            failures += 1
            print(f"  FAILED: {type(error).__name__}: {error}")
    print("smoke: everything works" if not failures else f"smoke: {failures} of {len(CHECKS)} checks failed")
    return min(failures, 1)


if __name__ == "__main__":
    sys.exit(main())
