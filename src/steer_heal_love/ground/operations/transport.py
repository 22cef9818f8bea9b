"""Linear transport: h ← h + dose·(s⊙h + b), with one slope change s and one offset b a coordinate.

At dose 1 it is the affine map h ↦ (1 + s)⊙h + b, and in between the straight line from the identity to that map. It takes
two rows a layer, s and b; `vector.linear_act` fits them. Identity: dose 0, and rows of zeros; with s = 0 it is addition.

It does not fold on the residual stream: the stream also carries what the embedding and earlier layers wrote, all of it is
stretched, and the norms after it don't let a stretch through. At the output of a linear module it folds exactly:
(1 + s)⊙(W x + c) + b has the weight diag(1 + s) W and the bias (1 + s)⊙c + b.
Source: Linear-AcT, arXiv 2410.23054.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from steer_heal_love.ground.operations import Folding, foldings, operations, rows

rows.register("transport", 2)
foldings.register(
    "transport",
    Folding(
        exact=False,
        why="every coordinate is stretched, and on the residual stream that also stretches what earlier layers and the "
        "embedding wrote",
        at_linear=True,
    ),
)


@operations("transport")
def transport(
    h: Float[Tensor, "b t d"], v: Float[Tensor, "2 d"], dose: Tensor | float
) -> Float[Tensor, "b t d"]:
    slope, offset = v
    return dose * (slope * h + offset)
