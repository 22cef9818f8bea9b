"""Logistic probe: the normal w of a ridge logistic regression that tells pos states from neg states, scaled by the mean
difference.

Per layer, on states centred and divided by one common scale: û = w/|w|; v = û·(û·mean d), with d_i = h(pos, i) − h(neg, i).
Identity: equal differences give back their mean where the spread is mirrored about them; swapping flips the sign.
Source: linear probes as steering directions, inference-time intervention, arXiv 2306.03341.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from steer_heal_love.vector import States, methods


@methods("logistic")
def logistic(pos: States, neg: States) -> dict[int, Float[Tensor, " d"]]:
    out = {}
    for i in pos:
        axis = normal(pos[i], neg[i])
        out[i] = axis * (axis @ (pos[i] - neg[i]).mean(0))
    return out


def normal(pos: Float[Tensor, "n d"], neg: Float[Tensor, "n d"]) -> Float[Tensor, " d"]:
    """Unit normal of the boundary; zeros where the two poles are the same states."""
    from sklearn.linear_model import LogisticRegression

    both = torch.cat([pos, neg]).double()
    centred = both - both.mean(0)
    scale = centred.norm(dim=1).mean().clamp_min(1e-12)
    labels = [1] * len(pos) + [0] * len(neg)
    probe = LogisticRegression(C=1.0, tol=1e-8, max_iter=1000).fit((centred / scale).numpy(), labels)
    weight = torch.from_numpy(probe.coef_[0]).to(pos)
    return weight / weight.norm().clamp_min(1e-12)
