"""Gives TVM's paged KV cache FlashInfer's attention, compiled before; TVM would compile it with PyTorch's help."""

from __future__ import annotations

import re
from typing import Any

from tvm.relax.backend.cuda import flashinfer
from tvm.relax.frontend.nn.llm import kv_cache

import tvm
from models.private.gpu_kernels import Kernels

NAME = re.compile(r"(?P<dtype>b?float16)_(?P<head_dim>\d+)")
"""Names in //third_party/flashinfer: type and size of a head."""


class NoKernelError(Exception):
    """No kernel fits a model. The message is one line."""


class Attention:
    """What a model can use of FlashInfer, and why it could not."""

    def __init__(self, kernels: Kernels) -> None:
        self.kernels = kernels
        self.used = False
        self.reason: str | None = None
        """Why a model got none; a line."""

    def modules(
        self, dtype_q: str, dtype_kv: str, dtype_o: str, qk_head_dim: int, v_head_dim: int
    ) -> list[tvm.runtime.Module]:
        """Returns the kernels for these types and sizes.

        Raises:
            NoKernelError: there are none.
        """
        name = f"{dtype_q}_{qk_head_dim}"
        if len({dtype_q, dtype_kv, dtype_o}) > 1 or qk_head_dim != v_head_dim or name not in self.kernels.objects:
            sizes = [each for each in map(NAME.fullmatch, self.kernels.objects) if each]
            known = ", ".join(
                f"{each['head_dim']} of {each['dtype']}"
                for each in sorted(sizes, key=lambda each: int(each["head_dim"]))
            )
            raise NoKernelError(
                f"expected heads of the size {known or '(none was compiled)'}, found {qk_head_dim} of {dtype_q}"
            )
        return self.kernels.modules(name)

    def chosen(self) -> bool:
        """Whether the build compiled one size only, which is then the model's own, as its author says."""
        return sum(bool(NAME.fullmatch(name)) for name in self.kernels.objects) == 1

    def install(self) -> None:
        """Makes TVM use them, and remember in `reason` what keeps it from that: mlc-llm would go on without a word."""
        attention = self

        # These have the decode's too.
        def prefill(*, enable_inline_rope: bool, return_static_libs: bool, **types: Any) -> list[tvm.runtime.Module]:
            return self.modules(**types)

        def decode(**_: Any) -> list[tvm.runtime.Module]:
            return []

        class Cache(kv_cache.FlashInferPagedKVCache):
            def __init__(self, attn_kind: Any, *arguments: Any, **named: Any) -> None:
                try:
                    if "mla" in (attn_kind if isinstance(attn_kind, list) else [attn_kind]):
                        raise NoKernelError("expected attention with keys and values, found latent attention (MLA)")
                    super().__init__(attn_kind, *arguments, **named)
                except Exception as error:
                    attention.reason = str(error).strip().partition("\n")[0]
                    raise
                attention.used = True

        flashinfer.gen_flashinfer_prefill_module = prefill
        flashinfer.gen_flashinfer_decode_module = decode
        kv_cache.FlashInferPagedKVCache = Cache
