"""Writes the sources of FlashInfer's attention for TVM, for one size of head and one type, as FlashInfer's own
generator does, which needs PyTorch.

    sources --dtype half --head-dim 128 --output SOURCE … csrc/batch_decode.cu

TVM calls the kernels by their names in tvm/relax/frontend/nn/llm/kv_cache.py.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import jinja2

MASKS = ("kNone", "kCausal")
"""Of FlashInfer's MaskMode, what TVM asks for (src/runtime/vm/attn_backend.h): half of the time and of the size."""

SCALARS = ("sm_scale", "rope_rcp_scale", "rope_rcp_theta")
"""What TVM passes in addition, each a double (src/runtime/vm/attn_backend.h)."""

_CHOICE = """
// Only the masks that are compiled.
#undef DISPATCH_MASK_MODE
#define DISPATCH_MASK_MODE(mask_mode, MASK_MODE, ...) \\
  switch (mask_mode) { \\
{% for mask in masks %}\
    case MaskMode::{{ mask }}: { \\
      constexpr MaskMode MASK_MODE = MaskMode::{{ mask }}; \\
      __VA_ARGS__ \\
      break; \\
    } \\
{% endfor %}\
    default: \\
      FLASHINFER_ERROR("this mask was not compiled"); \\
  }
"""

_EXPORT = re.compile(r"^(\s*TVM_FFI_DLL_EXPORT_TYPED_FUNC\()(\w+,)", re.MULTILINE)


def values(dtype: str, head_dim: int) -> dict[str, object]:
    """Returns what FlashInfer's templates are filled with: attention without position, window or cap on the logits."""
    return {
        "additional_func_params": "".join(f", double {name}" for name in SCALARS),
        "additional_params_decl": "".join(f"double {name};\n" for name in SCALARS),
        "additional_params_setter": " \\\n".join(f"params.{name} = {name};" for name in SCALARS),
        "dtype_kv": dtype,
        "dtype_o": dtype,
        "dtype_q": dtype,
        "head_dim_qk": head_dim,
        "head_dim_vo": head_dim,
        "idtype": "int32_t",
        "pos_encoding_mode": "PosEncodingMode::kNone",
        "use_fp16_qk_reduction": "false",
        "use_logits_soft_cap": "false",
        "use_sliding_window": "false",
        "variant_decl": "#include <flashinfer/attention/variants.cuh>",
        "variant_name": "DefaultAttention<false, false, false, false>",
    }


def sources(csrc: dict[str, str], dtype: str, head_dim: int) -> dict[str, str]:
    """Returns name → text of all sources.

    Args:
        csrc: name → text of the files in FlashInfer's folder csrc.
        dtype: CUDA's type of queries, keys, values and result: half or nv_bfloat16.
        head_dim: of queries, keys and values.
    """
    known = values(dtype, head_dim) | {"masks": MASKS}

    def text(template: str, **more: str) -> str:
        return jinja2.Template(template, undefined=jinja2.StrictUndefined).render(known | more) + "\n"

    def filled(name: str, **more: str) -> str:
        return text(csrc[name], **more)

    made = {"batch_decode_kernel.cu": filled("batch_decode_kernel_inst.jinja")}
    for layout in ("paged", "ragged"):
        for mask in MASKS:
            name = f"batch_prefill_{layout}_kernel"
            made[f"{name}_{mask}.cu"] = filled(f"{name}_inst.jinja", mask_mode=f"MaskMode::{mask}")
    for kind in ("decode", "prefill"):
        made[f"batch_{kind}_config.inc"] = filled(f"batch_{kind}_customize_config.jinja")
        made[f"batch_{kind}.cu"] = csrc[f"batch_{kind}.cu"]
        # Both export `plan`.
        made[f"batch_{kind}_jit_binding.cu"] = _EXPORT.sub(rf"\1batch_{kind}_\2", csrc[f"batch_{kind}_jit_binding.cu"])
    made["batch_prefill_config.inc"] += text(_CHOICE)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", required=True, help="half or nv_bfloat16")
    parser.add_argument("--head-dim", type=int, required=True)
    parser.add_argument("--output", type=Path, action="append", required=True, help="a source to write; repeatable")
    parser.add_argument("file", type=Path, help="a file in FlashInfer's folder csrc")
    options = parser.parse_args()
    made = sources(
        {path.name: path.read_text(encoding="utf-8") for path in options.file.parent.iterdir()},
        options.dtype,
        options.head_dim,
    )
    for path in options.output:
        path.write_text(made.pop(path.name), encoding="utf-8")
    if made:
        parser.error(f"expected an --output for each source, found none for {', '.join(sorted(made))}")


if __name__ == "__main__":
    main()
