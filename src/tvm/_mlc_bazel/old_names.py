"""TVM's names from before 0.26, for older scripts: `from tvm.script import tir as T`, `tvm.nd`, `tvm.base._LIB`.

`import tvm` calls `install` through TVM's own extension point (entry point group "tvm.backends"), so
TVM_DEVICE_BACKEND_AUTOLOAD=0 turns it off. Nothing is imported until a script uses an old name. Each name then gives a
DeprecationWarning that says the new one. All of them go with release `REMOVAL` of this build.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
import warnings
from collections.abc import Callable, Sequence
from typing import Any

REMOVAL = "0.3.0"
"""The release of this build (VERSION in version.bzl) that no longer has the old names. A test fails when it is due."""

MODULES = {
    "tvm._ffi": ("tvm_ffi",),
    "tvm._ffi.base": ("tvm.base",),
    "tvm._ffi.libinfo": ("tvm.libinfo",),
    "tvm.contrib.cc": ("tvm.support.cc",),
    "tvm.contrib.ndk": ("tvm.support.ndk",),
    "tvm.contrib.nvcc": ("tvm.support.nvcc",),
    "tvm.contrib.tar": ("tvm.support.tar",),
    "tvm.contrib.utils": ("tvm.support.utils",),
    "tvm.dlight": ("tvm.s_tir.dlight",),
    "tvm.meta_schedule": ("tvm.s_tir.meta_schedule",),
    "tvm.nd": ("tvm.runtime",),
    "tvm.runtime.ndarray": ("tvm.runtime",),
    "tvm.script.ir_builder.tir": ("tvm.tirx.script.builder",),
    "tvm.script.parser.tir": ("tvm.tirx.script.parser",),
    "tvm.script.tir": ("tvm.script.tirx",),
    "tvm.tir": ("tvm.tirx", "tvm.s_tir"),
    "tvm.tir.block_dependence_info": ("tvm.s_tir.sblock_dependence_info",),
    "tvm.tir.block_scope": ("tvm.s_tir.sblock_scope",),
}
"""Old module → the modules that have its content now. Modules below an old one are looked for below the new ones."""

NAMES = {
    "tvm._ffi.register_func": "tvm_ffi.register_global_func",
    "tvm.dlight.BlockInfo": "tvm.s_tir.dlight.SBlockInfo",
    "tvm.dlight.analysis.BlockInfo": "tvm.s_tir.dlight.analysis.SBlockInfo",
    "tvm.meta_schedule.derived_object": "tvm.ir.utils.derived_object",
    "tvm.nd.NDArray": "tvm.runtime.Tensor",
    "tvm.nd.array": "tvm.runtime.tensor",
    "tvm.register_func": "tvm.register_global_func",
    "tvm.runtime.NDArray": "tvm.runtime.Tensor",
    "tvm.runtime.PackedFunc": "tvm_ffi.Function",
    "tvm.runtime.ndarray.NDArray": "tvm.runtime.Tensor",
    "tvm.runtime.ndarray.array": "tvm.runtime.tensor",
    # It allocated in the block, where schedules look for buffers; the new function of this name is a statement.
    "tvm.script.ir_builder.tir.alloc_buffer": "tvm.tirx.script.builder.sblock_alloc_buffer",
    "tvm.script.ir_builder.tir.block": "tvm.tirx.script.builder.sblock",
    "tvm.script.ir_builder.tir.block_attr": "tvm.tirx.script.builder.sblock_attr",
    "tvm.script.tir.alloc_buffer": "tvm.script.tirx.sblock_alloc_buffer",
    "tvm.script.tir.block": "tvm.script.tirx.sblock",
    "tvm.script.tir.block_attr": "tvm.script.tirx.sblock_attr",
    "tvm.tir.BijectiveLayout": "tvm.s_tir.SBijectiveLayout",
    "tvm.tir.Block": "tvm.tirx.SBlock",
    "tvm.tir.BlockDependenceInfo": "tvm.s_tir.SBlockDependenceInfo",
    "tvm.tir.BlockRealize": "tvm.tirx.SBlockRealize",
    "tvm.tir.BlockScope": "tvm.s_tir.SBlockScope",
    "tvm.tir.Call": "tvm.ir.Call",
    "tvm.tir.Layout": "tvm.s_tir.SLayout",
    "tvm.tir.PrimExpr": "tvm.ir.Expr",
    "tvm.tir.SizeVar": "tvm.tirx.Var",
    "tvm.tir.analysis.find_anchor_block": "tvm.s_tir.analysis.find_anchor_sblock",
    "tvm.tir.analysis.get_block_access_region": "tvm.s_tir.analysis.get_sblock_access_region",
    "tvm.tir.analysis.get_block_read_write_region": "tvm.s_tir.analysis.get_sblock_read_write_region",
    "tvm.tir.bijective_layout": "tvm.s_tir.sbijective_layout",
    "tvm.tir.block_dependence_info.BlockDependenceInfo": "tvm.s_tir.SBlockDependenceInfo",
    "tvm.tir.block_scope.BlockScope": "tvm.s_tir.SBlockScope",
    "tvm.tir.expr.Call": "tvm.ir.Call",
    "tvm.tir.expr.SizeVar": "tvm.tirx.Var",
    "tvm.tir.function.PrimExpr": "tvm.ir.Expr",
    "tvm.tir.layout": "tvm.s_tir.slayout",
    "tvm.tir.schedule.BlockRV": "tvm.s_tir.schedule.SBlockRV",
    "tvm.tir.schedule.BlockScope": "tvm.s_tir.SBlockScope",
    "tvm.tir.stmt.Block": "tvm.tirx.SBlock",
    "tvm.tir.stmt.BlockRealize": "tvm.tirx.SBlockRealize",
    "tvm.tir.transform.CommonSubexprElimTIR": "tvm.tirx.transform.CommonSubexprElim",
    "tvm.tir.transform.Simplify": "tvm.tirx.transform.StmtSimplify",
    "tvm.tir.transform.SimplifyConfig": "tvm.tirx.transform.StmtSimplifyConfig",
}
"""Old name → new one, where the last part differs."""

METHODS = {
    "tvm.tir.BlockDependenceInfo.get_block_scope": "tvm.s_tir.SBlockDependenceInfo.get_sblock_scope",
    "tvm.tir.Schedule.get_block": "tvm.s_tir.Schedule.get_sblock",
    "tvm.tir.schedule.ScheduleState.get_block_scope": "tvm.s_tir.schedule.ScheduleState.get_sblock_scope",
}
"""Old name of a method → the new one, of the same class."""


def _library() -> Any:
    """The handle of a library, where scripts read the path of TVM's library: `tvm.base._LIB._name`."""
    from tvm.base import _LOADED_LIBS

    return _LOADED_LIBS["tvm_runtime"]


