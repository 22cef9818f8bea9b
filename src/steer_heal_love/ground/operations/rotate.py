"""Norm-preserving rotation: h turns by `dose` radians towards v in the plane of h and v, and stops at v.

With û the unit part of v orthogonal to h and θ = min(dose, angle(h, v)): h ← |h|·(cos θ·ĥ + sin θ·û). A negative dose
turns away, and stops at −v. The norm of v plays no part. Identity: dose 0, and a state parallel or opposite to v. It depends on the
state, so it does not fold into weights. Source: our own variant of
angular steering, arXiv 2510.26243, which turns in one fixed plane for all states.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from steer_heal_love.ground.operations import Folding, foldings, operations

foldings.register("rotate", Folding(exact=False, why="how much is added depends on the state"))


@operations("rotate")
def rotate(h: Float[Tensor, "b t d"], v: Float[Tensor, " d"], dose: Tensor | float) -> Float[Tensor, "b t d"]:
    norm = h.norm(dim=-1, keepdim=True)
    along = h / norm.clamp_min(1e-12)
    unit = v / v.norm().clamp_min(1e-12)
    cosine = along @ unit
    across = unit - cosine[..., None] * along
    sine = across.norm(dim=-1, keepdim=True)
    angle = torch.atan2(sine, cosine[..., None])
    turn = torch.minimum(torch.maximum(torch.as_tensor(dose).to(h), angle - torch.pi), angle)
    turn = turn * (sine > 1e-6)  # parallel to v, or opposite: no plane to turn in
    return norm * ((turn.cos() - 1) * along + turn.sin() * across / sine.clamp_min(1e-12))
