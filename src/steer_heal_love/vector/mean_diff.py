"""Mean difference: v_l = mean_i h_l(pos, context_i) − mean_i h_l(neg, context_i), norm kept.

Identity: swapping the poles flips the sign. Source: contrastive activation addition, arXiv 2312.06681.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from steer_heal_love.vector import States, methods


@methods("mean_diff")
def mean_diff(pos: States, neg: States) -> dict[int, Float[Tensor, " d"]]:
    return {i: pos[i].mean(0) - neg[i].mean(0) for i in pos}
