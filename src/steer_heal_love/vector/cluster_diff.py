"""Mean of the differences that agree best: the half of the pairs whose d_i = h(pos, i) − h(neg, i) lie closest, by
cosine, to the mean of all of them.

Per layer: m = mean d; S = the ⌈n/2⌉ pairs of highest cos(d_i, m); v = mean over S of d_i. A pair on which the persona
does not show, or shows otherwise, is left out. Identity: equal differences give back their mean, and swapping the poles
flips the sign. Source: our own trimming of contrastive activation addition, arXiv 2312.06681.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from steer_heal_love.vector import States, methods


@methods("cluster_diff")
def cluster_diff(pos: States, neg: States) -> dict[int, Float[Tensor, " d"]]:
    out = {}
    for i in pos:
        differences = pos[i] - neg[i]
        agreement = torch.cosine_similarity(differences, differences.mean(0, keepdim=True), dim=1)
        best = agreement.topk((len(differences) + 1) // 2).indices
        out[i] = differences[best].mean(0)
    return out
