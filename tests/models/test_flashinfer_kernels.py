"""A model's attention uses FlashInfer's kernels of its heads, or says in one line why it cannot."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from models.private import compile_environment, gpu_kernels

# Compiles nothing: asks TVM for the paged KV cache of a model, as mlc-llm does, and links an empty library.
PROGRAM = """
import json, subprocess, sys
from pathlib import Path
import tvm
from tvm import relax
from tvm.relax.frontend.nn.llm import kv_cache
from tvm.support import cc
from models.private import flashinfer_kernels, gpu_kernels

asked = json.loads(sys.argv[1])
kernels = gpu_kernels.Kernels(
    {name: [Path(path) for path in paths] for name, paths in asked["kernels"].items()}, [Path("/lib/libneeded.so")]
)
kernels.install()
attention = flashinfer_kernels.Attention(kernels)
attention.install()
target = tvm.target.Target({"kind": "cuda", "arch": "sm_90", "host": {"kind": "llvm"}})
modules = []
builder = relax.BlockBuilder()
names = ["max_batch_size", "max_total_seq_len", "prefill_chunk_size", "page_size", "support_sliding_window"]
variables = {name: tvm.tirx.Var(name, "int64") for name in names}
head = asked["head_dim"]
try:
    with target, builder.function("create", [relax.Var("x", relax.ShapeType(list(variables.values())))]):
        cache = kv_cache.FlashInferPagedKVCache(
            attn_kind=asked.get("attention", "mha"), **variables, layer_partition=relax.ShapeExpr([0, 2]),
            num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, qk_head_dim=head, v_head_dim=head,
            mla_original_qk_head_dim=0, mla_original_v_head_dim=0,
            rope_mode=kv_cache.RopeMode[asked.get("rope", "NORMAL")], rope_scale=1, rope_theta=10000, rope_scaling={},
            rope_ext_factors=relax.op.zeros((), "float32"), rotary_dim=head, enable_disaggregation=False,
            dtype="float16", target=target,
        )
        modules = [module.kind for module in cache.extern_mods]
        builder.emit_func_output(cache._expr)
except Exception:
    pass
linked = []
subprocess.Popen = lambda command, **_: linked.append(command) or sys.exit(
    print(json.dumps(
        {"used": attention.used, "chosen": attention.chosen(), "reason": attention.reason, "modules": modules}
        | {"linked": command}
    ))
)
cc.create_shared("model.so", ["lib.o"])
"""


def cache(tmp_path: Path, **asked: object) -> dict:
    objects = [tmp_path / "a.o", tmp_path / "b.o"]
    for path in objects:
        path.write_bytes(b"")
    asked = {"head_dim": 128, "kernels": {"float16_128": [str(path) for path in objects]}} | asked
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(asked)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "CXX": "g++"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict = json.loads(done.stdout.splitlines()[-1])
    return found


def test_the_cache_has_all_objects_and_the_library_names_what_they_call(tmp_path: Path) -> None:
    found = cache(tmp_path)
    assert found["used"] and found["chosen"] and found["reason"] is None and found["modules"] == ["static_library"] * 2
    assert "/lib/libneeded.so" in found["linked"]


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"head_dim": 96}, "expected heads of the size 128 of float16, found 96 of float16"),
        ({"kernels": {}}, "expected heads of the size (none was compiled), found 128 of float16"),
        ({"rope": "INLINE"}, "FlashInfer RoPE does not support inline mode."),
        ({"attention": "mla"}, "expected attention with keys and values, found latent attention (MLA)"),
    ],
)
def test_a_model_without_kernels_says_why(tmp_path: Path, asked: dict[str, object], reason: str) -> None:
    found = cache(tmp_path, **asked)
    assert (found["used"], found["reason"], found["modules"]) == (False, reason, [])
    assert "/lib/libneeded.so" not in found["linked"]


def test_options_name_kernels_and_libraries() -> None:
    parser = argparse.ArgumentParser()
    compile_environment.add_kernel_options(parser)
    given = ["--kernels=float16_64=a/x.o:b.o", "--kernels=four_bits=c.o", "--needed-library=libcudart.so"]
    kernels = gpu_kernels.Kernels.of(parser.parse_args(given))
    assert kernels.objects == {"float16_64": [Path("a/x.o"), Path("b.o")], "four_bits": [Path("c.o")]}
    assert kernels.libraries == [Path("libcudart.so")]
    assert compile_environment.kernel_options(parser.parse_args(given)) == given
