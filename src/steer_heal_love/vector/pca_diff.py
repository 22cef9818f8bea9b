"""First principal axis of the paired differences d_i = h(pos, i) − h(neg, i), signed and scaled by their mean.

Per layer: u = leading right singular vector of D; v = u·(u·mean d). Identity: equal differences give back
their mean. Source: representation engineering, arXiv 2310.01405 (reading vectors by PCA).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from steer_heal_love.vector import States, methods


@methods("pca_diff")
def pca_diff(pos: States, neg: States) -> dict[int, Float[Tensor, " d"]]:
    out = {}
    for i in pos:
        differences = pos[i] - neg[i]
        axis = torch.linalg.svd(differences, full_matrices=False).Vh[0]
        out[i] = axis * (axis @ differences.mean(0))
    return out