def _find_lib_path() -> Callable[..., list[str]]:
    def find_lib_path(name: str | None = None, search_path: str | None = None) -> list[str]:
        """The paths of TVM's library; the former parameters have no effect."""
        from tvm.libinfo import find_libtvm_runtime

        return [find_libtvm_runtime()]

    return find_lib_path


def _prim_func() -> Callable[..., Any]:
    from .old_script import prim_func

    return prim_func


VALUES: dict[str, tuple[str, Callable[[], Any]]] = {
    "tvm.TVMError": ("Exception", lambda: Exception),
    "tvm._ffi.base._LIB": ("tvm.libinfo.find_libtvm_runtime()", _library),
    "tvm.base._LIB": ("tvm.libinfo.find_libtvm_runtime()", _library),
    "tvm.base.TVMError": ("Exception", lambda: Exception),
    "tvm.error.TVMError": ("RuntimeError", lambda: RuntimeError),
    "tvm.libinfo.find_lib_path": ("tvm.libinfo.find_libtvm_runtime", _find_lib_path),
    "tvm.script.tir.prim_func": ("tvm.script.tirx.prim_func(s_tir=True)", _prim_func),
}
"""Old name → what to use now, and what gives the old name's value."""


def warn(old: str, new: str) -> None:
    """Warns at the line of the script that uses an old name, not at the lines of TVM or of Python's imports."""
    frame = sys._getframe(1)
    # The parser of kernels evaluates their expressions as "<ast>".
    while frame.f_back and (
        frame.f_globals.get("__name__", "").partition(".")[0] in ("importlib", "tvm")
        or frame.f_code.co_filename == "<ast>"
    ):
        frame = frame.f_back
    warnings.warn_explicit(
        f"{old} is an old name of {new}; use that, because release {REMOVAL} of this build has only the new one",
        DeprecationWarning,
        frame.f_code.co_filename,
        frame.f_lineno,
        module=frame.f_globals.get("__name__", ""),
        registry=frame.f_globals.setdefault("__warningregistry__", {}),
    )


def _renamed(old: str) -> Any:
    """Returns the value of an old name in NAMES or VALUES.

    Raises:
        AttributeError: it is in neither.
    """
    if old in NAMES:
        new = NAMES[old]
        warn(old, new)
        module, _, name = new.rpartition(".")
        return getattr(importlib.import_module(module), name)
    if old in VALUES:
        new, value = VALUES[old]
        warn(old, new)
        return value()
    raise AttributeError(old)


def _homes(old: str) -> Sequence[str]:
    """Returns the modules that have an old module's content now; none if it is no old module's name."""
    if old in MODULES:
        return MODULES[old]
    parent, _, name = old.rpartition(".")
    below = [f"{home}.{name}" for home in _homes(parent)] if parent else []
    return [module for module in below if _exists(module)]


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False  # What it would be in is no package.


