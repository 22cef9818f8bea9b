"""A fresh LoRA: ΔW = (alpha/r)·B A on every linear module of a band of decoder layers that a PEFT folder can name.

A is Kaiming-uniform, B is zero, so a fresh adapter changes nothing. Source: arXiv 2106.09685.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from steer_heal_love.ground import linear
from steer_heal_love.ground.declared import Curve, curves
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.parts import band
from steer_heal_love.nouns import Adapter


def fresh(
    model: PreTrainedModel, *, rank: int, alpha: float, share: tuple[float, float], seed: int
) -> Adapter:
    """fp32 factors, each on its module's device, A drawn from `seed`."""
    generator = torch.Generator().manual_seed(seed)
    factors = {}
    for name in linear.adaptable(model, band(model, share)):
        o, i = linear.shape(model.get_submodule(name))
        a = torch.empty(rank, i)
        nn.init.kaiming_uniform_(a, a=math.sqrt(5), generator=generator)
        device = model.get_submodule(name).weight.device
        factors[name] = (a.to(device), torch.zeros(o, rank, device=device))
    if not factors:
        raise UserError(
            f"{type(model).__name__}: no linear module in its decoder layers that a LoRA can adapt exactly."
        )
    return Adapter(factors, alpha / rank)


def uncovered(model: PreTrainedModel, share: tuple[float, float]) -> str | None:
    """One sentence on the band's matrices that no LoRA of ours trains; None where there are none."""
    missing, whole = linear.left_out(model, band(model, share))
    if not missing:
        return None
    kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(missing.items()))
    return (
        f"the LoRA leaves out {kinds}: {sum(missing.values())} of the {whole} matrices in its layers. A PEFT folder "
        "can't hold an update of those that loads as the model that was trained."
    )


curves.register("spectral", Curve("spectral", "spectral", 9))


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
        return (self.scaling * torch.stack([t.to(terms[0].device) for t in terms])).pow(2).mean()
