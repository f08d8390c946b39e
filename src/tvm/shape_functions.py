"""Compiled modules that are the same from run to run: what TVM's lowering of symbolic shapes leaves to chance is put in
order.

For whoever compiles with the pinned TVM: `//models/private:build_relax`, and mlc-llm's wheel, which carries this
module.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import tvm
from tvm import tirx


def stored_slot(statement: tirx.Stmt) -> int | None:
    """The constant index at which a statement stores, or None for any other statement."""
    if not isinstance(statement, tirx.BufferStore) or len(statement.indices) != 1:
        return None
    index = statement.indices[0]
    return int(index) if isinstance(index, tirx.IntImm) else None


def read_slots(statement: tirx.BufferStore) -> set[int | None]:
    """The indices at which a statement loads; None stands for one that is not constant."""
    found: set[int | None] = set()

    def visit(node: Any) -> None:
        if isinstance(node, tirx.BufferLoad):
            index = node.indices[0]
            found.add(int(index) if isinstance(index, tirx.IntImm) else None)

    tirx.stmt_functor.post_order_visit(statement.value, visit)
    return found


def order_stores(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """Sort the statements of a shape function by slot, if they do not depend on each other."""
    if not isinstance(function.body, tirx.SeqStmt):
        return function
    statements = list(function.body.seq)
    by_slot = {stored_slot(statement): statement for statement in statements}
    if None in by_slot or len(by_slot) != len(statements):
        return function
    if any(read_slots(statement) & {None, *by_slot} for statement in statements):
        return function
    ordered = [statement for _, statement in sorted(by_slot.items())]
    return function.with_body(tirx.SeqStmt(ordered))


@tvm.transform.module_pass(opt_level=0, name="OrderShapeFunctions")
def order_shape_functions(module: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
    """Make the compiled module the same from run to run.

    The pass that lowers symbolic shapes writes the values that become known together in the order
    of a hash table keyed by address, which differs from process to process. It is the one thing
    that does: sorted, two runs give the same bytes.
    """
    for variable, function in module.functions_items():
        if variable.name_hint.startswith("shape_func") and isinstance(function, tirx.PrimFunc):
            module.update_func(variable, order_stores(function))
    return module


def lower_shapes_in_order(lower: Callable[[], tvm.transform.Pass]) -> tvm.transform.Pass:
    """The pass that lowers symbolic shapes, followed by the one that puts them in order."""
    return tvm.transform.Sequential([lower(), order_shape_functions])


def install() -> None:
    """Every pipeline gets the two: they look the pass up by its name each time they run."""
    transform = tvm.relax.transform
    transform.VMShapeLower = functools.partial(lower_shapes_in_order, transform.VMShapeLower)
