"""What a steering direction does to the hidden state at run time. How the direction was found is the room `vector`.

In: a hidden state h, a direction v, a dose. Out: the shift that is added to h. An operation is one file here with
`@operations(name)`, and beside it a `Folding`: whether weights alone can do the same. It acts on each position alone, and
dose 0 gives a shift of zero. One that takes several vectors a layer instead of a direction says how many in `rows`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from steer_heal_love.ground import places
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.hooks import Doses, added, shifted
from steer_heal_love.ground.places import Rows
from steer_heal_love.ground.registry import Registry

Operation = Callable[[Float[Tensor, "b t d"], Rows, Tensor | float], Float[Tensor, "b t d"]]
operations: Registry[Operation] = Registry("steering operation", __name__)


@dataclass(frozen=True)
class Folding:
    """Whether an operation is exactly another set of weights, and why or why not.

    `exact`: on the residual stream of some layers, where only a constant is (it is a bias). `at_linear`: at the output of
    linear modules, where every affine map is: it goes into the module's own weight and bias.
    """

    exact: bool
    why: str
    at_linear: bool = False


foldings: Registry[Folding] = Registry("folding of a steering operation", __name__)
"""of each operation, by its name"""
rows: Registry[int] = Registry("number of rows of a steering operation", __name__)
"""how many vectors a layer's tensor holds, of operations that take more than a direction"""


def operated(
    model: PreTrainedModel,
    operation: str,
    directions: Mapping[int, Rows],
    dose: float | Float[Tensor, " b"],
) -> AbstractContextManager[Doses]:
    """Apply `operation` with these directions to the output of each named decoder layer, or where they say, at every
    position.

    Raises `UserError` for an unknown operation, a layer that the model has not, and another width or number of rows.
    `added` and `operated` exclude each other on one model.
    """
    shift_of = operations[operation]

    def shift(hidden: Tensor, direction: Tensor, doses: Doses) -> Tensor:
        full = hidden.float()
        return shift_of(full, direction, doses.of(full)).to(hidden)

    return shifted(model, directions, dose, shift, torch.float32, rows.get(operation, 1))


@dataclass(frozen=True)
class Steering:
    """What steers: an operation, and the directions that it takes by layer number (from 0).

    `with steering(model, dose):` steers every row at `dose`, or each at its own. Dose 0 changes nothing. Directions that
    are made for one operation are applied by that one, whatever the default says.
    """

    directions: Mapping[int, Rows]
    operation: str = "add"

    def __post_init__(self) -> None:
        """Raises `UserError` for directions that are made for another operation than the one named."""
        own = places.of(self.directions).operation
        if not own or own == self.operation:
            return
        if self.operation != "add":
            raise UserError(
                f"the steering operation {self.operation} takes directions; these are made for {own}. Leave the operation out."
            )
        object.__setattr__(self, "operation", own)

    def __call__(
        self, model: PreTrainedModel, dose: float | Float[Tensor, " b"]
    ) -> AbstractContextManager[Doses]:
        """Raises `UserError` for an unknown operation, a layer that the model has not, and another width."""
        if self.operation == "add":
            return added(model, self.directions, dose)
        return operated(model, self.operation, self.directions, dose)
