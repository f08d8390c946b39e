"""A model's step of decoding has one form that TVM captures as a whole, and one for steps that fit no graph."""

from __future__ import annotations

import pytest
import tvm_ffi

import tvm
from models.private import graph_steps
from tvm import relax, tirx

LAYERS, HEADS, DIM = 3, 4, 16


def model(name: str, with_attention: bool = True, cache_is_second: bool = True) -> tvm.IRModule:
    """name(x, cache, other): attention of LAYERS layers, and a sum in front of each; what TVM captures between them."""
    builder = relax.BlockBuilder()
    sequences = tirx.Var("batch_size", "int64")
    x = relax.Var("x", relax.TensorType((sequences, HEADS, DIM), "float16"))
    cache, other = (relax.Var(name, relax.AnyType()) for name in ("cache", "other"))
    attributes = {
        "num_input": 3,
        "relax.rewrite_cuda_graph.capture_symbolic_vars": ["batch_size"],
        "tir_var_upper_bound": {"batch_size": 8},
    }
    with builder.function(name, [x, cache, other], attrs=attributes):
        with builder.dataflow():
            value = x
            for layer in range(LAYERS):
                value = builder.emit(relax.op.add(value, relax.const(2, "float16") if layer else x))
                arguments = [
                    cache if cache_is_second else other,
                    relax.prim_value(layer),
                    relax.prim_value(0.25),
                    value,
                ]
                if with_attention:
                    value = builder.emit(relax.call_dps_packed(graph_steps.ATTENTION, arguments, out_ty=x.ty))
            result = builder.emit_output(relax.op.add(value, relax.const(1, "float16")))
        builder.emit_func_output(result)
    return builder.get()


def with_steps(module: tvm.IRModule, is_wanted: bool = True) -> tvm.IRModule:
    return tvm.transform.Sequential([graph_steps.MakeGraphSteps(lambda: is_wanted)])(module)


def captured(module: tvm.IRModule) -> tvm.IRModule:
    """What TVM's pipeline for CUDA makes of a module, as far as it decides about graphs."""
    with tvm.target.Target("llvm"), tvm.transform.PassContext(config={"relax.backend.use_cuda_graph": True}):
        return tvm.transform.Sequential(
            [
                relax.transform.LegalizeOps(),
                relax.transform.ToNonDataflow(),
                relax.transform.RemovePurityChecking(),
                relax.transform.CallTIRRewrite(),
                relax.transform.StaticPlanBlockMemory(),
                relax.transform.RewriteCUDAGraph(),
            ]
        )(module)


def text(module: tvm.IRModule, name: str) -> str:
    return str(module[name].script())


def test_a_step_is_one_graph_with_its_attention() -> None:
    made = captured(with_steps(model("batch_decode")))
    whole = text(made, "batch_decode_in_graph")
    assert whole.count("cuda_graph.run_or_capture") == 1
    assert graph_steps.IN_STEP not in whole
    (graph,) = (
        variable.name_hint
        for variable, _ in made.functions_items()
        if variable.name_hint.startswith("batch_decode_in_graph_cuda_graph_capture")
    )
    assert text(made, graph).count(graph_steps.IN_STEP) == LAYERS
    # The input is copied where the graph reads it, before.
    assert whole.index(graph_steps.COPY) < whole.index("cuda_graph.run_or_capture")
    assert graph_steps.ATTENTION not in whole + text(made, graph)


def test_other_steps_launch_layer_by_layer() -> None:
    made = captured(with_steps(model("decode")))
    assert text(made, "decode_by_layer").count(graph_steps.ATTENTION) == LAYERS
    # What is between two layers, as TVM has it.
    assert text(made, "decode_by_layer").count("cuda_graph.run_or_capture") == LAYERS - 1
    choice = text(made, "decode")
    assert choice.index(graph_steps.BEGIN) < choice.index("decode_in_graph") < choice.index("decode_by_layer")


@pytest.mark.parametrize(
    ("name", "is_wanted", "with_attention", "cache_is_second"),
    [
        ("batch_decode", False, True, True),
        ("batch_prefill", True, True, True),
        ("batch_decode", True, False, True),
        ("batch_decode", True, True, False),
    ],
)
def test_what_stays_as_it_is(name: str, is_wanted: bool, with_attention: bool, cache_is_second: bool) -> None:
    module = model(name, with_attention, cache_is_second)
    assert tvm_ffi.structural_equal(with_steps(module, is_wanted), module)
