"""The part of build_relax that imports TVM. build_relax starts an interpreter for it.

python -m models.private.compile_relax [--kernels …] SOURCE FUNCTION ARGUMENTS TARGET PASS_CONFIG OUTPUT
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import traceback
from pathlib import Path
from typing import Any

from tvm.s_tir import dlight

import tvm
from models.private import compile_environment, cuda_modules, flashinfer_kernels, gpu_kernels, graph_steps
from src.tvm import shape_functions


class RelaxError(Exception):
    """The library cannot be built. The message follows the output of TVM or the linker."""


def json_object(option: str, text: str) -> dict[str, Any]:
    """Returns the value of an option that must be a JSON object.

    Raises:
        RelaxError: it is not.
    """
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise RelaxError(f"{option}: expected a JSON object, found {text!r}")
    return value


def summary(error: Exception) -> str:
    """Returns the type of an error and the first line of its message."""
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"


def make_module(source: Path, function: str, arguments: dict[str, Any]) -> tvm.IRModule:
    """Imports a file and calls a function in it.

    Raises:
        RelaxError: the file cannot be imported, has no such function, or the function raises or returns something else.
    """
    name = "relax_library_source"
    specification = importlib.util.spec_from_file_location(name, source)
    assert specification
    assert specification.loader
    # TVMScript finds the source text of classes by this name.
    module = sys.modules[name] = importlib.util.module_from_spec(specification)
    try:
        specification.loader.exec_module(module)
    except Exception as error:
        traceback.print_exc()
        raise RelaxError(
            f"{source}: expected a Python file that TVM's Python can import, found that it raises {summary(error)}; see"
            " above"
        ) from None
    if not callable(getattr(module, function, None)):
        functions = sorted(
            key for key, value in vars(module).items() if callable(value) and getattr(value, "__module__", None) == name
        )
        raise RelaxError(
            f"{source}: expected a function {function}, found {', '.join(functions) or 'none'}; give"
            " relax_library(function = ...) one of them"
        )
    try:
        made = getattr(module, function)(**arguments)
    except Exception as error:
        traceback.print_exc()
        raise RelaxError(
            f"{source}: expected {function}(**{arguments}) to return a tvm.IRModule, found that it raises"
            f" {summary(error)}; see above"
        ) from None
    if not isinstance(made, tvm.IRModule):
        raise RelaxError(
            f"{source}: expected {function}(**{arguments}) to return a tvm.IRModule, found {type(made).__name__}"
        )
    return made


def schedule(module: tvm.IRModule, target: tvm.target.Target) -> tvm.IRModule:
    """Schedules kernels for a GPU if the module has no Relax functions; otherwise the target's pipeline does that."""
    if target.kind.name != "cuda" or any(
        isinstance(function, tvm.relax.Function) for _, function in module.functions_items()
    ):
        return module
    gpu = dlight.gpu
    with target:
        return dlight.ApplyDefaultSchedule(
            gpu.Matmul(), gpu.GEMV(), gpu.Reduction(), gpu.GeneralReduction(), gpu.Fallback()
        )(module)


def compile_module(
    source: Path, module: tvm.IRModule, target: tvm.target.Target, pass_config: dict[str, Any]
) -> tvm.runtime.Executable:
    """Compiles a module with the target's default pipeline.

    Raises:
        RelaxError: TVM fails; its traceback is printed.
    """
    try:
        with tvm.transform.PassContext(config=pass_config):
            return tvm.compile(schedule(module, target), target=target)
    except Exception as error:
        traceback.print_exc()
        raise RelaxError(
            f"{source}: TVM failed to compile it for the target {target.kind.name} ({summary(error)}); see above"
        ) from None


def export(source: Path, executable: tvm.runtime.Executable, output: str) -> None:
    """Writes the library.

    Raises:
        RelaxError: nvcc or the linker fails; its output is printed.
    """
    try:
        executable.export_library(output)
    except cuda_modules.NvccError as error:
        said, _, line = str(error).rpartition("\n")
        print(said)
        raise RelaxError(f"{source}: {line}") from None
    except RuntimeError as error:
        print(error)
        raise RelaxError(f"{source}: the C++ compiler failed to link its library, see above") from None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    compile_environment.add_kernel_options(parser)
    parser.add_argument("values", nargs=6)
    options = parser.parse_args()
    source, function, arguments, target_text, pass_config, output = options.values
    target = tvm.target.Target(json.loads(target_text))
    shape_functions.install()
    if target.kind.name == "cuda":
        cuda_modules.install(target)
    kernels = gpu_kernels.Kernels.of(options)
    kernels.install()
    attention = flashinfer_kernels.Attention(kernels)
    attention.install()
    try:
        module = make_module(Path(source), function, json_object("arguments", arguments))
        for name in kernels.objects:
            if not flashinfer_kernels.NAME.fullmatch(name):
                module = kernels.added(module, name)
        config = json_object("pass_config", pass_config)
        if config.get(graph_steps.SETTING):
            steps = graph_steps.MakeGraphSteps(lambda: attention.used)
            module = tvm.transform.Sequential([steps])(module)
        export(Path(source), compile_module(Path(source), module, target, config), output)
    except RelaxError as error:
        print(f"build_relax: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
