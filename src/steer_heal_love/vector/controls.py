"""Directions that carry another thing than the persona: what a steering method must beat at the same norm.

    random      drawn from an isotropic normal, layer by layer
    unrelated   another persona's direction: of all others the one of least |cosine| with this persona's

In: a vector, and a seed or the other personas' vectors. Out: a vector of the same layers, each direction scaled to the norm of
the one that it stands for. A steering method that doesn't beat `random` says nothing; one that doesn't beat `unrelated` says
nothing of this persona.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from steer_heal_love.ground.errors import UserError
from steer_heal_love.vector import Vector

ABOUT = {
    "random": "a random direction of the same norms",
    "unrelated": "of the other personas' directions the one least like this one, at the same norms",
}
CONTROLS = tuple(ABOUT)
"""names that stand beside those of steering methods"""


def random_like(vector: Vector, seed: int) -> Vector:
    """Random directions of equal norm, layer by layer; the same seed draws the same ones."""
    draw = torch.Generator().manual_seed(seed)
    out = {}
    for i in sorted(vector.directions):
        like = vector.directions[i].float().cpu()
        noise = torch.randn(like.shape, generator=draw)
        out[i] = noise * (like.norm() / noise.norm())
    meta = {**vector.meta, "method": f"random like {vector.meta.get('method')}", "seed": seed}
    return Vector(vector.place.like(out), meta)


def unrelated_like(vector: Vector, others: Mapping[str, Vector]) -> Vector:
    """Of the vectors of other personas, by their names, the one of least |cosine| with this one, at this one's norms.

    Raises `UserError` where there is no other, and where the others lack one of the layers.
    """
    if not others:
        raise UserError("an unrelated persona's vector needs another persona than the one that is steered.")
    name = min(sorted(others), key=lambda other: abs(others[other].cosine(vector)))
    found = others[name]
    if missing := sorted(vector.directions.keys() - found.directions.keys()):
        raise UserError(f"the vector of the persona {name} has no direction for layers {missing}.")
    out = {
        i: found.directions[i] * (v.float().norm() / found.directions[i].float().norm().clamp_min(1e-12))
        for i, v in vector.directions.items()
    }
    meta = {"method": "unrelated", "persona": name, "cosine_with_the_personas": found.cosine(vector)}
    return Vector(found.place.like(out), {**vector.meta, **meta})
