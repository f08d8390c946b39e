"""A program with what models have: a product of matrices, softmax, a normalization, and integers."""

from __future__ import annotations

from tvm.relax.frontend import nn

import tvm
from tvm import relax


class Program(nn.Module):
    def __init__(self) -> None:
        self.layer = nn.Linear(48, 40)
        self.norm = nn.RMSNorm(48, axes=-1, bias=False)

    def forward(self, x: nn.Tensor) -> nn.Tensor:
        return nn.op.softmax(self.layer(self.norm(x)), axis=-1)

    def integers(self, x: nn.Tensor, y: nn.Tensor) -> nn.Tensor:
        return nn.op.matmul(nn.op.astype(x, "int32"), nn.op.astype(y, "int32"))


def module() -> tvm.IRModule:
    """Functions `forward(x: (n, 48) float32, ...)` and `integers(x: (n, 64) int8, y: (64, 24) int8)`."""
    spec = {
        "forward": {"x": nn.spec.Tensor(["n", 48], "float32"), "$": {"param_mode": "plain", "effect_mode": "none"}},
        "integers": {
            "x": nn.spec.Tensor(["n", 64], "int8"),
            "y": nn.spec.Tensor([64, 24], "int8"),
            "$": {"param_mode": "none", "effect_mode": "none"},
        },
    }
    built, _ = Program().export_tvm(spec)
    return relax.transform.LegalizeOps()(built)
