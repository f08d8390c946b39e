"""Programs for relax_library: y = relu(x·w + b) with sorted rows, for any number of rows; and functions that return no
module.
"""

from __future__ import annotations

import tvm
from tvm import relax, te, tirx


def module(width: int = 8, dtype: str = "float32") -> tvm.IRModule:
    """Has two symbolic dimensions, so that it computes shapes at run time.

    Args:
        width: columns of x, and rows and columns of w.
        dtype: of all tensors.

    Returns:
        A module whose `main` takes x of shape (n, m, width), w of (width, width) and b of (width,) and returns y of (n,
        m, width).
    """
    builder = relax.BlockBuilder()
    rows, columns = tirx.Var("n", "int64"), tirx.Var("m", "int64")
    x = relax.Var("x", relax.TensorType((rows, columns, width), dtype))
    w = relax.Var("w", relax.TensorType((width, width), dtype))
    b = relax.Var("b", relax.TensorType((width,), dtype))
    with builder.function("main", [x, w, b]):
        with builder.dataflow():
            y = builder.emit(relax.op.add(relax.op.matmul(x, w), b))
            y = builder.emit(relax.op.sort(relax.op.nn.relu(y)))
            y = builder.emit_output(y)
        builder.emit_func_output(y)
    return builder.finalize()


def kernel() -> tvm.IRModule:
    """A module without Relax: an unscheduled kernel `main` writes 2·a, of shape (n,), to b."""
    n = te.var("n", "int64")
    a = te.placeholder((n,), "float32", name="a")
    b = te.compute((n,), lambda i: a[i] * 2, name="b")
    return tvm.IRModule({"main": te.create_prim_func([a, b]).with_attr("global_symbol", "main")})


def unknown_function() -> tvm.IRModule:
    """A kernel that calls an undefined function."""
    a = te.placeholder((128,), "float32", name="a")
    b = te.compute((128,), lambda i: tirx.call_pure_extern("float32", "no_such_function", a[i]), name="b")
    return tvm.IRModule({"main": te.create_prim_func([a, b]).with_attr("global_symbol", "main")})


def raises() -> tvm.IRModule:
    raise ValueError("width must be positive\nand even")


def number() -> int:
    return 3
