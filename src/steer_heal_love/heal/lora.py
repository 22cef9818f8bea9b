"""A fresh LoRA: ΔW = (alpha/r)·B A on every linear module of a band of decoder layers.

A is Kaiming-uniform, B is zero, so a fresh adapter changes nothing. Source: arXiv 2106.09685.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.models import band, layers
from steer_heal_love.nouns import Adapter


def fresh(
    model: PreTrainedModel, *, rank: int, alpha: float, share: tuple[float, float], seed: int
) -> Adapter:
    """fp32 factors on the model's device, A drawn from `seed`."""
    generator = torch.Generator().manual_seed(seed)
    blocks = layers(model)
    inside = {id(m) for i in band(model, share) for m in blocks[i].modules()}
    factors = {}
    for name, module in model.named_modules():
        if id(module) in inside and isinstance(module, nn.Linear):
            a = torch.empty(rank, module.in_features)
            nn.init.kaiming_uniform_(a, a=math.sqrt(5), generator=generator)
            b = torch.zeros(module.out_features, rank)
            factors[name] = (a.to(model.device), b.to(model.device))
    if not factors:
        raise UserError(f"{type(model).__name__}: no linear modules in its decoder layers to adapt.")
    return Adapter(factors, alpha / rank)


class SpectralPenalty:
    """mean_m σ₁(s·B A)², by power iteration with vectors kept between calls."""

    def __init__(self, adapter: Adapter):
        self.scaling = adapter.scaling
        self.left = {
            n: nn.functional.normalize(torch.ones(b.shape[0], device=b.device), dim=0)
            for n, (_, b) in adapter.factors.items()
        }

    def __call__(self, adapter: Adapter) -> Float[Tensor, ""]:
        terms = []
        for name, (a, b) in adapter.factors.items():
            with torch.no_grad():
                right = nn.functional.normalize(a.T @ (b.T @ self.left[name]), dim=0)
                left = b @ (a @ right)
                if left.norm() > 0:
                    self.left[name] = nn.functional.normalize(left, dim=0)
            terms.append((self.left[name] @ b) @ (a @ right))
        return (self.scaling * torch.stack(terms)).pow(2).mean()
