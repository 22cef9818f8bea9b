"""Cosine-gated addition: h ← h + dose·max(0, 1 − cos(h, v))/2·v, so a state that already points along v gets less.

Identity: dose 0, and a state parallel to v. A gate depends on the state, so it does not fold into weights. Source: our
own graded form of conditional steering, arXiv 2409.05907.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from steer_heal_love.ground.operations import Folding, foldings, operations

foldings.register("gate", Folding(exact=False, why="how much is added depends on the state"))


@operations("gate")
def gate(h: Float[Tensor, "b t d"], v: Float[Tensor, " d"], dose: Tensor | float) -> Float[Tensor, "b t d"]:
    openness = (1 - torch.cosine_similarity(h, v.expand_as(h), dim=-1)).clamp_min(0) / 2
    return dose * openness[..., None] * v
