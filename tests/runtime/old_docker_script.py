"""A script as for the Docker image that this build replaces, with TVM's names from before 0.26. Keep it as it is."""

# mypy: ignore-errors
import os

import numpy as np
from tvm.script import ir as I
from tvm.script import tir as T

import tvm
from tvm import tir

print("library", os.path.basename(tvm.base._LIB._name))


@I.ir_module
class Module:
    @T.prim_func
    def main(A: T.Buffer((16,), "float32"), B: T.Buffer((16,), "float32")):
        T.func_attr({"tir.noalias": True})
        C = T.alloc_buffer((16,), "float32")
        for i in range(16):
            with T.block("C"):
                vi = T.axis.spatial(16, i)
                C[vi] = A[vi] * T.float32(2)
        for i in T.serial(16):
            with T.block("B"):
                vi = T.axis.remap("S", [i])
                T.reads(C[vi])
                T.writes(B[vi])
                B[vi] = C[vi] + T.float32(1)


@T.prim_func(private=True)
def add_one(a: T.handle, b: T.handle):
    n = T.int64()
    A = T.match_buffer(a, (n,), "float32")
    B = T.match_buffer(b, (n,), "float32")
    for i in T.grid(n):
        with T.block("B"):
            vi = T.axis.spatial(n, i)
            B[vi] = A[vi] + T.float32(1)


assert isinstance(add_one, tir.PrimFunc)
a = tvm.nd.array(np.arange(16, dtype="float32"))
b = tvm.nd.array(np.zeros(16, dtype="float32"))
tvm.build(Module, target="llvm")["main"](a, b)
print("main", b.numpy().tolist() == (np.arange(16) * 2 + 1).tolist())
mod = tvm.IRModule({"add_one": add_one.with_attr("global_symbol", "add_one")})
tvm.compile(mod, target="llvm")["add_one"](a, b)
print("add_one", b.numpy().tolist() == (np.arange(16) + 1).tolist())
