"""A random update of the size that a round's is, for the checks that need one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from steer_heal_love.doctor import Patient
from steer_heal_love.heal.lora import fresh
from steer_heal_love.nouns import Adapter

SIZE = 0.03
"""‖ΔW x‖ against ‖W x‖, roughly: what a round's update does"""


def drawn(p: Patient, seed: int = 0) -> Adapter:
    """Both factors random; each module's ΔW is `SIZE` of its weight's norm."""
    start = fresh(p.model, rank=2, alpha=2.0, share=p.config.heal.layers, seed=seed)
    draw, factors = torch.Generator().manual_seed(seed), {}
    for name, (a, b) in start.factors.items():
        b = torch.randn(b.shape, generator=draw).to(b.device)
        weight = p.model.get_submodule(name).weight
        # A quantised weight's stored numbers say nothing of its norm; an init's usual spread stands in.
        size = (
            weight.detach().float().norm()
            if weight.is_floating_point()
            else 0.02 * math.sqrt(a[0].numel() * len(b))
        )
        factors[name] = a, b * SIZE * size / (start.scaling * (b @ a).norm())
    return Adapter(factors, start.scaling)


def gradients(loss: Tensor, leaves: Sequence[Tensor]) -> list[Tensor]:
    """The loss's gradient at each leaf: zero for a module whose output only chooses keys or experts."""
    found = torch.autograd.grad(loss, leaves, allow_unused=True)
    return [torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves, found, strict=True)]
