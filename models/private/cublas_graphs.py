"""Compiles products of GPU models to calls of cuBLAS, as TVM's own generator does.

That generator (src/relax/backend/contrib/cublas/codegen.cc) is not in the official compiler. This one writes the same
graphs; a library of this build (cublas_modules.cc) makes modules of them that libtvm_cublas loads.
"""

from __future__ import annotations

import ctypes
import json
from pathlib import Path
from typing import Any

import tvm_ffi

import tvm
from tvm import relax, tirx

OPERANDS = {2: ("lhs", "rhs"), 3: ("lhs", "rhs", "bias"), 4: ("lhs", "rhs", "scaleA", "scaleB")}
"""By number: the names of a product's operands in patterns, in the order in which the runtime reads them."""

DYNAMIC = -1
"""A dimension that is known only when the model runs."""


def _node(kind: str, name: str, of: relax.TensorType, **rest: Any) -> dict[str, Any]:
    shape = [int(each) if isinstance(each, tirx.IntImm) else DYNAMIC for each in of.shape.values]
    inputs = {"inputs": rest.pop("inputs")} if "inputs" in rest else {}
    return {"op": kind, "name": name, **inputs, "attrs": {**rest, "shape": [shape], "dtype": [str(of.dtype)]}}


def graph(function: relax.Function) -> dict[str, Any]:
    """Returns the graph of a function that calls products of cuBLAS's patterns (tvm.relax.backend.cuda.cublas).

    Raises:
        NotImplementedError: a product dequantizes its result, for which the graph would need a constant.
    """
    nodes = [_node("input", parameter.name, parameter.ty) for parameter in function.params]
    place = {parameter: number for number, parameter in enumerate(function.params)}
    inputs = list(range(len(nodes)))
    products: dict[relax.Var, relax.Function] = {}
    for binding in (binding for block in function.body.blocks for binding in block.bindings):
        if isinstance(binding.value, relax.Function):
            products[binding.var] = binding.value
            continue
        if not isinstance(binding.value, relax.Call):
            place[binding.var] = place[binding.value]
            continue
        product = products[binding.value.op]
        name = str(product.attrs["Composite"])
        if "dequantize" in name:
            raise NotImplementedError(f"{name}: expected a product of plain numbers, found one that dequantizes")
        indices = tvm_ffi.get_global_func("relax.contrib.extract_arg_idx")(name, product)
        operands = [place[argument] for argument in binding.value.args]
        order = [operands[int(indices[operand])] for operand in OPERANDS[len(operands)]]
        (call,) = (
            each.value
            for block in product.body.blocks
            for each in block.bindings
            if isinstance(each.value, relax.Call) and each.value.op == tvm.ir.Op.get("relax.matmul")
        )
        nodes.append(
            _node(
                "kernel",
                name,
                binding.var.ty,
                inputs=[[number, 0, 0] for number in order],
                out_dtype=str(call.attrs.out_dtype or ""),
                num_inputs=len(order),
                num_outputs=1,
            )
        )
        place[binding.var] = len(nodes) - 1
    return {
        "nodes": nodes,
        "arg_nodes": inputs,
        "heads": [[place[function.body.body], 0, 0]],
        "node_row_ptr": list(range(len(nodes) + 1)),
    }


def compile_products(functions: list[relax.Function], _options: Any, _constants: Any) -> list[tvm.runtime.Module]:
    """Returns a module for each function. TVM calls it, for functions with the attribute Codegen="cublas"."""
    create = tvm_ffi.get_global_func("runtime.CublasJSONRuntimeCreate")
    return [
        create(function.attrs["global_symbol"], json.dumps(graph(function), separators=(",", ":")), [])
        for function in functions
    ]


def install(modules: Path) -> None:
    """Makes cuBLAS available to compile for.

    Args:
        modules: the library that makes modules of graphs.
    """
    ctypes.CDLL(str(modules.absolute()))
    tvm_ffi.register_global_func("relax.ext.cublas", compile_products)
