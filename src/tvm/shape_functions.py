"""Makes compiled modules reproducible: orders what TVM's lowering of symbolic shapes emits in random order.

Everything that compiles with the pinned TVM uses it: `//models/private:build_relax`, and mlc-llm's wheel, which
contains this module.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import tvm
from tvm import tirx


def stored_slot(statement: tirx.Stmt) -> int | None:
    """Returns the constant index at which a statement stores, or None for any other statement."""
    if not isinstance(statement, tirx.BufferStore) or len(statement.indices) != 1:
        return None
    index = statement.indices[0]
    return int(index) if isinstance(index, tirx.IntImm) else None


def read_slots(statement: tirx.BufferStore) -> set[int | None]:
    """Returns the indices at which a statement loads. None stands for an index that is not constant."""
    found: set[int | None] = set()

    def visit(node: Any) -> None:
        if isinstance(node, tirx.BufferLoad):
            index = node.indices[0]
            found.add(int(index) if isinstance(index, tirx.IntImm) else None)

    tirx.stmt_functor.post_order_visit(statement.value, visit)
    return found


def order_stores(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """Sorts the statements of a shape function by slot if they do not depend on each other."""
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
    """Makes the compiled module the same from run to run.

    The pass that lowers symbolic shapes writes values that become known together in the order of a hash table keyed by
    address, which differs between processes. Nothing else does: with sorted stores, two runs give the same bytes.
    """
    for variable, function in module.functions_items():
        if variable.name_hint.startswith("shape_func") and isinstance(function, tirx.PrimFunc):
            module.update_func(variable, order_stores(function))
    return module


def lower_shapes_in_order(lower: Callable[[], tvm.transform.Pass]) -> tvm.transform.Pass:
    """Returns the pass that lowers symbolic shapes, followed by the one that orders their stores."""
    return tvm.transform.Sequential([lower(), order_shape_functions])


def install() -> None:
    """Makes every pipeline run both passes. Pipelines look the pass up by name on every run."""
    transform = tvm.relax.transform
    transform.VMShapeLower = functools.partial(lower_shapes_in_order, transform.VMShapeLower)
