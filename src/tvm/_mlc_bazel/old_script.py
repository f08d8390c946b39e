"""Kernels written for TVM's script language before 0.26, for `tvm.script.tir` in `old_names`.

Every kernel was what `tvm.script.tirx.prim_func(s_tir=True)` makes: one of blocks, for schedules. Without the argument
the new language refuses blocks.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from tvm.script.parser._core import dispatch, doc, parse, utils
from tvm.script.parser.core.parser import Parser

_DIALECT = "tir"
"""What the parser finds the functions below by: a "token". Upstream's is "tirx"."""


def prim_func(func: Callable[..., Any] | None = None, private: bool = False, check_well_formed: bool = True) -> Any:
    """Parses a kernel, as a decorator with or without arguments. It has the parameters of the former one.

    Args:
        func: the kernel.
        private: whether it has no global symbol. The parser reads that in the source.
        check_well_formed: check the result.
    """
    # Upstream looks for the line of a class in the caller's caller.
    stack = inspect.stack()

    def decorate(func: Callable[..., Any]) -> Any:
        if not inspect.isfunction(func):
            raise TypeError(f"expected a function below @T.prim_func, found {func!r}")
        if utils.is_defined_in_class(stack, func):
            return func  # The module's decorator parses it.
        captured = utils.inspect_function_capture(func)
        utils.resolve_closure_vars(func, captured, stack)
        parsed = parse(func, captured, check_well_formed=check_well_formed, s_tir=True)
        parsed.__name__ = func.__name__
        return parsed

    if func is not None:
        return decorate(func)
    decorate.dispatch_token = _DIALECT  # type: ignore[attr-defined]
    return decorate


prim_func.dispatch_token = _DIALECT  # type: ignore[attr-defined]


@dispatch.register(token=_DIALECT, type_name="FunctionDef")
def _visit_function(parser: Parser, node: doc.FunctionDef) -> None:
    """Parses a kernel as upstream does, as if its decorator said s_tir=True."""
    decorator = node.decorator_list[-1]
    place = [decorator.lineno, decorator.col_offset, decorator.end_lineno, decorator.end_col_offset]
    if not isinstance(decorator, doc.Call):
        decorator = doc.Call(decorator, [], [], *place)
    decorator.keywords = [*decorator.keywords, doc.keyword("s_tir", doc.Constant(True, None, *place))]
    node.decorator_list = [*node.decorator_list[:-1], decorator]
    dispatch.get("tirx", "FunctionDef")(parser, node)


@dispatch.register(token=_DIALECT, type_name="tvm_declare_function")
def _declare_function(parser: Parser, node: doc.FunctionDef) -> Any:
    return dispatch.get("tirx", "tvm_declare_function")(parser, node)
