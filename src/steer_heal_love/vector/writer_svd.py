"""The mean difference projected on the singular basis of what writes to the residual stream.

    v = U_r U_rᵀ · mean d,   U Σ Vᵀ = [W₁ W₂ …]

with d_i = h(pos, i) − h(neg, i), W the weights [d, n] of the linear modules that add to the stream, beside each other, and r
the fewest left singular vectors that hold `SHARE` of the squared singular values. What the model itself rarely writes is
taken out of the contrast. `writer_svd` takes the writers of the vector's own layer; `writer_svd_pooled` those of all layers
up to it, which is what the stream there can hold beside the embedding.

Identity: with a basis of the whole space (as without weights) the mean difference is given back; projecting again changes
nothing. Source: our own; that singular vectors of a transformer's weights carry
meaning is from Millidge and Black 2022, The Singular Value Decompositions of Transformer Weight Matrices are Highly
Interpretable (Alignment Forum).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from steer_heal_love.ground.writers import Writers
from steer_heal_love.vector import Needs, States, methods, needs
from steer_heal_love.vector.mean_diff import mean_diff

SHARE = 0.5
"""of the squared singular values that the basis holds"""
Gram = Callable[[int], Float[Tensor, "d d"]]

needs.register("writer_svd", Needs(weights=True))
needs.register("writer_svd_pooled", Needs(weights=True))


@methods("writer_svd")
def writer_svd(pos: States, neg: States, writers: Writers | None = None) -> dict[int, Float[Tensor, " d"]]:
    return projected(mean_diff(pos, neg), writers.gram if writers else None)


@methods("writer_svd_pooled")
def writer_svd_pooled(
    pos: States, neg: States, writers: Writers | None = None
) -> dict[int, Float[Tensor, " d"]]:
    return projected(mean_diff(pos, neg), writers.pooled if writers else None)


def projected(vectors: dict[int, Float[Tensor, " d"]], gram: Gram | None) -> dict[int, Float[Tensor, " d"]]:
    """Each layer's vector in the span of the leading singular vectors of that layer's Gram matrix W Wᵀ."""
    if gram is None:
        return vectors
    return {i: onto(v, leading(gram(i).to(v), SHARE)) for i, v in vectors.items()}


def onto(v: Float[Tensor, " d"], basis: Float[Tensor, "d r"]) -> Float[Tensor, " d"]:
    return basis @ (basis.T @ v)


def leading(gram: Float[Tensor, "d d"], share: float) -> Float[Tensor, "d r"]:
    """The fewest eigenvectors that hold `share` of the trace: left singular vectors of W, most written first."""
    values, vectors = torch.linalg.eigh(gram)
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    held = values.cumsum(0) / values.sum().clamp_min(1e-30)
    r = int((held < share).sum()) + 1
    return vectors[:, : min(r, len(values))]
