"""Products are compiled to the graphs that TVM's generator for cuBLAS writes (cublas/codegen.cc), as it writes them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import tvm_ffi
from tvm.relax.backend.cuda.cublas import partition_for_cublas
from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import op

import tvm
from models.private import cublas_graphs
from tvm import relax

cublas_graphs.install(Path(os.environ["CUBLAS_MODULES"]))


class Product(nn.Module):
    def __init__(self, bias: bool, out_dtype: str | None) -> None:
        self.linear = nn.Linear(64, 128, bias=bias, dtype="float16", out_dtype=out_dtype)

    def forward(self, x: nn.Tensor) -> nn.Tensor:
        return op.relu(self.linear(x))


def partitioned(bias: bool = False, out_dtype: str | None = None) -> tvm.IRModule:
    shape = nn.spec.Tensor((1, "tokens", 64), "float16")
    module, _ = Product(bias, out_dtype).export_tvm(spec={"forward": {"x": shape}})
    return partition_for_cublas(module)


def only_graph(module: tvm.IRModule) -> dict[str, Any]:
    (function,) = (each for _, each in module.functions_items() if each.attrs and each.attrs.get("Codegen") == "cublas")
    return cublas_graphs.graph(function)


@pytest.mark.parametrize("out_dtype", [None, "float32"])
def test_a_product(out_dtype: str | None) -> None:
    made = out_dtype or "float16"
    assert only_graph(partitioned(out_dtype=out_dtype)) == {
        "nodes": [
            {"op": "input", "name": "linear.weight", "attrs": {"shape": [[128, 64]], "dtype": ["float16"]}},
            {"op": "input", "name": "x", "attrs": {"shape": [[1, -1, 64]], "dtype": ["float16"]}},
            {
                "op": "kernel",
                "name": "cublas.matmul_transposed",
                "inputs": [[1, 0, 0], [0, 0, 0]],
                "attrs": {
                    "out_dtype": out_dtype or "",
                    "num_inputs": 2,
                    "num_outputs": 1,
                    "shape": [[1, -1, 128]],
                    "dtype": [made],
                },
            },
        ],
        "arg_nodes": [0, 1],
        "heads": [[2, 0, 0]],
        "node_row_ptr": [0, 1, 2, 3],
    }


def test_a_product_with_a_bias_and_an_activation() -> None:
    graph = only_graph(partitioned(bias=True))
    (kernel,) = (node for node in graph["nodes"] if node["op"] == "kernel")
    assert kernel["name"] == "cublas.matmul_transposed_bias_relu"
    names = [graph["nodes"][number]["name"] for number, _, _ in kernel["inputs"]]
    assert names == ["x", "linear.weight", "linear.bias"]


def test_modules_are_saved_for_the_runtime() -> None:
    """Symbol, graph and the names of constants, each with its length (JSONRuntimeBase::SaveToBytes)."""
    module = relax.transform.RunCodegen({}, entry_functions=["forward"])(partitioned())
    (made,) = module.attrs["external_mods"]
    assert made.kind == "cublas_json"
    with tvm.transform.PassContext():
        executable = tvm.compile(module, target=tvm.target.Target("llvm"))
    blob = tvm_ffi.get_global_func("runtime.ModulePackImportsToTensor")(executable.mod).numpy().tobytes()
    assert b"\x0b\0\0\0\0\0\0\0cublas_json" in blob and b'"name":"cublas.matmul_transposed"' in blob


def test_what_dequantizes_is_refused() -> None:
    module = partitioned()
    for name, function in module.functions_items():
        if function.attrs and function.attrs.get("Codegen") == "cublas":
            module[name] = _renamed(function, "cublas.matmul_transposed_dequantize")
    with pytest.raises(NotImplementedError, match="matmul_transposed_dequantize: expected a product of plain numbers"):
        only_graph(module)


def _renamed(function: relax.Function, name: str) -> relax.Function:
    """A function whose product has another name."""
    (block,) = function.body.blocks
    bindings = [
        relax.VarBinding(each.var, each.value.with_attr("Composite", name))
        if isinstance(each.value, relax.Function)
        else each
        for each in block.bindings
    ]
    body = relax.SeqExpr([type(block)(bindings)], function.body.body)
    return relax.Function(function.params, body, function.ret_ty, attrs=function.attrs)
