"""Directions that carry no persona: what a steering method must beat at the same norm.

In: a vector, a seed. Out: a vector of the same layers, each direction drawn from an isotropic normal and scaled to the
norm of the one that it stands for.
"""

from __future__ import annotations

import torch

from steer_heal_love.vector import Vector


def random_like(vector: Vector, seed: int) -> Vector:
    """Random directions of equal norm, layer by layer; the same seed draws the same ones."""
    draw = torch.Generator().manual_seed(seed)
    out = {}
    for i in sorted(vector.directions):
        like = vector.directions[i].float().cpu()
        noise = torch.randn(like.shape, generator=draw)
        out[i] = noise * (like.norm() / noise.norm())
    return Vector(out, {**vector.meta, "method": f"random like {vector.meta.get('method')}", "seed": seed})
