"""Linear layers that keep their weight in the order in which the processor's product reads it.

A CPU's bf16 product reorders the weight at each call: up to a third of its time at a batch's few hundred rows, more in
decoding. The fp32 product copes without, but for the head: over a vocabulary it takes half the time when packed. A
packed layer is packed once and again after its weight has changed, which it sees by the weight's version: change
weights in place under `torch.no_grad()`, not through `.data`, which counts no versions.

Invariant: the numbers are those of `torch.nn.Linear`. Costs the packed weights' size in memory.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

OPS = ("_reorder_linear_weight", "_linear_pointwise")
"""what torch's own compiler calls for the same purpose; without them layers stay as they are"""
WIDE = 16
"""outputs per input from which an fp32 layer is packed: a head over a vocabulary, and no layer of a decoder"""


class PackedLinear(nn.Linear):
    """A frozen `nn.Linear` on a CPU; gradients go to its input only."""

    _packed: Tensor | None = None
    _version = -1

    def packed(self) -> Tensor:
        if self._packed is None or self._version != self.weight._version:
            self._packed = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach())
            self._version = self.weight._version
        return self._packed

    def forward(self, input: Float[Tensor, "*n i"]) -> Float[Tensor, "*n o"]:
        if self.weight.requires_grad:
            return super().forward(input)
        if torch.is_grad_enabled() and input.requires_grad:
            return _Product.apply(input, self)  # type: ignore[no-any-return]
        return self.product(input)

    def product(self, x: Tensor) -> Tensor:
        """A tensor of its own and never a view, since some models clamp a projection's output in place."""
        out = torch.ops.mkldnn._linear_pointwise(x.contiguous(), self.packed(), self.bias, "none", [], "")
        return out.clone() if out._is_view() else out  # type: ignore[no-any-return]


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: PackedLinear) -> Tensor:
        ctx.layer = layer
        return layer.product(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] @ ctx.layer.weight, None


def pack(model: nn.Module) -> None:
    """Let every linear layer of a model on a CPU keep its weight packed, where that pays."""
    if not all(hasattr(torch.ops.mkldnn, op) for op in OPS):
        return
    for module in model.modules():
        if type(module) is nn.Linear and pays(module):
            module.__class__ = PackedLinear


def pays(layer: nn.Linear) -> bool:
    """In bf16 for every layer where the processor multiplies it, in fp32 for one with far more outputs than inputs."""
    kind, wide = layer.weight.dtype, layer.out_features >= WIDE * layer.in_features
    better = (kind is torch.bfloat16 and multiplies_bf16()) or (kind is torch.float32 and wide)
    return layer.weight.device.type == "cpu" and better


def multiplies_bf16() -> bool:
    """Whether the processor multiplies bf16 in a way that oneDNN can use; on others the operations exist and refuse."""
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()  # type: ignore[no-any-return]