class OldModule(types.ModuleType):
    """A module under its old name, whose content is looked up in the new ones."""

    def __init__(self, name: str, homes: Sequence[str]) -> None:
        super().__init__(name, f"Old name of {' and '.join(homes)}.")
        self.__path__: list[str] = []
        # Names that a script changed, and the new module of each: mock.patch deletes a name before it restores it.
        self._changed: dict[str, types.ModuleType] = {}
        self._homes = [importlib.import_module(home) for home in homes]

    def __getattr__(self, name: str) -> Any:
        if name == "__all__":  # For `from tvm.tir import *`, which else looks into this module's own dictionary.
            return [public for public in dir(self) if not public.startswith("_")]
        if name.startswith("__"):
            raise AttributeError(name)
        old = f"{self.__name__}.{name}"
        if old in NAMES or old in VALUES:
            return _renamed(old)
        if old in MODULES:
            return importlib.import_module(old)
        for home in self._homes:
            try:
                value = getattr(home, name)
            except AttributeError:
                continue
            # Its content may be in several modules, too.
            below = isinstance(value, types.ModuleType) and value.__name__ == f"{home.__name__}.{name}"
            return importlib.import_module(old) if below else value
        new = " and ".join(home.__name__ for home in self._homes)
        raise AttributeError(f"module {self.__name__!r}, an old name of {new}, has no attribute {name!r}")

    def _place(self, name: str) -> tuple[types.ModuleType, str] | None:
        """Returns the module and the name that has a value now; None for what belongs to the old module itself."""
        old = f"{self.__name__}.{name}"
        if name.startswith("__") or name in ("_changed", "_homes") or name in self.__dict__ or old in VALUES:
            return None
        if old in NAMES:
            module, _, name = NAMES[old].rpartition(".")
            return importlib.import_module(module), name
        first = next((home for home in self._homes if hasattr(home, name)), self._homes[0])
        return self._changed.setdefault(name, first), name

    def __setattr__(self, name: str, value: Any) -> None:
        place = None if isinstance(value, OldModule) else self._place(name)
        if place:
            setattr(*place, value)
        else:
            super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        place = self._place(name)
        if place:
            delattr(*place)
        else:
            super().__delattr__(name)

    def __dir__(self) -> list[str]:
        parts = (old.rpartition(".") for old in (*NAMES, *VALUES))
        renamed = {name for owner, _, name in parts if owner == self.__name__}
        return sorted(renamed.union(*map(dir, self._homes)))


class _OldMethod:
    """A method under its old name.

    Args:
        old: the old name, with class and module.
        new: the new one.
    """

    def __init__(self, old: str, new: str) -> None:
        self._old, self._new = old, new

    def __get__(self, instance: object | None, owner: type) -> Any:
        warn(self._old, self._new)
        return getattr(owner if instance is None else instance, self._new.rpartition(".")[2])


class Finder:
    """Finds old modules. It is the last in sys.meta_path, so it sees only what nothing else finds."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        homes = _homes(name) if name.startswith("tvm.") else ()
        return importlib.machinery.ModuleSpec(name, _Loader(homes), is_package=True) if homes else None


class _Loader(importlib.abc.Loader):
    """Makes an old module.

    Args:
        homes: the modules that have its content now.
    """

    def __init__(self, homes: Sequence[str]) -> None:
        self._homes = homes

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> OldModule:
        return OldModule(spec.name, self._homes)

    def exec_module(self, module: types.ModuleType) -> None:
        if module.__name__ in MODULES:  # Those below it came with a warning.
            warn(module.__name__, " and ".join(self._homes))


def _with_old_names(module: types.ModuleType) -> None:
    """Lets a module of TVM answer for old names in it (PEP 562)."""
    upstream = module.__dict__.get("__getattr__")

    def find(name: str) -> Any:
        old = f"{module.__name__}.{name}"
        if old in MODULES:
            return importlib.import_module(old)
        if old in NAMES or old in VALUES:
            return _renamed(old)
        if upstream:
            return upstream(name)
        raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

    module.__dict__["__getattr__"] = find


def install() -> None:
    """Makes the old names available."""
    sys.meta_path.append(Finder)  # type: ignore[arg-type]  # the protocol's methods are enough
    owners = {name.rpartition(".")[0] for name in (*MODULES, *NAMES, *VALUES)}
    for owner in sorted(owners):
        if owner in sys.modules and not isinstance(sys.modules[owner], OldModule):
            _with_old_names(sys.modules[owner])
    for old, new in METHODS.items():
        owner, _, name = new.rpartition(".")[0].rpartition(".")
        if owner in sys.modules:  # Not where TVM is only a runtime.
            setattr(getattr(sys.modules[owner], name), old.rpartition(".")[2], _OldMethod(old, new))
