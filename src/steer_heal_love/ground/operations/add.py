"""Addition: h ← h + dose·v.

Identity: dose 0. Folds into weights exactly where the layer's last writer feeds the residual stream directly: dose·v is
that writer's bias. At the output of a linear module it is that module's bias. Source: contrastive activation addition, arXiv 2312.06681.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from steer_heal_love.ground.operations import Folding, foldings, operations

foldings.register(
    "add",
    Folding(exact=True, why="what is added is the same for every state, so it is a bias", at_linear=True),
)


@operations("add")
def add(h: Float[Tensor, "b t d"], v: Float[Tensor, " d"], dose: Tensor | float) -> Float[Tensor, "b t d"]:
    return (dose * v).expand_as(h)
