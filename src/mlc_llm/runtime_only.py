"""Lets engines run beside a TVM without its compiler, as in the image mlc_llm_serve.

TVM is in that form if libtvm_compiler.so is missing or TVM_USE_RUNTIME_LIB=1: it then leaves out tvm.relax, whose
operators the compiler defines.
"""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Sequence

from tvm.runtime import vm

import tvm

from .checkpoint_config import in_a_line
from .model_check import ModelError

COMPILES = {
    "mlc_llm.interface.jit": (
        "name the model's compiled library: --model-lib LIBRARY, --additional-models MODEL,LIBRARY"
    ),
    "tvm.relax": "run what compiles or converts models in the image mlc_llm_dev",
}
"""Modules that compile, or that modules which compile import first → what to do instead."""


class CompilerError(ModelError, ImportError):
    """TVM's compiler is not here. Also an ImportError, for programs that look whether it is."""


class _Refused:
    """Refuses modules that compile, in a line instead of with what they miss first."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None) -> None:
        if name in COMPILES:
            switched_off = os.environ.get("TVM_USE_RUNTIME_LIB") == "1"
            raise CompilerError(
                f"{name}: expected TVM's compiler, found its runtime alone: {COMPILES[name]}"
                + (", or unset TVM_USE_RUNTIME_LIB" if switched_off else "")
            )


def install() -> None:
    """Refuses to compile, and offers upstream's modules the one class of tvm.relax that they run models with."""
    sys.meta_path.insert(0, _Refused)  # type: ignore[arg-type]  # the protocol's method is enough
    sys.excepthook = in_a_line(sys.excepthook, ModelError)
    tvm.relax = types.SimpleNamespace(VirtualMachine=vm.VirtualMachine)
