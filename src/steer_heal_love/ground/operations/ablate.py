"""Directional ablation: h ← h − dose·(h·v̂)v̂. At dose 1 nothing is left along v̂.

Identity: dose 0, and a state orthogonal to v. It does not fold exactly at some layers only, since the stream there also
carries what earlier layers and the embedding wrote, and those are read on the way. At the output of a linear module it
does: the projection goes into the module's weight and bias. Source: arXiv 2406.11717.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from steer_heal_love.ground.operations import Folding, foldings, operations

foldings.register(
    "ablate",
    Folding(
        exact=False,
        why="the stream at a layer also carries what earlier layers and the embedding wrote, and the layer's own MLP has read "
        "it before it is taken out",
        at_linear=True,
    ),
)


@operations("ablate")
def ablate(h: Float[Tensor, "b t d"], v: Float[Tensor, " d"], dose: Tensor | float) -> Float[Tensor, "b t d"]:
    unit = v / v.norm().clamp_min(1e-12)
    return -dose * (h @ unit)[..., None] * unit
