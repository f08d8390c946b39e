"""Compiles a model when it is served without a library, where there is no C++ compiler.

Upstream compiles it with `mlc_llm compile` in another process, links it with a C++ compiler, and keeps the library
under the hash of the model's configuration. Here

* GNU ld alone links it: objects of LLVM need nothing that a C++ compiler adds (C++'s runtime, start files);
* a library is kept apart for each build of TVM and each CPU. A cache on a volume outlives both, and the wrong library
  would be refused by `model_check`, or end the process with SIGILL;
* it is complete once it is there: it is moved within one file system;
* a failure is one line that says what to do.
"""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tvm.support import cc
from tvm.target import codegen

from mlc_llm.support import constants

from . import versions  # type: ignore[attr-defined]  # written by the build
from .after_import import after_import
from .model_check import ModelError

LIBRARIES = ("libm.so.6", "libgcc_s.so.1", "libc.so.6")
"""What generated code calls: functions of mathematics, conversions of float16, memset. A C++ compiler adds them too."""


def link(output: str, objects: list[str], ld: str) -> None:
    """Links a shared library with GNU ld alone.

    Args:
        output: the library to write.
        objects: object files.
        ld: path of the linker.

    Raises:
        RuntimeError: it fails. Names the command and what the linker said.
    """
    command = [ld, "-shared", "--eh-frame-hdr", "--build-id=none", "-z", "noexecstack", "-o", output, *objects]
    done = subprocess.run(
        [*command, "--as-needed", *(f"-l:{name}" for name in LIBRARIES)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(command)}: expected a library, found exit status {done.returncode}: {done.stdout}"
        )


def linking_without_compiler(upstream_create: Callable[..., None]) -> Callable[..., None]:
    """Wraps TVM's `create_shared`, which needs a C++ compiler, to use GNU ld where there is none."""

    @functools.wraps(upstream_create)
    def create_shared(output: str, objects: list[str], *arguments: Any, **options: Any) -> None:
        ld = shutil.which("ld")
        plain = not any(arguments) and not any(options.values()) and all(path.endswith(".o") for path in objects)
        if ld and plain and cc._is_linux_like() and not cc.get_cc():
            link(output, objects, ld)
        else:
            upstream_create(output, objects, *arguments, **options)

    return create_shared


def libraries_of_this_machine() -> Path:
    """Returns the folder that upstream keeps its `model_lib` in: one for each build of TVM and each CPU."""
    build = versions.TVM.rpartition("+")[2] or versions.TVM
    return Path(constants.MLC_LLM_HOME) / "model_lib" / f"{build}-{codegen.llvm_get_system_cpu()}"


def compiling_for_this_machine(upstream_jit: Callable[..., Any], module: Any) -> Callable[..., Any]:
    """Wraps upstream's compilation of a model without a library, in its module."""

    @functools.wraps(upstream_jit)
    def jit(model_path: Path, *arguments: Any, **options: Any) -> Any:
        home = libraries_of_this_machine()
        module.MLC_LLM_HOME = home
        module.MLC_TEMP_DIR = constants.MLC_TEMP_DIR or str(home / "model_lib")
        (home / "model_lib").mkdir(parents=True, exist_ok=True)
        try:
            return upstream_jit(model_path, *arguments, **options)
        except RuntimeError as error:
            raise ModelError(
                f"{model_path}: expected its compiled library or one that can be compiled here, found: {error};"
                f" name it with --model-lib, or make it: mlc_llm compile {model_path} --output {model_path}.so in the"
                " image mlc_llm_dev, or the rule mlc_model"
            ) from None

    return jit


def _change_jit(module: Any) -> None:
    module.jit = compiling_for_this_machine(module.jit, module)


def install() -> None:
    """Replaces both. TVM looks its function up at each call, engines look up theirs when they start."""
    cc.create_shared = linking_without_compiler(cc.create_shared)
    after_import("mlc_llm.interface.jit", _change_jit)
