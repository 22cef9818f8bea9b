"""Linear optimal transport: the affine map, a coordinate at a time, that carries neg states onto pos states.

Per layer and coordinate, both poles' values are sorted, x₁ ≤ … ≤ xₙ of neg and y₁ ≤ … ≤ yₙ of pos; that is the optimal
coupling in one dimension. The map ω·x + β is their least squares:

    ω = Σ (xᵢ − x̄)(yᵢ − ȳ) / Σ (xᵢ − x̄)²,   β = ȳ − ω·x̄

Out: two rows a layer, ω − 1 and β, for the operation `transport`; its dose goes from the identity (0) to the map (1).
A coordinate that doesn't vary keeps its slope. Identity: equal differences give slope 1 and their mean; the map takes the
mean of neg onto the mean of pos. Source: Linear-AcT, arXiv 2410.23054.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from steer_heal_love.vector import Needs, States, methods, needs

needs.register("linear_act", Needs(operation="transport"))


@methods("linear_act")
def linear_act(pos: States, neg: States) -> dict[int, Float[Tensor, "2 d"]]:
    return {i: fitted(neg[i], pos[i]) for i in pos}


def fitted(source: Float[Tensor, "n d"], target: Float[Tensor, "n d"]) -> Float[Tensor, "2 d"]:
    """ω − 1 and β of every coordinate."""
    x, y = (s.double().sort(0).values for s in (source, target))
    mean_x, mean_y = x.mean(0), y.mean(0)
    spread = (x - mean_x).pow(2).sum(0)
    slope = ((x - mean_x) * (y - mean_y)).sum(0) / spread
    slope = torch.where(spread > 0, slope, torch.ones_like(slope))
    return torch.stack([slope - 1, mean_y - slope * mean_x]).to(source)
