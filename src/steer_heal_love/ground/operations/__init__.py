"""What a steering direction does to the hidden state at run time. How the direction was found is the room `vector`.

In: a hidden state h, a direction v, a dose. Out: the shift that is added to h. An operation is one file here with
`@operations(name)`, and beside it a `Folding`: whether weights alone can do the same. It acts on each position alone, and
dose 0 gives a shift of zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from steer_heal_love.ground.hooks import Doses, added, shifted
from steer_heal_love.ground.registry import Registry

Operation = Callable[[Float[Tensor, "b t d"], Float[Tensor, " d"], Tensor | float], Float[Tensor, "b t d"]]
operations: Registry[Operation] = Registry("steering operation", __name__)


@dataclass(frozen=True)
class Folding:
    """Whether an operation at some layers is exactly another set of weights: a constant, which is a bias; or why not."""

    exact: bool
    why: str


foldings: Registry[Folding] = Registry("folding of a steering operation", __name__)
"""of each operation, by its name"""


def operated(
    model: PreTrainedModel,
    operation: str,
    directions: Mapping[int, Float[Tensor, " d"]],
    dose: float | Float[Tensor, " b"],
) -> AbstractContextManager[Doses]:
    """Apply `operation` with these directions to the output of each named decoder layer, at every position.

    Raises `UserError` for an unknown operation, a layer that the model has not, and another width. `added` and
    `operated` exclude each other on one model.
    """
    shift_of = operations[operation]

    def shift(hidden: Tensor, direction: Tensor, doses: Doses) -> Tensor:
        full = hidden.float()
        return shift_of(full, direction, doses.of(full)).to(hidden)

    return shifted(model, directions, dose, shift, torch.float32)


@dataclass(frozen=True)
class Steering:
    """What steers: an operation, and the directions that it takes by layer number (from 0).

    `with steering(model, dose):` steers every row at `dose`, or each at its own. Dose 0 changes nothing.
    """

    directions: Mapping[int, Float[Tensor, " d"]]
    operation: str = "add"

    def __call__(
        self, model: PreTrainedModel, dose: float | Float[Tensor, " b"]
    ) -> AbstractContextManager[Doses]:
        """Raises `UserError` for an unknown operation, a layer that the model has not, and another width."""
        if self.operation == "add":
            return added(model, self.directions, dose)
        return operated(model, self.operation, self.directions, dose)
