"""Lets engines run beside a TVM without its compiler, as in the image mlc_llm_serve.

TVM is in that form if libtvm_compiler.so is missing or TVM_USE_RUNTIME_LIB=1: it then leaves out tvm.relax, whose
operators the compiler defines.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Sequence

from tvm.runtime import vm

import tvm

from .checkpoint_config import in_a_line
from .model_check import ModelError

COMPILES = ("mlc_llm.interface.jit", "tvm.relax")
"""Modules that compile, or that Python modules which compile import first."""


class _Refused:
    """Refuses modules that compile, in a line instead of with what they miss first."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None) -> None:
        if name in COMPILES:
            raise ModelError(
                f"{name}: expected TVM's compiler, found its runtime alone: name the model's compiled library with"
                " --model-lib, compile it with the image mlc_llm or the rule mlc_model, or unset TVM_USE_RUNTIME_LIB"
            )


def install() -> None:
    """Refuses to compile, and offers upstream's modules the one class of tvm.relax that they run models with."""
    sys.meta_path.insert(0, _Refused)  # type: ignore[arg-type]  # the protocol's method is enough
    sys.excepthook = in_a_line(sys.excepthook, ModelError)
    tvm.relax = types.SimpleNamespace(VirtualMachine=vm.VirtualMachine)
