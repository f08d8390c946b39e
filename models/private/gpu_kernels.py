"""Puts compiled kernels into libraries for GPUs."""

from __future__ import annotations

import argparse
import functools
from pathlib import Path
from typing import Any

from tvm.support import cc

import tvm


class Kernels:
    """Objects that a library may contain, and the shared libraries that they call."""

    def __init__(self, objects: dict[str, list[Path]], libraries: list[Path]) -> None:
        """
        Args:
            objects: name → objects.
            libraries: what they call.
        """
        self.objects, self.libraries = objects, libraries
        self.linked = False

    @classmethod
    def of(cls, options: argparse.Namespace) -> Kernels:
        """Returns those that the options of compile_environment.add_kernel_options name."""
        return cls(
            {
                name: [Path(path) for path in objects.split(":")]
                for name, _, objects in (each.partition("=") for each in options.kernels)
            },
            [Path(library) for library in options.needed_library],
        )

    def modules(self, name: str) -> list[tvm.runtime.Module]:
        """Returns kernels as modules that TVM links, for the attribute external_mods."""
        self.linked = True
        return [tvm.runtime.load_static_library(str(path.absolute()), func_names=[]) for path in self.objects[name]]

    def added(self, module: tvm.IRModule, name: str) -> tvm.IRModule:
        """Returns the module with kernels that its functions call by name."""
        known = list((module.attrs or {}).get("external_mods", []))
        return module.with_attr("external_mods", known + self.modules(name))

    def install(self) -> None:
        """Makes a library with kernels depend on what they call; the linker records names (DT_NEEDED), not paths."""
        create = cc.create_shared

        @functools.wraps(create)
        def link(output: str, objects: Any, options: Any = None, *rest: Any, **named: Any) -> Any:
            needed = ["-Wl,--no-as-needed", *map(str, self.libraries)] if self.linked else []
            return create(output, objects, [*(options or ()), *needed], *rest, **named)

        cc.create_shared = link
